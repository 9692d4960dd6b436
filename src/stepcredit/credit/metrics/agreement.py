"""How far the advantages of several methods agree, summed over batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Agreement:
    """Sums over all tokens, and one mean advantage per response and method.

    Args:
        methods: how many are compared.
    """

    methods: int
    tokens: int = 0
    sums: Floats = field(init=False)
    products: Floats = field(init=False)
    same_sign: Floats = field(init=False)
    means: list[Floats] = field(default_factory=list)
    places: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = np.zeros(self.methods)
        self.products = np.zeros((self.methods, self.methods))
        self.same_sign = np.zeros((self.methods, self.methods))

    def add(self, advantages: Floats, lengths: np.ndarray[Any, Any]) -> None:
        """Add a batch.

        Args:
            advantages: (method, token).
            lengths: tokens per response.
        """
        self.tokens += advantages.shape[1]
        self.sums += advantages.sum(1)
        self.products += advantages @ advantages.T
        signs = np.sign(advantages).astype(np.int8)
        for a, b in combinations(range(self.methods), 2):
            self.same_sign[a, b] += np.count_nonzero(signs[a] == signs[b])
        starts = np.cumsum(lengths) - lengths
        self.means.append(np.add.reduceat(advantages, starts, axis=1) / lengths)

    def correlation(self, a: int, b: int) -> float:
        """Pearson's, over tokens; NaN where one of the two is constant."""
        mean = self.sums / self.tokens
        covariance = self.products / self.tokens - np.outer(mean, mean)
        variances = covariance[a, a] * covariance[b, b]
        return float(covariance[a, b] / variances**0.5) if variances > 0 else float("nan")

    def sign_agreement(self, a: int, b: int) -> float:
        """Share of tokens whose advantages have the same sign."""
        return float(self.same_sign[a, b] / self.tokens)

    def cosine(self, a: int, b: int) -> float:
        """Cosine of the two methods' advantages, over tokens; NaN where one of them is all 0."""
        sizes = self.products[a, a] * self.products[b, b]
        return float(self.products[a, b] / sizes**0.5) if sizes > 0 else float("nan")

    def cosine_with_others(self, a: int) -> float:
        """Cosine of a method's advantages with the sum of the others', each scaled to length 1.

        A method whose advantages are all 0 is left out of the sum; NaN where nothing is left.
        """
        cosines = np.array([[self.cosine(i, j) for j in self._alive] for i in self._alive])
        if a not in self._alive:
            return float("nan")
        here = self._alive.index(a)
        others = [i for i in range(len(self._alive)) if i != here]
        size = float(cosines[np.ix_(others, others)].sum())
        return float(cosines[here, others].sum() / size**0.5) if size > 1e-12 else float("nan")

    @property
    def _alive(self) -> list[int]:
        """The methods with an advantage that is not 0."""
        return [i for i in range(self.methods) if self.products[i, i] > 0]

    def rank_agreement(self, a: int, b: int) -> float:
        """Spearman's, over the responses' mean advantages; NaN where one is constant."""
        means = np.concatenate(self.means, axis=1)
        ranks = np.array([average_ranks(means[a]), average_ranks(means[b])])
        ranks -= ranks.mean(1, keepdims=True)
        variances = float((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        return float(ranks[0] @ ranks[1] / variances**0.5) if variances > 0 else float("nan")

    def apart(self, most: int, among: Sequence[int] | None = None) -> list[tuple[int, Floats]]:
        """The responses on which the methods differ most: their number, and each method's mean.

        Each method's means count in its own standard deviations.

        Args:
            most: how many responses.
            among: the methods that are compared; None: all.
        """
        means = np.concatenate(self.means, axis=1)
        means = means if among is None else means[list(among)]
        variances = means.std(1, keepdims=True)
        scaled = np.divide(means, variances, out=np.zeros_like(means), where=variances > 0)
        gap = scaled.max(0) - scaled.min(0)
        order = np.argsort(-gap, kind="stable")[:most]
        return [(int(at), means[:, at]) for at in order]


def average_ranks(values: Floats) -> Floats:
    """Ranks from 0, the same for equal values.

    Example:
        >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [1.5, 0.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]
