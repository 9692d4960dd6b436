"""The values of a file of JSON: one per line, in a list, or one after the other with indents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from typing import Any

from stepcredit.data.files.jsonl import parse
from stepcredit.data.files.lines import Source
from stepcredit.errors import RolloutError

_SPACE = " \t\r\n\ufeff"


def json_items(source: Source) -> Iterator[tuple[int, Any]]:
    """The values of a file in order; in the place of a broken one, the error.

    Args:
        source: an open file.

    Yields:
        Each value with its line, or with its number from 1 where values take several lines or
        stand in a list.
    """
    first = next(source.lines(), None)
    if first is not None:
        is_lines = source.is_parquet or _is_object(first.raw)
        yield from _of_lines(source) if is_lines else _of_document(source)


def _is_object(raw: bytes) -> bool:
    """Whether the first line holds one whole object; a broken line may be one of a log."""
    if raw.startswith(b"["):
        return False
    try:
        json.loads(raw)
    except JSONDecodeError as error:
        return error.pos < len(raw.decode(errors="replace").rstrip())
    except (ValueError, RecursionError):
        pass
    return True


def _of_lines(source: Source) -> Iterator[tuple[int, Any]]:
    for _, number, raw in source.held_lines():
        yield number, _parsed(raw)


def _of_document(source: Source) -> Iterator[tuple[int, Any]]:
    """The items of a list, or objects one after the other, over several lines each."""
    try:
        text = b"\n".join(line.raw for line in source.held_lines()).decode()
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
