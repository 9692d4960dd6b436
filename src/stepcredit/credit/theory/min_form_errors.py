"""Error bounds of the min-form: the bias of its softmin, and the effect of errors in step scores.

All functions take plain numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stepcredit.credit.theory.arguments import Scores, not_negative, positive_whole, vector
from stepcredit.errors import MethodError


def softmin_bias(scores: Scores, temperature: float) -> float:
    """How far the softmin-weighted total of some step scores lies above their minimum.

        sum_j w_j s_j - min_j s_j,   w = softmax(-s / T)

    Args:
        scores: (step,) finite step scores of one response, at least one.
        temperature: T, in units of the scores, at least 0; 0 is the strict minimum.

    Returns: float >= 0; 0 for one step, equal scores or T = 0.

    Raises: MethodError on a number out of range or scores that are no finite vector.

    Example:
        >>> round(softmin_bias([0.0, 0.2, 0.2], temperature=0.1), 4)
        0.0426

    Source: PURE (arXiv 2504.15275), its weighted return.
    """
    values, temperature = vector(scores, "scores"), not_negative(temperature, "temperature")
    if temperature == 0:
        return 0.0
    with np.errstate(over="ignore"):  # a gap beyond float64 gets weight 0, as it should
        above = values - values.min()
        weight = np.exp(-above / temperature)
    weighted = weight > 0
    return float((weight[weighted] * above[weighted]).sum() / weight.sum())


def softmin_bias_bound(steps: int, temperature: float) -> float:
    """The largest bias softmin can have over a number of steps; it is attained.

        B = T W((S - 1)/e),   W Lambert's: W e^W = x

    Args:
        steps: S, number of steps, at least 1.
        temperature: T, in units of the scores, at least 0.

    Returns: float; 0 for one step or T = 0.

    Raises: MethodError on a number out of range.

    Example:
        >>> [round(softmin_bias_bound(S, temperature=0.1), 3) for S in (1, 10, 200)]
        [0.0, 0.11, 0.315]

    Source: PURE (arXiv 2504.15275) states no bound.
    """
    steps, temperature = positive_whole(steps, "steps"), not_negative(temperature, "temperature")
    return temperature * _lambert_w((steps - 1) / math.e)


def softmin_worst_scores(steps: int, temperature: float) -> list[float]:
    """Step scores whose softmin bias is the bound: one worst step, the others alike above it.

        0, x, ..., x   with   x = T (1 + W((S - 1)/e))

    Args:
        steps: S, number of steps, at least 1.
        temperature: T, in units of the scores, at least 0.

    Returns: list of S floats; any constant may be added.

    Raises: MethodError on a number out of range.

    Example:
        >>> [round(score, 3) for score in softmin_worst_scores(4, temperature=0.1)]
        [0.0, 0.16, 0.16, 0.16]
    """
    gap = temperature + softmin_bias_bound(steps, temperature)
    return [0.0] + [gap] * (steps - 1)


@dataclass(frozen=True)
class ErrorBounds:
    """How far each return can err when every step score errs by at most epsilon.

    Args:
        discounted_sum: of Q_t = sum_{t' >= t} gamma^(t'-t) s_t', with `steps` steps from t on.
        minimum: of min_{t' >= t} s_t', at every t.
        softmin_total: of sum_j w_j s^_j against the *true* minimum: the softmin's
            bias comes on top.

    Example:
        >>> ErrorBounds(discounted_sum=0.5, minimum=0.05, softmin_total=0.16).minimum
        0.05
    """

    discounted_sum: float
    minimum: float
    softmin_total: float


def error_bounds(
    epsilon: float, steps: int, *, temperature: float = 0.1, gamma: float = 1.0
) -> ErrorBounds:
    """What an error of the step scores does to the returns: three bounds that hold at every step.

        |Q^_t - Q_t| <= eps sum_{i < S} gamma^i,   |min s^ - min s| <= eps,
        |sum_j w^_j s^_j - min s| <= eps + B

    They do not hold for the return a min-form estimator uses: see `strict_min_exposed`.

    Args:
        epsilon: eps >= |s^_j - s_j| at every step.
        steps: S, steps summed over, at least 1.
        temperature: the softmin's T, at least 0.
        gamma: the sum's discount, in [0, 1].

    Returns: ErrorBounds.

    Raises: MethodError on a number out of range.

    Example:
        >>> bounds = error_bounds(0.05, steps=10)
        >>> bounds.discounted_sum, bounds.minimum, round(bounds.softmin_total, 2)
        (0.5, 0.05, 0.16)

    Source: PURE (arXiv 2504.15275), for the first two. Differs: the third is ours.
    """
    epsilon, steps = not_negative(epsilon, "epsilon"), positive_whole(steps, "steps")
    gamma = not_negative(gamma, "gamma")
    if gamma > 1:
        raise MethodError(f"expected a number in [0, 1], got {gamma!r}", field="gamma")
    bias = softmin_bias_bound(steps, temperature)
    return ErrorBounds(epsilon * _geometric_sum(gamma, steps), epsilon, epsilon + bias)


def strict_min_exposed(scores: Scores, estimated: Scores) -> range:
    """The steps at which the strict min-form return of estimated scores has no error bound.

    The strict return is min s up to the first worst step and 0 after it. So with estimates off by
    epsilon it errs by at most epsilon up to the earlier of the two worst steps, by nothing after
    the later one, and between them by the whole minimum, however small epsilon is.

    Args:
        scores: (step,) true step scores, finite, at least one.
        estimated: (step,) their estimates, as many.

    Returns: range of steps, from 0: after the earlier worst step, up to the later one; empty where
        both agree on the worst step.

    Raises: MethodError on scores that are no finite vectors of one length.

    Example: errors of 0.01, and the second step's return is 0 against -0.5.
        >>> list(strict_min_exposed([-0.5, -0.49], [-0.49, -0.5]))
        [1]

    Source: PURE (arXiv 2504.15275) claims the bound at every step, which this corrects.
    """
    true, guess = vector(scores, "scores"), vector(estimated, "estimated")
    if len(true) != len(guess):
        raise MethodError(f"expected {len(true)} scores, got {len(guess)}", field="estimated")
    first, last = sorted((int(true.argmin()), int(guess.argmin())))
    return range(first + 1, last + 1)


def _lambert_w(x: float) -> float:
    """W with W e^W = x, for x >= 0: Newton on W + log W = log x, rising to the root from below."""
    if x == 0:
        return 0.0
    w = math.log1p(x)
    for _ in range(8):  # quadratic: 5 rounds reach float64 from here for every x
        w *= (1 + math.log(x / w)) / (1 + w)
    return w


def _geometric_sum(gamma: float, terms: int) -> float:
    if gamma in (0, 1):
        return float(terms) if gamma else 1.0
    return math.expm1(terms * math.log(gamma)) / (gamma - 1)
