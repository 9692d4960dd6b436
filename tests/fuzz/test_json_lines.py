"""Lines of JSON are read as Python's json reads them, or refused: nested, spelled oddly, broken."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.fuzz.cases import CASES, generator

from stepcredit.data.files.jsonl import DEEPEST, parse
from stepcredit.errors import RolloutError

STRINGS = (
    '""', '"a"', '"\\\\"', '"\\""', '":"', '"a:"', '": [{"', '"\\n"', '"\\\\\\"b\\": {"',
    '"\\u0061"', '"\\u003a"', '"\\u005c"', '"é"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\/"', '"[["',
)  # fmt: skip
SCALARS = (
    "0", "-0", "-0.0", "1.5", "1e400", "0.1234567890123456789012", "NaN", "-Infinity", "true",
    "null", str(2**63), str(-(2**63) - 1), str(2**64), "1844674407370955161.5", "9" * 30, "01",
)  # fmt: skip
SPACES = ("", "", "", " ", "\t ", "\r")
MARKS = ('"', "\\", ":", "[", "]", "{", "}", ",", "\x00", "é", "0", "u")


def text(rng: Random, depth: int = 0) -> str:
    """A value as text: its objects may give a name twice, in one spelling or in two."""

    def spaced(mark: str) -> str:
        return rng.choice(SPACES) + mark + rng.choice(SPACES)

    kind = rng.random()
    if depth == 4 or kind < 0.3:
        return rng.choice(SCALARS if rng.random() < 0.5 else STRINGS)
    if kind < 0.35:
        levels = rng.choice((2, DEEPEST - 4, DEEPEST, DEEPEST + 1))
        return "[" * levels + "]" * levels
    items = [text(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 0.6:
        return "[" + spaced(",").join(items) + "]"
    names = rng.choices(STRINGS, k=len(items))
    pairs = (name + spaced(":") + item for name, item in zip(names, items, strict=True))
    return "{" + spaced(",").join(pairs) + "}"


def broken(rng: Random, line: str) -> str:
    """The line without a character, or with another one."""
    at = rng.randrange(len(line) + 1)
    return line[:at] + rng.choice(("", *MARKS)) + line[at + rng.randrange(2) :]


def without_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) < len(members):
        raise ValueError
    return dict(members)


def levels(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(levels, inner), default=0)


def by_python(line: str) -> str | None:
    """The value, spelled so that types and NaN can be compared; None if it must be refused."""
    try:
        value = json.loads(line, object_pairs_hook=without_repeats)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return repr(value) if levels(value) <= DEEPEST else None


def by_parse(line: str) -> str | None:
    try:
        return repr(parse(line.encode()))
    except RolloutError:
        return None


def test_lines_are_read_as_python_reads_them_or_refused() -> None:
    accepted = 0
    for case in range(CASES):
        rng = generator("json lines", case)
        line = text(rng) if rng.random() < 0.3 else '{"a": ' + text(rng) + ', "b": 1}'
        line = (broken(rng, line) if rng.random() < 0.2 else line).strip()
        wanted = by_python(line)
        assert by_parse(line) == wanted, line
        accepted += wanted is not None
    assert CASES * 0.3 < accepted < CASES * 0.9
