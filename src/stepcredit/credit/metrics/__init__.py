"""Metrics of a batch: pure functions of an estimator, rollouts and advantages."""

from functools import partial

from stepcredit._moved import renamed
from stepcredit.credit.metrics.batch_warnings import credit_warnings
from stepcredit.credit.metrics.panel import clipped_share, stream_std, training_metrics

__all__ = ["clipped_share", "credit_warnings", "stream_std", "training_metrics"]
__getattr__ = partial(renamed, __name__)
