"""Metrics of a batch: pure functions of an estimator, rollouts and advantages."""

from stepcredit.credit.metrics.panel import training_metrics

__all__ = ["training_metrics"]
