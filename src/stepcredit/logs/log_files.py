"""The objects of a log file: JSON Lines, gzip, Parquet, JSON in a list or with indents, dumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepcredit.data.files.json_items import json_items
from stepcredit.data.files.lines import Source
from stepcredit.errors import FileError, RolloutError, RowError
from stepcredit.logs.logged_response import Record
from stepcredit.logs.torch_dumps import DUMP, data_of_dump

ANY_FILES = ("*.jsonl", "*.jsonl.gz", "*.json", "*.parquet", f"*{DUMP}")
"""The files of a folder in which no file is a format's own."""


def files_of_log(path: str | Path, patterns: tuple[str, ...]) -> list[str]:
    """The file itself, or the files in a folder, in the order in which they were written.

    Args:
        path: a file or a folder.
        patterns: select the files of a folder; the first that any file has is used, else those of
            JSON Lines, gzip, JSON, Parquet and `torch.save`.

    Raises:
        FileError: the folder has no such file.
    """
    place = Path(path)
    if not place.is_dir():
        return [str(path)]
    for pattern in (*patterns, *ANY_FILES):
        found = [each for each in place.glob(pattern) if not each.name.startswith(".")]
        if found:
            return list(
                map(str, sorted(found, key=lambda each: _in_order(each.relative_to(place))))
            )
    raise FileError(f"{path}: no {' or '.join(patterns)} in this folder")


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Sorts by the numbers in names: 9 stands before 10, in the names of folders too."""
    return [(len(part), part) for part in path.parts]


def is_read_again(path: str | Path) -> bool:
    """Whether a path can be read twice: not standard input, a pipe or another device.

    Example:
        >>> is_read_again("-"), is_read_again("no/such/file.jsonl")
        (False, True)
    """
    place = Path(path)
    return str(path) != "-" and (place.is_file() or place.is_dir() or not place.exists())


def records_of(path: str) -> Iterator[Record | RowError]:
    """The objects of a file in order; in the place of a broken one, what is wrong with it.

    Args:
        path: a `.jsonl`, `.json`, `.gz`, `.parquet` or `.pt` file, or "-" for standard input.

    Raises:
        FileError: the file can't be read, or holds code.
    """
    if path.endswith(DUMP):
        yield _record(path, 1, data_of_dump(path), ())
        return
    with Source(path) as source:
        columns = parquet_columns(path) if source.is_parquet else ()
        for line, value in json_items(source):
            yield _record(path, line, value, columns)


def parquet_columns(path: str) -> tuple[str, ...]:
    """The names of a Parquet file's columns, those without a value in some row included."""
    from stepcredit.data.files.parquet import column_names

    return column_names(path)


def _record(path: str, line: int, value: Any, columns: tuple[str, ...]) -> Record | RowError:
    if isinstance(value, RolloutError):
        return RowError(value.reason, path=path, line=line, field=value.field)
    if not isinstance(value, dict):
        return RowError("expected an object", path=path, line=line)
    return Record(path, line, {**dict.fromkeys(columns), **value})
