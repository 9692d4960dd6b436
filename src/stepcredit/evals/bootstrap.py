"""Bootstrap intervals over problems."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import StepCreditError
from stepcredit.evals.intervals import Interval

DRAWS = 10_000
DRAWN_AT_ONCE = 1 << 22


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean over problems, with the percentile bootstrap's interval.

        low, high = quantiles (1 - c)/2 and (1 + c)/2 of the means of `draws` samples of P problems,
        drawn with replacement from the P problems

    Args:
        values: one finite number per problem, such as its pass@k; at least one.
        confidence: the level c, in (0, 1).
        draws: samples of problems.
        seed: seed of the draws; the same numbers give the same interval.

    Returns:
        `Interval`. If all values are equal, mean, low and high are that number; a single problem
        gives an interval from minus to plus infinity.

    Raises:
        StepCreditError: there is no value, or one is not finite.

    Example:
        >>> print(bootstrap_interval([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
        0.750 [0.375, 1.000]

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise StepCreditError("expected one or more finite numbers", field="values")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, -math.inf, math.inf)
    if (x == x[0]).all():
        return Interval(mean, mean, mean)
    means = _resampled_means(x, draws, np.random.default_rng(seed))
    return Interval(mean, *percentile_interval(means, confidence))


def percentile_interval(
    drawn: NDArray[np.float64], confidence: float = 0.95
) -> tuple[float, float]:
    """The ends of the central part of resampled figures.

    Args:
        drawn: the figure of each resample.
        confidence: the part, in (0, 1).

    Example:
        >>> [round(end, 6) for end in percentile_interval(np.arange(101.0))]
        [2.5, 97.5]
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(
    x: NDArray[np.float64], draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Means of samples with replacement, a bounded number of places at once."""
    at_once = max(1, DRAWN_AT_ONCE // x.size)
    parts = [
        x[generator.integers(0, x.size, (min(at_once, draws - start), x.size))].mean(axis=1)
        for start in range(0, draws, at_once)
    ]
    return np.concatenate(parts)
