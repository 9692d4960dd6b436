"""Logs of trainers and evaluations in Python: rows of rollouts, and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepcredit.logs.conversion import LogConversion
from stepcredit.logs.log_formats import log_format, name_of_log
from stepcredit.logs.logged_response import RewardColumns


def read_log(
    path: str | Path,
    format: str | None = None,
    columns: RewardColumns | None = None,
    tokenizer: Any = None,
) -> Iterator[dict[str, Any]]:
    """A log's responses as rows of rollouts, in the log's order.

    What was left out or taken for granted is warned of behind the last row.

    Args:
        path: a file or a folder of files: `.jsonl`, `.json`, `.gz`, `.parquet` or `.pt`.
        format: a name of `logs.log_formats.LOG_FORMATS`; None: by the fields of the first row.
        columns: the reward columns and other options.
        tokenizer: the policy's; None: words are the tokens.

    Raises:
        FileError: a file can't be read, or is no log that is known.
        RowError: no row can be used; it names the first.
        SettingError: no such format or column, or several columns that might be the outcome.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "1.jsonl"
        >>> _ = path.write_text('{"input": "2+3?", "output": "5", "score": 1.0, "uid": "a_0_0"}\\n'
        ...                     '{"input": "2+3?", "output": "6", "score": 0.0, "uid": "a_1_0"}')
        >>> [(row["group"], row["text"], row["outcome"]) for row in read_log(path)]
        [('1/0', '5', 1.0), ('1/0', '6', 0.0)]
    """
    name = name_of_log(path) if format is None else format
    log = LogConversion(path, log_format(name), columns, tokenizer)
    yield from log.rows()
    for note in log.notes():
        warnings.warn(note, stacklevel=2)


def read_completion_logs(
    path: str | Path, columns: RewardColumns | None = None, tokenizer: Any = None
) -> Iterator[dict[str, Any]]:
    """`read_log` of the tables that TRL's `GRPOTrainer` logs."""
    return read_log(path, "trl-completions", columns, tokenizer)


def read_verl_dumps(
    path: str | Path, columns: RewardColumns | None = None, tokenizer: Any = None
) -> Iterator[dict[str, Any]]:
    """`read_log` of the generations that verl dumps."""
    return read_log(path, "verl-rollouts", columns, tokenizer)
