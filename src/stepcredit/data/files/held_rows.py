"""All rows of a file or a log together in memory, within the limits of `Limits`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stepcredit.data.files.batches import group_label, size_faults
from stepcredit.data.files.limits import Limits
from stepcredit.data.files.rows import Row
from stepcredit.errors import RolloutError


def held_rows(rows: Iterable[Row], limits: Limits, path: str) -> list[Row]:
    """The rows as a list; a small file can't make a large one.

    Args:
        rows: checked rows, each with its `size`.
        limits: for a file of this many bytes.
        path: the file's name, for messages.

    Raises:
        RowError: the first row that passes a limit, or stands in a group that does.

    Example:
        >>> from stepcredit.data.files.rows import check_row
        >>> rows = [check_row({"group": 1, "length": 1, "outcome": 1.0})]
        >>> len(held_rows(rows, Limits(), "in.jsonl"))
        1
    """
    held = list(_within_memory(rows, limits, path))
    groups = dict[str, list[Row]]()
    for row in held:
        groups.setdefault(group_label(row), []).append(row)
    for members in groups.values():
        for line, error in size_faults(members, limits):
            raise error.at_line(path, line)
    _check_together(held, limits, path)
    return held


def _within_memory(rows: Iterable[Row], limits: Limits, path: str) -> Iterator[Row]:
    size = 0
    for row in rows:
        size += row.size
        if size > limits.held_bytes:
            what = f"the rows up to here take {size} bytes of memory"
            raise RolloutError(limits.passed("held_bytes", what)).at_line(path, row.line)
        yield row


def _check_together(rows: list[Row], limits: Limits, path: str) -> None:
    """Refuse rows whose tokens or streams, in all groups together, pass a limit."""
    tokens, names = 0, set[str]()
    for row in rows:
        tokens += 0 if row.is_listed else row.length
        names.update(row.streams)
        if tokens > limits.held_tokens:
            what = f"{tokens} tokens that no list in the file holds"
            reason = limits.passed("held_tokens", what)
            raise RolloutError(reason, field="length").at_line(path, row.line)
        if len(names) > limits.signals:
            reason = limits.passed("signals", f"{len(names)} signals in the file")
            raise RolloutError(reason, field="signals").at_line(path, row.line)
