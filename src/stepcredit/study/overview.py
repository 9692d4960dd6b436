"""One row per method over all signals of a preset, like the first table of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from stepcredit.study.study_tables import ArmRow, CellTable


@dataclass(frozen=True)
class OverviewRow:
    """A method on every signal.

    Args:
        label: its arm, or "warm start".
        cells: (pass@1, pass@8) on each signal, in the order of the tables.
    """

    label: str
    cells: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> tuple[float, float]:
        """(pass@1, pass@8), each signal counted equally."""
        return fmean(one for one, _ in self.cells), fmean(eight for _, eight in self.cells)


def overview_rows(tables: Sequence[CellTable]) -> list[OverviewRow]:
    """The warm starts, and every arm that has finished runs on all signals; the rest are left out.

    Args:
        tables: the tables of one preset.
    """
    by_label: dict[str, list[ArmRow]] = {}
    for table in tables:
        for row in (table.start, *table.rows):
            by_label.setdefault(row.label, []).append(row)
    return [_row(label, rows) for label, rows in by_label.items() if len(rows) == len(tables)]


def _row(label: str, rows: Sequence[ArmRow]) -> OverviewRow:
    cells = tuple((row.pass_at_1.value, row.pass_at_8.value) for row in rows)
    return OverviewRow(label, cells)
