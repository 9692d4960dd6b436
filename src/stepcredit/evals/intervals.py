"""95 % intervals of means, in which the prompt is the sampled unit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import MissingExtra, StepCreditError


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The three numbers by name."""
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    values: Sequence[float] | NDArray[np.float64],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Mean of the clusters' means, with Student's t interval over them.

        m +- t_{1-a/2, P-1} s / sqrt(P),   m and s the mean and sample std of P cluster means

    Answers to one prompt are not independent draws, so each prompt counts once, whatever the number
    of its answers.

    Args:
        values: one finite number per answer (or, without `clusters`, per prompt); at least one.
        clusters: the cluster of each value, usually its prompt; None: each value is one cluster.
        confidence: the level, in (0, 1).

    Returns:
        `Interval`. If all cluster means are equal, mean, low and high are that number; a single
        cluster gives an interval from minus to plus infinity.

    Raises:
        StepCreditError: when there is no value, one is not finite, or lengths disagree.
        MissingExtra: when scipy is not installed.

    Example:
        >>> print(mean_interval([1, 0, 1, 1, 0, 0], clusters=["a", "a", "b", "b", "c", "c"]))
        0.500 [-0.742, 1.742]

    Source: Miller 2024 (arXiv 2411.00640), section 2.2, clustered standard errors. Differs: each
    cluster weighs the same, and t in place of the normal quantile.
    """
    means = _cluster_means(values, clusters)
    mean = float(means.mean())
    if len(means) == 1:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile(confidence, len(means) - 1) * float(means.std(ddof=1))
    half /= math.sqrt(len(means))
    return Interval(mean, mean - half, mean + half)


def rate_upper_bound(events: int, n: int) -> float:
    """The one-sided 95 % upper bound of a rate: 1 - 0.05^(1/n), about 3/n, where nothing happened.

    Args:
        events: how many of the cases show it.
        n: independent cases, at least 1.

    Raises:
        MissingExtra: when scipy is not installed.

    Example:
        >>> round(rate_upper_bound(0, 30), 3)
        0.095

    Source: Clopper and Pearson 1934.
    """
    bound = _scipy_stats().binomtest(events, n, alternative="less").proportion_ci(0.95)
    return float(bound.high)


def share_interval(cases: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of independent draws.

        (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n),   z the normal quantile

    Args:
        cases: p n, how many of the draws show it.
        n: draws, at least 1.
        confidence: the level, in (0, 1).

    Returns:
        Its two ends, in [0, 1].

    Raises:
        MissingExtra: when scipy is not installed.

    Example:
        >>> [round(x, 4) for x in share_interval(5, 10)]
        [0.2366, 0.7634]

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    found = _scipy_stats().binomtest(cases, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def difference_interval(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    confidence: float = 0.95,
) -> Interval:
    """How far the mean of the second sample lies above that of the first, with Welch's interval.

        m2 - m1 +- t_{1-a/2, v} sqrt(q),   q = q1 + q2,   q_i = s_i^2 / n_i
        v = q^2 / (q1^2 / (n1 - 1) + q2^2 / (n2 - 1))

    Args:
        first, second: independent samples of finite numbers, at least two in each.
        confidence: the level, in (0, 1).

    Returns:
        `Interval`; if the values of each sample are equal, its ends are the difference.

    Raises:
        StepCreditError: a sample has fewer than two values, or one is not finite.
        MissingExtra: when scipy is not installed.

    Example:
        >>> print(difference_interval([1.0, 2.0, 3.0], [4.0, 6.0]))
        3.000 [-2.977, 8.977]

    Source: Welch 1947, The generalization of "Student's" problem when several different population
    variances are involved.
    """
    samples = [_cluster_means(values, None) for values in (first, second)]
    if min(map(len, samples)) < 2:
        raise StepCreditError("expected two values or more in each sample", field="values")
    difference = float(samples[1].mean() - samples[0].mean())
    parts = [float(x.var(ddof=1)) / len(x) for x in samples]
    if not sum(parts):
        return Interval(difference, difference, difference)
    weights = [part**2 / (len(x) - 1) for part, x in zip(parts, samples, strict=True)]
    degrees = sum(parts) ** 2 / sum(weights)
    half = t_quantile(confidence, degrees) * math.sqrt(sum(parts))
    return Interval(difference, difference - half, difference + half)


def _cluster_means(
    values: Sequence[float] | NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> NDArray[np.float64]:
    """One mean per cluster, in the order in which the clusters first appear."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise StepCreditError(f"expected one or more numbers, got shape {x.shape}", field="values")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x))[0])
        raise StepCreditError(f"expected a finite number, got {x[row]}", row=row, field="values")
    if clusters is None:
        return x
    if len(clusters) != x.size:
        raise StepCreditError(f"expected {x.size}, got {len(clusters)}", field="clusters")
    index: dict[Hashable, int] = {}
    rows = np.array([index.setdefault(cluster, len(index)) for cluster in clusters])
    return np.bincount(rows, weights=x) / np.bincount(rows)


def t_quantile(confidence: float, degrees: float) -> float:
    """Two-sided quantile of Student's t.

    Args:
        confidence: the level, in (0, 1).
        degrees: degrees of freedom, at least 1.

    Raises:
        MissingExtra: when scipy is not installed.

    Example:
        >>> round(t_quantile(0.95, 10), 3)
        2.228
    """
    return float(_scipy_stats().t.ppf(0.5 + confidence / 2, degrees))


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtra(
            "not installed; it comes with the extra train: pip install 'stepcredit[train]'",
            field="scipy",
        ) from error
    return stats
