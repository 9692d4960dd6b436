"""Mean size and std over tokens, of advantages and of the change between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from stepcredit.credit.stages.batch_norm import Moments
from stepcredit.data.advantages import Advantages

VALUES_PER_PIECE = 65_536
"""Values that are summed at once on a CPU: their float64 tables fit in a core's cache."""
Sizes = Int[Tensor, " value"] | None


@dataclass(frozen=True)
class TokenSums:
    """Sums over tokens of one number per token; `a + b` joins the tokens of both.

    Args:
        moments: count, mean and sum of squared deviations.
        total: sum of the numbers' sizes |x|.

    Example:
        >>> whole = TokenSums.of(torch.tensor([1.0, -4.0])) + TokenSums.of(torch.tensor([1.0]))
        >>> whole.mean_size, round(whole.std, 6)
        (2.0, 2.357023)
    """

    moments: Moments = Moments()
    total: float = 0.0

    def __add__(self, other: TokenSums) -> TokenSums:
        return TokenSums(self.moments + other.moments, self.total + other.total)

    @property
    def mean_size(self) -> float:
        """Mean of |x| over tokens."""
        return self.total / self.moments.count

    @property
    def std(self) -> float:
        """Population standard deviation over tokens."""
        return math.sqrt(self.moments.squares / self.moments.count)

    @classmethod
    def of(cls, values: Float[Tensor, " value"], sizes: Sizes = None) -> TokenSums:
        """Sums of values that each stand for `sizes` tokens (None: one).

        Example:
            >>> TokenSums.of(torch.tensor([1.0, 4.0]), torch.tensor([2, 1])).std
            1.4142135623730951
        """
        parts = zip(_pieces(values), _size_pieces(sizes), strict=False)
        return sum((cls._of_piece(piece.double(), size) for piece, size in parts), cls())

    @classmethod
    def of_change(cls, first: Advantages, second: Advantages) -> TokenSums:
        """Sums of the first advantages minus the second.

        Example:
            >>> one = Advantages(torch.ones(1), None, torch.tensor([1]), torch.tensor([1]))
            >>> TokenSums.of_change(one, one).total
            0.0
        """
        if _same_chunks(first, second):
            values, others, sizes = first.values, second.values, first.sizes
        else:
            values, others, sizes = first.packed(), second.packed(), None
        parts = zip(_pieces(values), _pieces(others), _size_pieces(sizes), strict=False)
        return sum(
            (cls._of_piece(a.double().sub_(b.double()), size) for a, b, size in parts), cls()
        )

    @classmethod
    def _of_piece(cls, values: Float64[Tensor, " value"], sizes: Sizes) -> TokenSums:
        weight = None if sizes is None else sizes.double()
        count = values.numel() if weight is None else float(weight.sum())
        if count == 0:
            return cls()
        sizes_of = values.abs()
        total = float(sizes_of.sum() if weight is None else sizes_of.dot(weight))
        first = float(values[0])
        off = values - first  # exactly 0 where all values are equal
        mean = float(off.sum() if weight is None else off.dot(weight)) / count
        off -= mean
        squares = float(off.dot(off) if weight is None else off.square_().dot(weight))
        return cls(Moments(count, first + mean, squares), total)


def _pieces(values: Tensor) -> tuple[Tensor, ...]:
    """Parts of the values that fit in a core's cache; all of them on another device than a CPU."""
    size = VALUES_PER_PIECE if values.device.type == "cpu" else max(1, values.numel())
    return torch.split(values, size)


def _size_pieces(sizes: Sizes) -> Iterable[Sizes]:
    return repeat(None) if sizes is None else _pieces(sizes)


def _same_chunks(first: Advantages, second: Advantages) -> bool:
    if first.sizes is None or second.sizes is None:
        return first.sizes is second.sizes
    if first.sizes.data_ptr() == second.sizes.data_ptr():
        return first.sizes.shape == second.sizes.shape
    return torch.equal(first.sizes, second.sizes)
