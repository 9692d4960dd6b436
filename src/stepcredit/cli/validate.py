"""`stepcredit validate`: checks a file's rows and prints what the file holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

import stepcredit as sc
from stepcredit.cli.options import Input
from stepcredit.cli.output import printable, say
from stepcredit.cli.progress import progress_bar

if TYPE_CHECKING:
    from stepcredit.data.files.batches import Batch
    from stepcredit.data.files.rows import Row


@dataclass
class Summary:
    """Counts over a file's rows."""

    groups: int = 0
    rows: int = 0
    trajectories: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    streams: Counter[tuple[str, str]] = field(default_factory=Counter)
    scores: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, batch: Batch) -> Summary:
        """Count a batch's rows; returns the summary."""
        self.groups += batch.rollouts.num_groups
        self.trajectories += batch.rollouts.joined().num_rollouts
        for row in batch.rows:
            self._add_row(row)
        return self

    def _add_row(self, row: Row) -> None:
        from stepcredit.data.files.batches import KIND_NAMES

        self.rows += 1
        self.counts["tokens"] += row.length
        self.counts["untrained"] += 0 if row.mask is None else len(row.mask) - row.length
        self.counts["outcome"] += row.outcome is not None
        self.counts["format"] += row.format is not None
        self.counts["broken"] += not row.format_ok
        self.counts["shaped"] += "advantages" in row.fields
        for name, signal in row.streams.items():
            self.streams[name, KIND_NAMES[signal.kind]] += bool(signal.values)
            self.scores[name, KIND_NAMES[signal.kind]] += len(signal.values)
        self.counts["with_states"] += bool(row.states)
        self.counts["states"] += len(row.states)
        for name in row.logprobs:
            self.streams[f"{name}_logprobs", "one per token"] += 1
            self.scores[f"{name}_logprobs", "one per token"] += row.length

    def lines(self) -> list[tuple[str, str]]:
        """Headings, each with its text."""
        count, rows = self.counts, self.rows
        found = [("rollouts", f"{rows:,} in {self.groups:,} group{'s' * (self.groups != 1)}")]
        if self.trajectories != rows:
            found.append(("trajectories", f"{self.trajectories:,}, some of several rollouts"))
        masked = f", {count['untrained']:,} more not trained" if count["untrained"] else ""
        found.append(("tokens", f"{count['tokens']:,}{masked}"))
        for (name, kind), held in self.streams.items():
            scores = self.scores[name, kind]
            found.append((name, f"{kind}, on {held:,} of {rows:,} rollouts, {scores:,} in all"))
        if count["states"]:
            states = f"on {count['with_states']:,} of {rows:,} rollouts, {count['states']:,} in all"
            found.append(("step_states", states))
        for name in ("outcome", "format"):
            found.append((name, f"known for {count[name]:,}, unknown for {rows - count[name]:,}"))
        found.append(("format_ok", f"false for {count['broken']:,}"))
        found += [("advantages", f"on {count['shaped']:,}")] if count["shaped"] else []
        return found


def validate_command(source: Input) -> None:
    """Check every rule of the format, and print what the file holds."""
    with progress_bar(source) as progress, sc.RolloutFile(source, progress) as file:
        summary = file.fold(Summary, Summary.add)
        warnings = file.warnings() + file.group_warnings()
    lines = summary.lines()
    width = max(len(heading) for heading, _ in lines)
    for heading, text in lines:
        typer.echo(printable(f"{heading:<{width}}  {text}"))
    for warning in warnings:
        say(f"warning: {warning}")
