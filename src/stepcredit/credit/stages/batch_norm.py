"""Normalization over the whole batch, the last step of some methods, and its moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from stepcredit.credit.stages.groups import Values
from stepcredit.credit.stages.returns import whiten


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of a batch's advantages; `a + b` joins two batches.

    Example:
        >>> whole = Moments(2, 1.0, 2.0) + Moments(1, 4.0, 0.0)
        >>> whole.count, whole.mean, whole.variance
        (3, 2.0, 4.0)
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if count == 0:
            return Moments()
        gap = other.mean - self.mean
        mean = self.mean + gap * other.count / count
        squares = self.squares + other.squares + gap * gap * self.count * other.count / count
        return Moments(count, mean, squares)

    @property
    def variance(self) -> float:
        """Unbiased variance; 0 for one value, or if deviations are rounding (1e-9 of the mean)."""
        if self.count < 2 or self.squares <= self.count * (1e-9 * self.mean) ** 2:
            return 0.0
        return self.squares / (self.count - 1)

    @classmethod
    def of(cls, values: Float64[Tensor, " value"], weight: Float64[Tensor, " value"]) -> Moments:
        """Moments of values that each count `weight` times."""
        count = float(weight.sum())
        if count == 0:
            return cls()
        mean = float((values * weight).sum()) / count
        return cls(count, mean, float((values - mean).square_().mul_(weight).sum()))


@dataclass(frozen=True)
class BatchNorm:
    """Normalization over the whole batch.

        response  (a - mean) / (std + eps)         over the batch's responses
        token     (A - mean) / sqrt(variance + eps)    over the batch's trained tokens

    One value, or equal values, give 0. In both lines ddof is 1.

    Args:
        unit: "response": every response counts once; "token": as often as it has trained tokens.
        eps: see above.

    Example:
        >>> values, sizes = torch.tensor([3.0, 1.0]).double(), torch.tensor([4, 1])
        >>> step = BatchNorm("response", eps=0.0)
        >>> moments = step.moments(values, sizes)
        >>> [round(x, 3) for x in step(values, moments).tolist()]
        [0.707, -0.707]
    """

    unit: Literal["response", "token"]
    eps: float

    def moments(self, values: Tensor, sizes: Tensor) -> Moments:
        """Moments of slot values of the given sizes in tokens."""
        weight = sizes if self.unit == "token" else sizes > 0
        return Moments.of(values, weight.to(torch.float64))

    def __call__(self, values: Values, moments: Moments) -> Values:
        """The values, normalized by the batch's moments."""
        if self.unit == "token" or moments.variance == 0:
            return whiten(values, moments.mean, moments.variance, self.eps)
        return torch.div(values - moments.mean, moments.variance**0.5 + self.eps)


WHITENING = BatchNorm("token", 1e-8)
"""Whitening over the batch's trained tokens; the eps is verl's."""
