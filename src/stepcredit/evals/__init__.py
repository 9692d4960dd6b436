"""Evaluation: benchmarks, sampling, pass@k, majority votes, best of n, and intervals."""

from stepcredit.evals.best_sample import best_of_n
from stepcredit.evals.bootstrap import bootstrap_interval
from stepcredit.evals.intervals import Interval, mean_interval
from stepcredit.evals.unbiased_pass_at_k import pass_at_k

__all__ = ["Interval", "best_of_n", "bootstrap_interval", "mean_interval", "pass_at_k"]
