"""Evaluation: pass@k and intervals."""

from stepcredit.evals.intervals import Interval, mean_interval
from stepcredit.evals.unbiased_pass_at_k import pass_at_k

__all__ = ["Interval", "mean_interval", "pass_at_k"]
