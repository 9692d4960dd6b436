"""Statistics of a study: seeds and problems are both drawn, so both are resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isnan

import numpy as np

from stepcredit.evals.bootstrap import percentile_interval
from stepcredit.keys import keyed_generator

RESAMPLES = 10_000
LEVEL = 0.95
TIE = 0.03
"""Two arms are tied if the interval of their difference of pass@1 lies within ± this."""
Matrix = np.ndarray
"""(seed, problem): one figure per run and problem."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    Args:
        value: the figure.
        low, high: ends of the interval.
        n: number of runs, or of pairs of runs, behind it.
    """

    value: float
    low: float
    high: float
    n: int


def interval_verdict(estimate: Estimate, kind: str, margin: float) -> str:
    """Held, not held or undecided, by an interval.

    Args:
        estimate: the figure with its interval.
        kind: "greater", "less" or "tied".
        margin: the margin.

    Example:
        >>> interval_verdict(Estimate(0.05, 0.01, 0.09, 10), "greater", 0.0)
        'held'
        >>> interval_verdict(Estimate(0.05, 0.01, 0.09, 10), "tied", 0.03)
        'undecided'
    """
    low, high = estimate.low, estimate.high
    if isnan(low) or isnan(high):
        return "undecided"
    if kind == "less":
        return interval_verdict(replace(estimate, low=-high, high=-low), "greater", -margin)
    held, lost = low > margin, high < margin
    if kind == "tied":
        held, lost = -margin <= low and high <= margin, low > margin or high < -margin
    return "held" if held else "not held" if lost else "undecided"


def crossed_mean(strata: Sequence[Matrix], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean over strata of their means, with a crossed, stratified bootstrap interval.

        value = mean over strata of (mean over seeds and problems)

    In each resample every stratum draws its seeds and its problems anew, with replacement and
    independently of each other.

    Args:
        strata: for each stratum (a task) a (seed, problem) matrix; of a figure per run, it has one
            column.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        The percentile interval, widened by `few_seeds_factor`; NaN ends with fewer than two seeds
        in a stratum.

    Example:
        >>> found = crossed_mean([np.array([[0.0, 1.0], [1.0, 1.0]])])
        >>> found.value, found.n
        (0.75, 2)
    """
    runs = sum(len(matrix) for matrix in strata)
    value = float(np.mean([matrix.mean() for matrix in strata]))
    if min(len(matrix) for matrix in strata) < 2:
        return Estimate(value, float("nan"), float("nan"), runs)
    drawn = [resampled_scores(m, resamples, seed + i) for i, m in enumerate(strata)]
    means = _means(drawn)
    return _widened(value, means, runs, few_seeds_factor(strata, means))


def _means(drawn: Sequence[np.ndarray]) -> np.ndarray:
    """The figure of each resample: the mean over strata of their means over seeds."""
    return np.asarray(np.mean([scores.mean(axis=1) for scores in drawn], axis=0))


def _widened(value: float, drawn: np.ndarray, runs: int, factor: float) -> Estimate:
    """The figure with its percentile interval, whose ends are moved away from it by a factor."""
    low, high = (value + factor * (end - value) for end in percentile_interval(drawn))
    return Estimate(value, low, high, runs)


def few_seeds_factor(strata: Sequence[Matrix], means: np.ndarray) -> float:
    """By how much the percentile interval of a mean over few seeds is too narrow.

        factor = sqrt(1 + sum_s (c_s^2 - 1) v_s / (S^2 v))
        c_s = sqrt(n_s / (n_s - 1)) t(n_s - 1) / z

    v is the variance of the resampled means, v_s the part of stratum s in it that comes from its
    n_s seeds alone (their variance / n_s), S the number of strata; t and z are the 0.975 quantiles
    of Student's t and of the normal distribution. Resampling n seeds shows (n - 1) / n of their
    variance, and its percentiles know nothing of t. The many problems need no such factor.

    Args:
        strata: for each stratum a (seed, problem) matrix of two or more seeds.
        means: the mean of each resample.

    Returns:
        At least 1; 1.22 for one figure per run and 10 seeds, 1.58 for 5, 2.69 for 3.

    Example:
        >>> seeds = np.arange(10.0)[:, None]
        >>> round(few_seeds_factor([seeds], np.array([-1.0, 1.0]) * 0.908), 2)
        1.22

    Source: the expanded percentile interval of Hesterberg 2015, "What Teachers Should Know About
    the Bootstrap". Differs: that one moves the level of the percentiles, which three seeds do not
    have; this one moves the ends, and only by what comes from the seeds.
    """
    from scipy.stats import norm, t

    variance = float(means.var())
    if variance == 0:
        return 1.0
    tail = (1 + LEVEL) / 2
    added = 0.0
    for matrix in strata:
        n = len(matrix)
        c = (n / (n - 1)) ** 0.5 * t.ppf(tail, n - 1) / norm.ppf(tail)
        added += (c**2 - 1) * matrix.mean(axis=1).var() / n / len(strata) ** 2
    return float((1 + added / variance) ** 0.5)


