"""Metrics of a batch: pure functions of an estimator, rollouts and advantages."""

from stepcredit.credit.metrics.panel import clipped_share, safe_name, stream_std, training_metrics

__all__ = ["clipped_share", "safe_name", "stream_std", "training_metrics"]
