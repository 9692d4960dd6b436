"""Responses as a table, on which one looks for the fault that turned one advantage into another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.audit.return_parts import ReturnParts
from stepcredit.audit.stored_advantages import (
    Counts,
    Flags,
    Floats,
    StoredAdvantages,
    nearly_equal,
    scale_of,
)

MOST_ROWS = 200
"""Responses in a table: their shares are then known to 3.5 points (one standard error)."""
MOST_CELLS = 2_000_000
"""Rows times tokens of a table, so that a search among all faults takes seconds."""


@dataclass(frozen=True, eq=False)
class WholeBatch:
    """All compared responses, packed over trained tokens: what faults of a batch are computed from.

    Args:
        expected: what the method gives.
        stored: what the log holds.
        counts: trained tokens per response.
        group: group of each response.
        differs: which responses differ from the method.
    """

    expected: Floats
    stored: Floats
    counts: Counts
    group: Counts
    differs: Flags

    @cached_property
    def starts(self) -> Counts:
        """Where each response's values begin."""
        return np.concatenate([[0], self.counts.cumsum()[:-1]]).astype(np.int64)

    @cached_property
    def scale(self) -> float:
        """The size of an ordinary stored advantage."""
        return scale_of(self.stored)

    @cached_property
    def row_means(self) -> Floats:
        """The mean advantage that the method gives to each response's tokens."""
        return np.asarray(np.add.reduceat(self.expected, self.starts) / self.counts)


@dataclass(frozen=True, eq=False)
class RowTable:
    """Some of the responses that differ from a method, padded on the right.

    Args:
        rows: their numbers among the compared responses.
        expected: (row, token): what the method gives, 0 where a token is not trained.
        stored: (row, token): what the log holds.
        trained: which tokens are trained.
        present: which tokens there are.
        whole: all compared responses.
        parts: (row, token): what the method's advantages are made of; None: it was not looked at,
            or they are no return.
    """

    rows: Counts
    expected: Floats
    stored: Floats
    trained: Flags
    present: Flags
    whole: WholeBatch
    parts: ReturnParts | None = None

    @classmethod
    def of_differing(
        cls, stored: StoredAdvantages, expected: Floats, agrees: Flags, group: Counts
    ) -> RowTable:
        """The table of responses that differ, evenly chosen where there are many.

        Args:
            stored: the log's advantages.
            expected: the method's, at the same tokens.
            agrees: for each compared response, whether the two agree.
            group: its group.
        """
        trained = stored.trained
        starts = np.concatenate([[0], stored.counts.cumsum()[:-1]])
        whole = WholeBatch(
            expected[trained],
            stored.values[trained],
            np.add.reduceat(trained, starts, dtype=np.int64),
            group,
            ~agrees,
        )
        rows = evenly_chosen(np.flatnonzero(~agrees), stored.counts)
        width = int(stored.counts[rows].max())
        present = np.arange(width) < stored.counts[rows, None]
        cells = (starts[rows, None] + np.arange(width))[present]
        a, b = (_as_table(each[cells], present) for each in (expected, stored.values))
        return cls(rows, a, b, _as_table(trained[cells], present), present, whole)

    def with_parts(self, packed: ReturnParts | None) -> RowTable:
        """The table with the parts of its rows' advantages, packed over their trained tokens."""
        if packed is None:
            return self
        columns = (packed.returns, packed.divisors, packed.rest)
        return replace(self, parts=ReturnParts(*(_as_table(x, self.trained) for x in columns)))

    @property
    def lengths(self) -> Counts:
        """Trained tokens of each row."""
        return np.asarray(self.trained.sum(1))

    def explained(self, predicted: Floats) -> Flags:
        """For each row, whether what a fault predicts is what the log holds, at trained tokens."""
        equal = nearly_equal(self.stored, predicted, self.whole.scale)
        return np.asarray((equal | ~self.trained).all(axis=1))


def _as_table(values: NDArray[Any], present: Flags) -> NDArray[Any]:
    table = np.zeros(present.shape, dtype=values.dtype)
    table[present] = values
    return table


def evenly_chosen(rows: Counts, counts: Counts) -> Counts:
    """At most `MOST_ROWS` of the rows, evenly spaced, of at most `MOST_CELLS` cells; at least one.

    Args:
        rows: numbers of rows.
        counts: tokens of every row.

    Example:
        >>> evenly_chosen(np.array([3, 5]), np.full(9, 7)).tolist()
        [3, 5]
    """
    longest = int(counts[rows].max())
    most = max(1, min(MOST_ROWS, MOST_CELLS // max(1, longest), len(rows)))
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