def resampled_scores(matrix: Matrix, resamples: int, seed: int) -> np.ndarray:
    """The score of each drawn seed over the drawn problems.

    Args:
        matrix: (seed, problem).
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        (resample, seed): in each row the seeds are drawn with replacement, and the problems, which
        are the same for all seeds of the row.
    """
    seeds, problems = matrix.shape
    scores = problem_weights(problems, resamples, seed) @ matrix.T
    generator = keyed_generator(seed, "seeds")
    drawn = generator.integers(0, seeds, (resamples, seeds))
    return np.take_along_axis(scores, drawn, axis=1)


@lru_cache(maxsize=8)
def problem_weights(problems: int, resamples: int, seed: int) -> np.ndarray:
    """How often each problem is drawn in each resample, divided by the number of problems.

    Args:
        problems: number of problems.
        resamples: number of resamples.
        seed: seed of the resampling; all matrices of one size share the draws, so that they are
            compared on the same problems.

    Returns:
        (resample, problem).
    """
    generator = keyed_generator(seed, "problems")
    drawn = generator.multinomial(problems, np.full(problems, 1 / problems), resamples)
    return drawn / problems


def interquartile_mean(scores: np.ndarray) -> float:
    """The mean without the lowest and the highest quarter.

    Args:
        scores: one per run.

    Example:
        >>> interquartile_mean(np.array([0.0, 1.0, 2.0, 9.0]))
        1.5
    """
    from scipy.stats import trim_mean

    return float(trim_mean(scores, 0.25))


def crossed_iqm(strata: Sequence[Matrix], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The interquartile mean over the runs of all strata, with its bootstrap interval.

    Args:
        strata: for each stratum a (seed, problem) matrix.
        resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        As `crossed_mean`; all runs of all strata are trimmed together, as rliable does.
    """
    from scipy.stats import trim_mean

    scores = np.concatenate([matrix.mean(axis=1) for matrix in strata])
    value = interquartile_mean(scores)
    if min(len(matrix) for matrix in strata) < 2:
        return Estimate(value, float("nan"), float("nan"), len(scores))
    drawn = [resampled_scores(m, resamples, seed + i) for i, m in enumerate(strata)]
    trimmed = trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    return _widened(value, trimmed, len(scores), few_seeds_factor(strata, _means(drawn)))


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The probability that a run of one arm ends above a run of another; a tie counts half.

        P = mean over pairs of [x > y] + [x = y] / 2

    Args:
        ours, theirs: one score per run.

    Example:
        >>> probability_of_improvement(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
        0.875
    """
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs)))


def sign_flip_p(differences: np.ndarray, margin: float, resamples: int = RESAMPLES) -> float:
    """One-sided p-value of "the paired difference is not above the margin".

    Under that hypothesis the sign of each difference less the margin is as likely + as -.

    Args:
        differences: one per pair of runs.
        margin: the margin.
        resamples: sign patterns; all of them are taken if they are no more than this.

    Example:
        >>> sign_flip_p(np.array([0.1, 0.2, 0.3]), margin=0.0)
        0.125
        >>> sign_flip_p(np.array([0.1]), margin=0.0)
        0.5
    """
    from scipy.stats import permutation_test

    if len(differences) == 1:  # of the two patterns; scipy asks for two differences
        return 0.5 if differences[0] > margin else 1.0
    found = permutation_test(
        (differences - margin,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=resamples,
        rng=keyed_generator(0, "sign flips"),
    )
    return float(found.pvalue)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method.

    Example:
        >>> [round(p, 3) for p in holm_adjusted([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]] if p_values else []


def rate_estimate(events: int, n: int) -> Estimate:
    """A rate with its exact 95 % interval (Clopper-Pearson).

    Example:
        >>> rate_estimate(0, 10).low
        0.0
    """
    from scipy.stats import binomtest

    found = binomtest(events, n).proportion_ci(LEVEL, method="exact")
    return Estimate(events / n, float(found.low), float(found.high), n)
