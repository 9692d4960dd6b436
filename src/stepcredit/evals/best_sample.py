"""Best of n: the sample that a process signal likes best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from statistics import fmean

Scores = Sequence[float]

POOLS: Mapping[str, Callable[[Scores], float]] = {"min": min, "mean": fmean, "product": prod}
"""How the scores of a response's steps become one number."""


def best_of_n(scores: Sequence[Scores | None], outcomes: Sequence[float], pool: str) -> float:
    """The outcome of the sample whose pooled step scores are highest.

    A sample without scores is chosen only where no sample of the problem has any. Of samples with
    equal scores the mean outcome counts: what a random choice among them would give on average.

    Args:
        scores: for each sample of a problem, its step scores; None or empty: it has none.
        outcomes: the outcome of each sample.
        pool: `min`, `mean` or `product`.

    Example:
        >>> scores, outcomes = [[0.9, 0.2], [0.5, 0.5], [0.9, 0.9, 0.3]], [0, 1, 0]
        >>> [best_of_n(scores, outcomes, pool) for pool in POOLS]
        [1.0, 0.0, 1.0]

    Source: Lightman et al. 2023 (arXiv 2305.20050), section 3 (product and minimum).
    """
    pooled = [POOLS[pool](own) if own else -float("inf") for own in scores]
    best = max(pooled)
    return fmean(float(y) for value, y in zip(pooled, outcomes, strict=True) if value == best)


def can_multiply(scores: Sequence[Scores | None]) -> bool:
    """Whether a product ranks responses: it does for scores of at least 0, such as probabilities.

    Example:
        >>> can_multiply([[0.5, 1.0], None]), can_multiply([[0.5, -1.0]])
        (True, False)
    """
    return all(min(own) >= 0 for own in scores if own)
