"""Splits a batch's advantages into those of each row of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepcredit.data.advantages import Advantages
from stepcredit.data.files.rows import Row
from stepcredit.data.masking import row_tokens_to_response
from stepcredit.errors import RolloutError

Float32Array = np.ndarray[Any, np.dtype[np.float32]]


def by_row(rows: list[Row], advantages: Advantages) -> Iterator[Float32Array]:
    """The advantages of each row, over all its tokens; 0 for a token that is not trained.

    Raises:
        RolloutError: an advantage that is not a finite number, or another number of advantages
            than of trained tokens.
    """
    packed = advantages.packed().numpy()
    _check(rows, packed)
    at = 0
    for row in rows:
        yield row_tokens_to_response(packed[at : at + row.length], row.mask)
        at += row.length


def _check(rows: list[Row], packed: Float32Array) -> None:
    ends = np.cumsum([row.length for row in rows])
    if packed.size != ends[-1]:
        raise RolloutError(f"{packed.size} advantages, but {ends[-1]} trained tokens")
    if not np.isfinite(packed).all():
        at = int(np.flatnonzero(~np.isfinite(packed))[0])
        row = int(np.searchsorted(ends, at, side="right"))
        reason = f"the method gives {packed[at]}, which is not a finite number"
        raise RolloutError(reason, row=row, field="advantages")
