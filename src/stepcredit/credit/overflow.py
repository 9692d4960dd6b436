"""Errors for advantages that float32 or the batch norm cannot hold."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor

from stepcredit.data.packing import row_of
from stepcredit.errors import RolloutError


def refuse_overflow(values: Float[Tensor, " chunk"], chunks: Int[Tensor, " rollout"]) -> None:
    """Refuse the first response with an advantage that float32 cannot hold.

    Args:
        values: advantages in float32, one per chunk; infinite or NaN if they did not fit.
        chunks: values per response.

    Raises:
        RolloutError: names the row.
    """
    if math.isfinite(float(values.sum())):  # one pass: a sum is finite only if every term is
        return
    beyond = ~values.isfinite()
    if bool(beyond.any()):
        raise _error(int(beyond.nonzero()[0]), values, chunks, "not a finite number")


def overflow_error(
    values: Float[Tensor, " chunk"], chunks: Int[Tensor, " rollout"]
) -> RolloutError:
    """The error for a batch whose variance float64 cannot hold; it names the largest advantage."""
    at = int(values.abs().argmax())
    return _error(at, values, chunks, "too large to normalize over the batch")


def _error(at: int, values: Tensor, chunks: Tensor, what: str) -> RolloutError:
    reason = f"the method gives {float(values[at]):g}, which is {what}"
    return RolloutError(reason, row=row_of(at, chunks), field="advantages")
