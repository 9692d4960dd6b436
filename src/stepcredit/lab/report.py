"""The progress output of a run, and its closing table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stepcredit.credit.rich_table import literal
from stepcredit.lab.evaluate import by_split

EVALUATED = (
    ("pass@1", "pass_at_1", 3),
    ("pass@8", "pass_at_8", 3),
    ("length", "length", 1),
    ("fillers", "fillers", 2),
    ("step accuracy", "step_accuracy", 3),
    ("turns", "turns", 2),
)
CREDIT = (
    ("process std", "stepcredit/process_std", 2),
    ("outcome std", "stepcredit/outcome_std", 2),
    ("format std", "stepcredit/format_std", 2),
    ("clipped share", "stepcredit/clipped_share", 3),
)
LINE_EVERY = 10


class Live:
    """One line per method, rewritten at each update; plain lines if output is not a terminal."""

    def __init__(self, console: Console, updates: int) -> None:
        self.console, self.updates = console, updates
        self.bars = Progress(
            TextColumn("{task.description:>12}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>3.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[figures]}", markup=False),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
        )
        self.tasks: dict[str, Any] = {}
        self.evaluated: dict[str, float] = {}

    def warm(self, label: str, step: int, most: int, found: Any) -> None:
        """Show the progress of the supervised training."""
        passed = "" if found is None else f"pass@1 {found.pass_at_1.mean:.3f}"
        self._show(label, step, most, passed)

    def update(self, label: str, row: dict[str, Any]) -> None:
        """Show one row of metrics."""
        if "evaluation" in row:
            found = next(iter(by_split(row["evaluation"]).values()))
            self.evaluated[label] = found["pass_at_1"]["mean"]
        passed = self.evaluated.get(label, row["rewards/accuracy/mean"])
        length = row["completions/mean_length"]
        figures = f"reward {row['reward']:.3f}  pass@1 {passed:.3f}  length {length:.1f}"
        self._show(label, row["update"], self.updates, figures)

    def _show(self, label: str, done: int, total: int, figures: str) -> None:
        if not self.console.is_terminal:
            if done % LINE_EVERY == 0 or done == total:
                line = f"{label} {done}/{total}  {figures}".rstrip()
                self.console.print(line, highlight=False, markup=False, soft_wrap=True)
            return
        if label not in self.tasks:
            self.tasks[label] = self.bars.add_task(label, total=total, figures="")
        self.bars.update(self.tasks[label], completed=done, figures=figures)


@contextmanager
def live(console: Console, updates: int) -> Iterator[Live]:
    """Show the live lines inside the block."""
    shown = Live(console, updates)
    if not console.is_terminal:
        yield shown
        return
    with shown.bars:
        yield shown


def closing_figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the closing table: the warm start, then the last update of each method.

    Args:
        rows: rows of metrics.

    Returns:
        One dict per row: `run`, `update`, `evaluation`, and for a method `credit`, the means over
        its updates of each stream's standard deviation and of the fraction clipped.
    """
    closing = []
    for label in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == label]
        last = [row for row in own if "evaluation" in row][-1]
        figures = {"run": label, "update": last["update"], "evaluation": last["evaluation"]}
        if last["update"] > 0:
            keys = [key for _, key, _ in CREDIT if key in own[0]]
            figures["credit"] = {key: sum(row[key] for row in own) / len(own) for key in keys}
        closing.append(figures)
    return closing


def closing_table(figures: list[dict[str, Any]]) -> Table:
    """One column for the warm start and per method, with 95 % intervals and credit figures."""
    table = Table(title="held-out answers: mean ± half the 95 % interval", title_justify="left")
    table.add_column("")
    for row in figures:
        heading = row["run"] if row["update"] == 0 else f"{row['run']}, {row['update']} updates"
        table.add_column(literal(heading), justify="right")
    evaluation = by_split(figures[0]["evaluation"])
    first, *others = evaluation
    shown = [(first, *line) for line in EVALUATED if line[1] in evaluation[first]]
    shown += [(split, *EVALUATED[0]) for split in others]
    for split, name, field, digits in shown:
        cells = [by_split(row["evaluation"])[split][field] for row in figures]
        heading = f"{name}, {split}" if split else name
        table.add_row(heading, *[_interval(cell, digits) for cell in cells])
    table.add_section()
    for name, field, digits in CREDIT:
        credits = [row.get("credit", {}) for row in figures]
        table.add_row(name, *[f"{c[field]:.{digits}f}" if field in c else "" for c in credits])
    return table


def _interval(figure: dict[str, float], digits: int) -> str:
    half = (figure["high"] - figure["low"]) / 2
    return f"{figure['mean']:.{digits}f} ± {half:.{digits}f}"
