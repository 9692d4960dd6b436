"""The objects of a log file: JSON Lines, gzip, Parquet, and JSON in a list or with indents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any

from stepcredit.data.files.jsonl import parse
from stepcredit.data.files.lines import Source
from stepcredit.errors import FileError, RolloutError, RowError
from stepcredit.logs.logged_response import Record

_SPACE = " \t\r\n\ufeff"


def files_of_log(path: str | Path, patterns: tuple[str, ...]) -> list[str]:
    """The file itself, or the files in a folder, in the order in which they were written.

    Args:
        path: a file or a folder.
        patterns: select the files of a folder; the first that any file has is used.

    Raises:
        FileError: the folder has no such file.
    """
    place = Path(path)
    if not place.is_dir():
        return [str(path)]
    for pattern in patterns:
        found = sorted(place.glob(pattern), key=lambda each: (len(each.name), each.name))
        if found:
            return list(map(str, found))
    raise FileError(f"{path}: no {' or '.join(patterns)} in this folder")


def records_of(path: str) -> Iterator[Record | RowError]:
    """The objects of a file in order; in the place of a broken one, what is wrong with it.

    Args:
        path: a `.jsonl`, `.json`, `.gz` or `.parquet` file, or "-" for standard input.

    Raises:
        FileError: the file can't be read.
    """
    with Source(path) as source:
        first = next(source.lines(), None)
        if first is None:
            return
        is_lines = source.is_parquet or _is_object(first.raw)
        found = _of_lines(source) if is_lines else _of_document(source)
        columns = parquet_columns(path) if source.is_parquet else ()
        for line, value in found:
            yield _record(path, line, value, columns)


def _is_object(raw: bytes) -> bool:
    """Whether the first line holds one whole object; a broken line may be one of a log."""
    if raw.startswith(b"["):
        return False
    try:
        json.loads(raw)
    except JSONDecodeError as error:
        return error.pos < len(raw.decode(errors="replace").rstrip())
    except ValueError:
        pass
    return True


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


def _of_lines(source: Source) -> Iterator[tuple[int, Any]]:
    for _, number, raw in source.lines():
        yield number, _parsed(raw)


def _of_document(source: Source) -> Iterator[tuple[int, Any]]:
    """The items of a list, or objects one after the other, over several lines each."""
    try:
        text = b"\n".join(line.raw for line in source.lines()).decode()
    except UnicodeDecodeError:
        yield 1, _parsed(b"\n".join(line.raw for line in source.lines()))
        return
    number = 0
    for number, raw in enumerate(_items(text), start=1):
        yield number, _parsed(raw.encode())


def _items(text: str) -> Iterator[str]:
    """The texts of the items of a list, or of the values of a text; a broken rest comes last."""
    decoder, at, end = json.JSONDecoder(), _skip(text, 0), len(text)
    inside = text[at : at + 1] == "["
    at = _skip(text, at + inside)
    while at < end and not (inside and text[at] == "]"):
        try:
            _, stop = decoder.raw_decode(text, at)
        except (JSONDecodeError, RecursionError):
            yield text[at:]
            return
        yield text[at:stop]
        at = _skip(text, stop)
        if inside and text[at : at + 1] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _parsed(raw: bytes) -> Any:
    try:
        return parse(raw)
    except RolloutError as error:
        return error
