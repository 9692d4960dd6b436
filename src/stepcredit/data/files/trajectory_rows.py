"""The rows of one group that are the parts of trajectories: their rules, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcredit.data.files.rows import Row, fields_per_token
from stepcredit.data.rules import part_differs, part_lacks
from stepcredit.errors import RolloutError


def trajectories_of_rows(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each trajectory of one group, in the rows' order.

    Args:
        rows: of one group; a row without `trajectory` is a trajectory of its own.

    Example:
        >>> from stepcredit.data.files.rows import check_row
        >>> rows = [{"group": 1, "length": 1, "trajectory": name} for name in ("a", None, "a")]
        >>> found = trajectories_of_rows([check_row(row, line=at) for at, row in enumerate(rows)])
        >>> [[row.line for row in parts] for parts in found]
        [[0, 2], [1]]
    """
    found: dict[object, list[Row]] = {}
    for at, row in enumerate(rows):
        found.setdefault(at if row.trajectory is None else row.trajectory, []).append(row)
    return list(found.values())


def num_trajectories(rows: Sequence[Row]) -> int:
    """How many trajectories the rows of one group are.

    Example:
        >>> from stepcredit.data.files.rows import check_row
        >>> rows = [{"group": 1, "length": 1, "trajectory": name} for name in ("a", None, "a")]
        >>> num_trajectories([check_row(row) for row in rows])
        2
    """
    names = [row.trajectory for row in rows]
    return len({*names} - {None}) + names.count(None)


def complete_parts(rows: Sequence[Row]) -> list[tuple[int, RolloutError]]:
    """Give each part the outcome, format and `format_ok` of its trajectory, where it has none.

    Args:
        rows: of one group; they are changed.

    Returns:
        Parts that disagree with an earlier one, and parts that lack a stream of another, as
        (line, fault), at most one per trajectory.
    """
    if num_trajectories(rows) == len(rows):
        return []
    several = [parts for parts in trajectories_of_rows(rows) if len(parts) > 1]
    return [fault for parts in several for fault in _complete(parts)[:1]]


def _complete(parts: list[Row]) -> list[tuple[int, RolloutError]]:
    faults = []
    for name in ("outcome", "format", "format_ok"):
        teller = next((row for row in parts if row.fields.get(name) is not None), parts[0])
        want = getattr(teller, name)
        for row in parts:
            if row.fields.get(name) is None:
                setattr(row, name, want)
            elif getattr(row, name) != want:
                reason = part_differs(getattr(row, name), f"line {teller.line}", want)
                faults.append((row.line, RolloutError(reason, field=name)))
    return faults + _missing_streams(parts)


def _missing_streams(parts: list[Row]) -> list[tuple[int, RolloutError]]:
    """Parts that lack a stream which another part has."""
    held = [fields_per_token(row) for row in parts]
    first: dict[str, Any] = {}
    for row, names in zip(parts, held, strict=True):
        for name in names:
            first.setdefault(name, row)
    return [
        (row.line, RolloutError(part_lacks(f"line {other.line}"), field=name))
        for name, other in first.items()
        for row, names in zip(parts, held, strict=True)
        if name not in names
    ]
