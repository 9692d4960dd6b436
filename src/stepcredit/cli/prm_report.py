"""The progress output of `stepcredit prm`, and its closing table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from stepcredit.cli.output import say

LINES_PER_STAGE = 10


class Bars:
    """One progress bar per stage on a terminal; else a line on stderr at every tenth of a stage."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.tasks: dict[str, Any] = {}

    def update(self, done: int, total: int, loss: float | None) -> None:
        """Show the updates that are done."""
        self._show("training", done, total, "" if loss is None else f"loss {loss:.4f}")

    def score(self, part: str, done: int, total: int) -> None:
        """Show the solutions that are scored."""
        self._show(f"scoring {part}", done, total, "")

    def _show(self, stage: str, done: int, total: int, figures: str) -> None:
        if self.progress is None:
            if done == total or done % max(1, total // LINES_PER_STAGE) == 0:
                say(f"{stage} {done}/{total}  {figures}".rstrip())
            return
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total, figures="")
        self.progress.update(self.tasks[stage], completed=done, figures=figures)


@contextmanager
def bars() -> Iterator[Bars]:
    """Show progress on stderr while the block runs."""
    if not sys.stderr.isatty():
        yield Bars(None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:>18}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)


def print_figures(figures: dict[str, Any], title: str) -> None:
    """Print the closing table on standard output."""
    from rich.table import Table

    from stepcredit.credit.rich_table import literal, table_lines

    table = Table(title=literal(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    errors, steps = figures["first_error"], figures["steps"]
    data, intervals = figures["data"], figures["intervals"]
    wrong = f"{errors['solutions_wrong']:,} with an error"
    right = f"{errors['solutions_right']:,} without"
    table.add_row("first error: F1", _number(errors["f1"]), _interval(intervals["f1"]))
    table.add_row("  found, where there is one", _number(errors["accuracy_wrong"]), wrong)
    table.add_row("  none found, where there is none", _number(errors["accuracy_right"]), right)
    table.add_row("  threshold", _number(errors["threshold"]), errors["threshold_from"])
    table.add_section()
    share = f"no signal: {_number(steps['wrong_share'])}"
    table.add_row("steps: ROC AUC", _number(steps["roc_auc"]), _interval(intervals["roc_auc"]))
    table.add_row("  average precision of wrong ones", _number(steps["average_precision"]), share)
    bench = figures["prm_bench"]
    parts = f"F1 right {_number(bench['f1_right'])}, wrong {_number(bench['f1_wrong'])}"
    table.add_row("  PRMScore", _number(bench["prm_score"]), parts)
    counts = f"{data['steps']:,} steps, {data['wrong_steps']:,} wrong"
    table.add_row("calibration: ECE", _number(figures["calibration"]["ece"]), counts)
    table.add_row("  Brier", _number(figures["calibration"]["brier"]), "")
    typer.echo("\n".join(table_lines(table)))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
