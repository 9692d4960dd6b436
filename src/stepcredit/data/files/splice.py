"""Adds members to the text of a JSON object; its other bytes stay unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from json.decoder import scanstring  # type: ignore[attr-defined]

import orjson

_KEEP_DIGITS = json.JSONDecoder(parse_int=str, parse_float=str)
_SPACE = " \t\r\n"


def with_members(raw: bytes, members: bytes) -> bytes:
    """A row's JSON object with new members at its end, which replace those of the same name.

    Args:
        raw: a JSON object with at least one member.
        members: a JSON object.

    Example:
        >>> with_members(b'{"group": 1, "outcome": 0}', b'{"outcome":1.0,"format":1.0}')
        b'{"group": 1,"outcome":1.0,"format":1.0}'
    """
    names = orjson.loads(members)
    if b"\\u" in raw or b"\\/" in raw:  # a name may be spelled in several ways
        return add_members(raw, names, members)
    return add_members(raw, [name for name in names if orjson.dumps(name) in raw], members)


def add_members(raw: bytes, replaced: Iterable[str], members: bytes) -> bytes:
    """The same, where it is known which names the row may have already.

    Args:
        raw: a JSON object with at least one member.
        replaced: names of members that the row may have already: they are left out.
        members: a JSON object.

    Example:
        >>> add_members(b'{"group": 1, "outcome": 0}', ["outcome"], b'{"outcome":1.0}')
        b'{"group": 1,"outcome":1.0}'
    """
    for name in replaced:
        raw = without_member(raw, name)
    inside = members.strip()[1:-1]
    return b"%b,%b}" % (raw[:-1].rstrip(), inside) if inside else raw


def without_member(raw: bytes, name: str) -> bytes:
    """A JSON object without the members of that name; everything else stays unchanged.

    Example:
        >>> without_member(b'{ "a": 1 , "b": [2], "c": "x" }', "b")
        b'{ "a": 1, "c": "x" }'
    """
    text = raw.decode()
    kept: list[str] = []
    at = start = _skip(text, 1)
    end = at
    while text[at] != "}":
        key, after = scanstring(text, at + 1)
        value = _skip(text, _skip(text, after) + 1)
        before, (_, end) = end, _KEEP_DIGITS.raw_decode(text, value)
        if key != name:
            kept.append(text[before if kept else at : end])
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return (text[:start] + "".join(kept) + text[end:]).encode()


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
