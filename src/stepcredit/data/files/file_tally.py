"""Counts over a file's rows and groups, and what a user should know of them."""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.data.files.rows import Row
from stepcredit.data.files.trajectory_rows import num_trajectories
from stepcredit.data.rules import counted


@dataclass
class FileTally:
    """What one pass over a file counted.

    Args:
        path: the file, as the user named it.
        rows, gated: rows, and those of them that broke the format (`format_ok` is false).
        groups, largest_group: groups without a fault, and the responses of the largest.
        gates_without_format, first_gate_line: gated rows without a format reward, and the line of
            the first.
        left_out: steps without a trained token.

    Example:
        >>> FileTally("r.jsonl", rows=2, groups=2, largest_group=1).group_warnings()
        ['r.jsonl: every group has one response, so that there is nothing to compare it with: \
responses to one prompt need the same `group`']
    """

    path: str
    rows: int = 0
    gated: int = 0
    groups: int = 0
    largest_group: int = 0
    gates_without_format: int = 0
    first_gate_line: int = 0
    left_out: int = 0

    def add_group(self, rows: list[Row]) -> None:
        """Count a whole group. A trajectory of several rows is one response."""
        self.groups += 1
        self.largest_group = max(self.largest_group, num_trajectories(rows))
        for row in rows:
            self._add_row(row)

    def _add_row(self, row: Row) -> None:
        self.rows += 1
        self.left_out += row.left_out
        self.gated += not row.format_ok
        if row.gate_without_format:
            first = self.first_gate_line if self.gates_without_format else row.line
            self.first_gate_line = min(row.line, first)
            self.gates_without_format += 1

    def row_warnings(self) -> list[str]:
        """What was accepted in single rows, one line each."""
        found = []
        if self.gates_without_format:
            rest = self.gates_without_format - 1
            more = f" (and {rest} more row{'s' * (rest > 1)})" if rest else ""
            reason = f"format_ok: false, but there is no format{more}"
            found.append(f"{self.path}:{self.first_gate_line}: {reason}")
        if self.left_out:
            reason = "steps without a trained token are left out, with their scores"
            found.append(f"{self.path}: {self.left_out} {reason}")
        return found

    def group_warnings(self, *, compares: bool = True, gate: bool = True) -> list[str]:
        """What makes the advantages of the whole file 0, or nearly so, one line each.

        Args:
            compares: whether responses are compared with others of their group.
            gate: whether `format_ok` is read.
        """
        found = []
        if compares and self.largest_group == 1:
            found.append(f"{self.path}: {alone_in_groups()}")
        if gate and self.rows and self.gated == self.rows:
            found.append(f"{self.path}: {all_gated(self.rows)}")
        return found


def alone_in_groups() -> str:
    """The warning about a file each group of which has one response."""
    reason = "every group has one response, so that there is nothing to compare it with"
    return f"{reason}: responses to one prompt need the same `group`"


def all_gated(responses: int) -> str:
    """The warning about responses none of which has the format.

    Example:
        >>> all_gated(8)
        'format_ok is false for all 8 responses, so that no score and no outcome counts: does the \
template of the format fit the prompts?'
    """
    what = f"format_ok is false for all {counted(responses, 'response')}"
    return (
        f"{what}, so that no score and no outcome counts: does the template of the format fit "
        "the prompts?"
    )
