"""The advantages that a log holds, beside those that a method gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.data.advantages import Advantages
from stepcredit.data.files.rows import Row
from stepcredit.data.rules import fits_float32, shown, why_not_float32
from stepcredit.errors import RolloutError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
STORED = "advantages"
"""The field of a row: one number per response token, or one per trained token."""
STORED_SCALAR = "advantage"
"""The field that TRL logs: one number, the advantage of each of the response's tokens."""
RELATIVE_TOLERANCE = 0.005
"""Two advantages are equal if they differ by less than this part of the advantage: bfloat16 rounds
by 0.4 %, and trainers add different small numbers to a std."""
BLOCK = 1 << 18
"""Advantages that are compared at a time, so that they stay in the processor's cache."""
SCALE_TOLERANCE = 0.001
"""Added to it: this part of the batch's root mean square, so that sums near 0 may be rounded."""


@dataclass(frozen=True, eq=False)
class StoredAdvantages:
    """The advantages of a log's rows, packed over response tokens.

    Args:
        rows: numbers of the rows that hold advantages, in the batch's order.
        values: their advantages; 0 at untrained tokens where a row has one per trained token.
        counts: response tokens per row.
        trained: which of the tokens are trained.

    Example:
        >>> row = {"group": 1, "loss_mask": [1, 0, 1], "advantages": [0.5, -1.0]}
        >>> stored = StoredAdvantages.of(LoggedBatch.of([row]))
        >>> stored.values.tolist(), stored.trained.tolist()
        ([0.5, 0.0, -1.0], [True, False, True])
    """

    rows: Counts
    values: Floats
    counts: Counts
    trained: Flags

    @classmethod
    def of(cls, batch: LoggedBatch) -> StoredAdvantages | None:
        """Those of rows with the field `advantages`, or TRL's `advantage`; None: of no row.

        Raises:
            RowError: a number of the field `advantage` that float32 can't hold.
        """
        found = [(at, _advantages_of(row, batch.source)) for at, row in enumerate(batch.rows)]
        held = [(at, values) for at, values in found if values is not None]
        if not held:
            return None
        masks = [batch.rows[at].mask or [1] * batch.rows[at].length for at, _ in held]
        rows = [_on_response(values, mask) for (_, values), mask in zip(held, masks, strict=True)]
        counts = np.array([len(mask) for mask in masks], dtype=np.int64)
        total = int(counts.sum())
        return cls(
            np.array([at for at, _ in held], dtype=np.int64),
            np.fromiter(chain.from_iterable(rows), np.float64, total),
            counts,
            np.fromiter(chain.from_iterable(masks), np.bool_, total),
        )

    def expected(self, advantages: Advantages) -> Floats:
        """What a method gives at the same tokens, 0 where they are not trained.

        Args:
            advantages: of all of the batch's rows.
        """
        values = advantages.packed().numpy()
        if len(self.rows) < advantages.lengths.numel():
            chosen = np.zeros(advantages.lengths.numel(), dtype=bool)
            chosen[self.rows] = True
            values = values[np.repeat(chosen, advantages.lengths.numpy())]
        if len(values) == len(self.values):
            return values.astype(np.float64)
        table = np.zeros(len(self.values))
        table[self.trained] = values
        return table

    def agreeing(self, expected: Floats) -> Flags:
        """For each row that holds advantages, whether all its trained tokens agree with a method.

        Args:
            expected: `expected(advantages)`.
        """
        scale, wrong = scale_of(expected), np.empty(len(self.values), dtype=bool)
        for first in range(0, len(wrong), BLOCK):
            at = slice(first, first + BLOCK)
            wrong[at] = ~nearly_equal(self.values[at], expected[at], scale)
        wrong &= self.trained
        starts = np.concatenate([[0], self.counts.cumsum()[:-1]])
        return ~np.logical_or.reduceat(wrong, starts)

    def credited_masked(self) -> Flags:
        """Which tokens are not trained and hold an advantage all the same."""
        least = SCALE_TOLERANCE * scale_of(self.values)
        return ~self.trained & (np.abs(self.values) > least)

    def row_of_token(self, token: int) -> int:
        """The batch's row that a packed token belongs to."""
        return int(self.rows[np.searchsorted(self.counts.cumsum(), token, side="right")])


def scale_of(values: Floats) -> float:
    """The root mean square of all values that are not 0; 0 where there is none.

    Example:
        >>> scale_of(np.array([3.0, 0.0, -3.0]))
        3.0
    """
    count = int(np.count_nonzero(values))
    return float(np.sqrt(np.dot(values, values) / count)) if count else 0.0


def nearly_equal(stored: Floats, expected: Floats, scale: float) -> Flags:
    """Whether two advantages are equal up to rounding.

        |stored - expected| <= 0.005 |expected| + 0.001 scale + 1e-7

    Args:
        stored, expected: of one shape.
        scale: the size of an ordinary advantage of the batch.

    Example:
        >>> nearly_equal(np.array([1.004, 1.02]), np.array([1.0, 1.0]), 1.0).tolist()
        [True, False]
    """
    allowed = RELATIVE_TOLERANCE * np.abs(expected)
    allowed += SCALE_TOLERANCE * scale + 1e-7
    return np.asarray(np.abs(stored - expected) <= allowed)


def _advantages_of(row: Row, source: str) -> list[float] | None:
    values: Any = row.fields.get(STORED)
    if isinstance(values, list):
        return values
    scalar = row.fields.get(STORED_SCALAR)
    if isinstance(scalar, bool) or not isinstance(scalar, int | float):
        return None
    if not fits_float32(scalar):
        reason = f"{shown(scalar, as_json=True)} {why_not_float32(scalar)}"
        raise RolloutError(reason, field=STORED_SCALAR).at_line(source, row.line)
    return [float(scalar)] * row.length


def _on_response(values: list[float], mask: list[int]) -> list[float]:
    """One response's advantages over its response tokens."""
    if len(values) == len(mask):
        return values
    following = iter(values)
    return [next(following) if trained else 0.0 for trained in mask]
