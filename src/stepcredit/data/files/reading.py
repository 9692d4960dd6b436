"""Whole files of rollouts in one call: their rows, or one batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepcredit.data.files.batches import Batch, kind_faults, level_faults
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.rows import Row
from stepcredit.data.rollouts import Rollouts


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as dictionaries, each checked.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".

    Raises:
        RowError: the first row that breaks a rule.
        FileError: the file can't be read.

    Example:
        >>> import tempfile
        >>> from stepcredit.data.files.writing import write_rollouts
        >>> path = Path(tempfile.mkdtemp()) / "rollouts.jsonl"
        >>> write_rollouts(path, [{"group": 1, "length": 3}])
        >>> list(read_rows(path))
        [{'group': 1, 'length': 3}]
    """
    with RolloutFile(path) as file:
        for row in file.rows():
            yield row.fields


def read_rollouts(path: str | Path) -> Rollouts:
    """A whole file as one batch, in the file's order.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".

    Raises:
        RowError: the first row that breaks a rule, or has another kind of stream than rows of
            other groups (one batch holds one kind).
        FileError: the file can't be read.

    Example:
        >>> import tempfile
        >>> from stepcredit.data.files.writing import write_rollouts
        >>> path = Path(tempfile.mkdtemp()) / "rollouts.jsonl"
        >>> write_rollouts(path, [{"group": 1, "token_scores": [0.5, 0.25]}])
        >>> read_rollouts(path).lengths.tolist()
        [2]
    """
    with RolloutFile(path) as file:
        rows = file.fold(list[Row], _append_rows)
    rows.sort(key=lambda row: row.position)
    for line, error in kind_faults(rows, "the file") + level_faults(rows, "the file"):
        raise error.at_line(file.path, line)
    for warning in file.warnings():
        warnings.warn(warning, stacklevel=2)
    return Batch(rows).rollouts


def _append_rows(rows: list[Row], batch: Batch) -> list[Row]:
    rows.extend(batch.rows)
    return rows
