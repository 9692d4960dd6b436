"""Advantages that stand at another response than the one they were computed for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepcredit.audit.row_table import RowTable, WholeBatch
from stepcredit.audit.stored_advantages import Counts, Flags, Floats, nearly_equal

MOST_SOURCES = 30
"""Responses that are tried as the source of one response's advantages."""


def misplaced(table: RowTable) -> Iterator[tuple[str, Floats]]:
    """`A` of another response: the responses that differ hold each other's advantages.

    The first advantages of those that differ must be the same numbers in another order.
    """
    whole, scale = table.whole, table.whole.scale
    changed = np.flatnonzero(whole.differs)
    firsts = whole.expected[whole.starts]
    stored = np.sort(whole.stored[whole.starts][changed])
    if not nearly_equal(stored, np.sort(firsts[changed]), scale).all():
        return
    predicted, sources = np.full_like(table.expected, np.nan), np.full(len(table.rows), -1)
    for at, row in enumerate(table.rows):
        for source in _sources(whole, int(row), changed, firsts, scale):
            values = _as_long_as(_row(whole.expected, whole, source), int(whole.counts[row]))
            if _equal_in_part(_row(whole.stored, whole, row), values, scale):
                sources[at] = source
                predicted[at, table.trained[at]] = _row(whole.stored, whole, row)
                break
    if (sources >= 0).any():
        yield _what(whole.group[table.rows] == whole.group[sources], sources), predicted


def _what(same_group: Flags, sources: Counts) -> str:
    found = sources >= 0
    what = "responses hold the advantages of other responses"
    return f"{what} of their group" if same_group[found].all() else f"{what} of the batch"


def _sources(
    whole: WholeBatch, row: int, changed: Counts, firsts: Floats, scale: float
) -> list[int]:
    """Other responses whose first advantage is the stored one, those of the own group first."""
    first = whole.stored[whole.starts[row]]
    fits = changed[nearly_equal(np.full(len(changed), first), firsts[changed], scale)]
    fits = fits[fits != row]
    apart = whole.group[fits] != whole.group[row]
    return [int(each) for each in fits[np.argsort(apart, kind="stable")][:MOST_SOURCES]]


def _row(values: Floats, whole: WholeBatch, row: int) -> Floats:
    start = whole.starts[row]
    return values[start : start + whole.counts[row]]


def _as_long_as(values: Floats, length: int) -> Floats:
    """Values cut, or continued by NaN: what stands there is not known."""
    longer = np.full(length, np.nan)
    longer[: len(values)] = values[:length]
    return longer


def _equal_in_part(stored: Floats, values: Floats, scale: float) -> bool:
    """Whether they are equal where the source has a token, and 0 or constant behind."""
    known = ~np.isnan(values)
    behind = stored[~known]
    ends = behind.size == 0 or bool((behind == behind[0]).all())
    return ends and bool(nearly_equal(stored[known], values[known], scale).all())
