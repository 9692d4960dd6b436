"""The table that `stepcredit eval` prints: one line per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from stepcredit.evals.intervals import Interval
    from stepcredit.evals.task_summary import TaskSummary

NARROW = 100
"""Columns of text that a table needs if nothing else tells how wide it may be."""


def eval_table(summaries: Sequence[TaskSummary]) -> Table:
    """The figures of each task, with 95 % intervals over problems."""
    from rich.table import Table

    names = list(dict.fromkeys(name for each in summaries for name in each.figures))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("task", "problems", "n", *names, "cut", "no answer"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for each in summaries:
        figures = [figure_cell(name, each.figures.get(name)) for name in names]
        details = [f"{each.details[name]:.1%}" for name in ("cut", "no_answer")]
        table.add_row(each.task, str(each.problems), str(each.samples), *figures, *details)
    return table


def figure_cell(name: str, value: Interval | None) -> str:
    """A mean over its interval, on two lines; empty where a task has no such figure.

    Example:
        >>> from stepcredit.evals import Interval
        >>> figure_cell("maj@4", Interval(0.5, 0.4, 0.6)), figure_cell("tokens", Interval(9, 8, 10))
        ('0.500\\n0.400-0.600', '9\\n8-10')
    """
    if value is None:
        return ""
    digits = 0 if name == "tokens" else 3
    return f"{value.mean:.{digits}f}\n{value.low:.{digits}f}-{value.high:.{digits}f}"


def print_table(summaries: Sequence[TaskSummary]) -> None:
    """Print the table on standard output; where that is no terminal, as wide as it needs to be."""
    import sys

    from rich.console import Console

    table = eval_table(summaries)
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        width = Console(width=10_000).measure(table).maximum
        console = Console(file=sys.stdout, width=max(width, NARROW))
    console.print(table)
