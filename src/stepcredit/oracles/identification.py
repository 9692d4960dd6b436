"""How well credit identifies the exact advantage of each step: weighted statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

ZERO_CREDIT = 1e-6
"""Credit below this size counts as 0: the estimators return float32."""
Values = Float64[np.ndarray, " step"]


@dataclass(frozen=True)
class Identification:
    """What the credit of steps says of their exact advantages; weights w are probabilities.

        rmse      sqrt(sum w (A - c credit)^2 / sum w A^2), c >= 0 the best common scale
        spearman  correlation of the ranks
        sign      share of the steps with A != 0 whose credit has A's sign; credit 0 counts as half
        leakage   share of credit^2 on steps with A = 0

    Args:
        rmse: 0 is exact, 1 is no better than credit 0.
        spearman: -1 to 1; 0 where all credit is equal.
        sign: 0 to 1; 0.5 is a coin's.
        leakage: 0 to 1; 0 where there is no credit.
    """

    rmse: float
    spearman: float
    sign: float
    leakage: float

    @classmethod
    def of(cls, credit: Values, advantage: Values, weight: Values) -> Identification:
        """The four figures.

        Args:
            credit: what an estimator gave each step.
            advantage: the exact one; not 0 everywhere.
            weight: the probability of each step, at least 0.

        Example:
            >>> exact = np.array([0.5, -0.5, 0.0])
            >>> Identification.of(2 * exact, exact, np.ones(3))
            Identification(rmse=0.0, spearman=1.0, sign=1.0, leakage=0.0)
        """
        squares = float(weight @ credit**2)
        scale = max(0.0, _ratio(float(weight @ (advantage * credit)), squares))
        missed = float(weight @ (advantage - scale * credit) ** 2)
        idle = advantage == 0
        return cls(
            rmse=math.sqrt(missed / float(weight @ advantage**2)),
            spearman=weighted_spearman(credit, advantage, weight),
            sign=_sign_accuracy(credit[~idle], advantage[~idle], weight[~idle]),
            leakage=_ratio(float(weight[idle] @ credit[idle] ** 2), squares),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > ZERO_CREDIT**2 else 0.0


def _sign_accuracy(credit: Values, advantage: Values, weight: Values) -> float:
    given = np.where(abs(credit) < ZERO_CREDIT, 0.0, np.sign(credit))
    agreement = (1.0 + given * np.sign(advantage)) / 2.0
    return float(weight @ agreement / weight.sum())


def weighted_spearman(x: Values, y: Values, weight: Values) -> float:
    """Spearman's rank correlation of weighted values.

    Whole-number weights give what as many copies of each value would give.

    Args:
        x, y: two values per item; differences below 1e-6 are ties.
        weight: of each item, at least 0, not all 0.

    Returns:
        float in [-1, 1]; 0 where all x or all y are equal.

    Example:
        >>> weighted_spearman(np.array([1.0, 2.0, 9.0]), np.array([0.0, 1.0, 2.0]), np.ones(3))
        1.0
    """
    a, b = (_middle_ranks(values, weight) for values in (x, y))
    share = weight / weight.sum()
    a, b = a - share @ a, b - share @ b
    size = math.sqrt(float(share @ a**2) * float(share @ b**2))
    return round(float(share @ (a * b)) / size, 12) if size > 1e-12 else 0.0


def _middle_ranks(values: Values, weight: Values) -> Values:
    """The weight below each value, plus half of the weight at it, as a share of all weight."""
    _, place = np.unique(np.round(values / ZERO_CREDIT), return_inverse=True)
    at = np.bincount(place, weight)
    ranks: Values = ((np.cumsum(at) - at / 2.0) / weight.sum())[place]
    return ranks
