"""What the credit of a batch looks like: pure functions of an estimator, rollouts, advantages."""

from stepcredit.credit.metrics.panel import training_metrics

__all__ = ["training_metrics"]
