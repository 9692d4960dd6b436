"""Changed rows of JSON lines: the right output, by Python's json and the loops, or one line."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests import reference
from tests.credit.strategies import random_rows
from tests.fuzz.cases import CASES, generator

import stepcredit as sc
from stepcredit.cli.options import FileEstimator
from stepcredit.cli.validate import Summary
from stepcredit.errors import StepCreditError

SIGNALS = ("steps", "tokens", "streams", "none")
CARRIED = (
    '"id": 123456789012345678901234567890',
    '"x": 0.1000000000000000055511151231257827',
    '"z": -0.0',
    '"e": 1E400',
    '"n": [NaN, -Infinity]',
    '"t": "a\\u0000\\ud83d\\ude00 \\"b\\": {"',
    '"o": {"": {"a": [{"a": 1}, {"a": 2}]}, "b\\\\": null}',
    '"d": ' + "[" * 90 + "]" * 90,
    '"advantages ": 1',
)
VALUES = (
    "null", "true", "0", "-1", "1.5", "1e39", "NaN", "-Infinity", '""', '"x"', "[]", "{}", "[[]]",
    "[0.5]", '["a"]', "[null]", "[true]", str(2**31), str(2**63), str(2**64), "9" * 5000,
    '"\\ud800"', '{"scores": [1]}', '{"judge": {"scores": [0.5, NaN]}}', "[" * 120 + "]" * 120,
)  # fmt: skip
LINES = (b"[1]", b"17", b'"row"', b"null", b"{}", b"\x00", b"\xff\xfe{\x00}\x00", b"{", b"\xc0\x80")
Lines = list[bytes]


def carry(rng: Random, lines: Lines) -> Lines:
    """Further fields that the format doesn't know."""
    at = rng.randrange(len(lines))
    lines[at] = lines[at][:-1] + b", " + rng.choice(CARRIED).encode() + b"}"
    return lines


def space(rng: Random, lines: Lines) -> Lines:
    """Blank lines, and spaces around rows and their names."""
    at = rng.randrange(len(lines))
    lines[at] = rng.choice((b" %b\r", b"\t%b ", b"\n \r\n%b", b"%b\n")) % lines[at]
    lines[at] = lines[at].replace(b'":', rng.choice((b'" :', b'"\t: ')), 1)
    return lines


def spell(rng: Random, lines: Lines) -> Lines:
    """A name spelled with an escape."""
    at = rng.randrange(len(lines))
    lines[at] = lines[at].replace(b'"group"', b'"\\u0067roup"')
    return lines


def labels(rng: Random, lines: Lines) -> Lines:
    """Groups whose labels need more than 64 bits, and differ in the last digit alone."""
    return [re.sub(rb'"g(\d)"', rb"1844674407370955161\1", line) for line in lines]


def set_value(rng: Random, lines: Lines) -> Lines:
    """Another value of a field, or the field once more."""
    at = rng.randrange(len(lines))
    name = rng.choice(["group", "length", "loss_mask", "step_ends", "token_scores", "signals",
                       "outcome", "format_ok", "token_ids", "advantages", "text"])  # fmt: skip
    value = rng.choice(VALUES)
    if rng.random() < 0.5:
        lines[at] = lines[at].strip()[:-1] + f', "{name}": {value}}}'.encode()
        return lines
    row = json.loads(lines[at]) if naive_lines(lines[at]) else {}
    members = [f"{json.dumps(key)}: {json.dumps(old)}" for key, old in row.items() if key != name]
    lines[at] = ("{" + ", ".join([*members, f'"{name}": {value}']) + "}").encode()
    return lines


def break_bytes(rng: Random, lines: Lines) -> Lines:
    """Bytes taken out, put in, changed or moved."""
    at = rng.randrange(len(lines))
    line = bytearray(lines[at])
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(line) + 1)
        piece = bytes(rng.choice(b'"\\{}[]:,0123456789eE.-+ntN\x00\xff\xc3 \n\r') for _ in range(2))
        line[place : place + rng.randrange(4)] = piece[: rng.randrange(3)]
    lines[at] = bytes(line)
    return lines


def other_line(rng: Random, lines: Lines) -> Lines:
    """A line that is no row, or the rows in another order."""
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(LINES))
    rng.shuffle(lines)
    return lines


Change = Callable[[Random, Lines], Lines]
HARMLESS: tuple[Change, ...] = (carry, labels, spell, space)
HARMFUL: tuple[Change, ...] = (set_value, set_value, break_bytes, break_bytes, other_line)


def changed_file(rng: Random) -> tuple[bytes, bool]:
    """A file of rows that was changed, and whether it must still be accepted."""
    groups = [rng.randint(1, 3) for _ in range(rng.randint(1, 3))]
    rows = random_rows(rng, groups, rng.choice(SIGNALS), "tenths", max_length=6)
    lines = [json.dumps(row).encode() for row in rows]
    changes = [change for change in HARMLESS if rng.random() < 0.4]
    harmful = rng.random() < 0.7
    for change in (*changes, *(rng.choices(HARMFUL, k=rng.randint(1, 2)) if harmful else ())):
        lines = change(rng, lines)
    mark = codecs.BOM_UTF8 if rng.random() < 0.1 else b""
    return mark + b"\n".join(lines) + rng.choice((b"", b"\n", b"\r\n")), not harmful


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def one_line(path: Path, call: Callable[[], object]) -> str | None:
    """What is said of a file that is refused: one line that names it."""
    try:
        call()
    except StepCreditError as error:
        line = str(error)
        assert line.startswith(f"{path}:"), line
        return line
    return None


def literal(line: str) -> Any:
    """A row with every number as it is spelled, and all of its members in order."""
    keep = {"parse_int": str, "parse_float": str, "parse_constant": str}
    return json.loads(line, object_pairs_hook=tuple, **keep)


def members(row: Any) -> list[Any]:
    return [member for member in row if member[0] != "advantages"]


def naive_lines(content: bytes) -> list[str] | None:
    """The rows of a file by Python alone; None: a line that is no object of JSON."""
    lines = [line.strip() for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    try:
        texts = [line.decode() for line in lines if line]
        return texts if all(isinstance(json.loads(text), dict) for text in texts) else None
    except (ValueError, RecursionError):
        return None


def check_output(rows: list[str], out: list[str]) -> None:
    """Every other member as it was spelled, and the loops' advantages."""
    assert len(out) == len(rows)
    for before, after in zip(rows, out, strict=True):
        kept = literal(after)
        assert members(kept) == members(literal(before))
        assert kept[-1][0] == "advantages"
    read = [json.loads(row) for row in rows]
    labelled = [{**row, "group": str(row["group"])} for row in read]
    wanted = reference.advantages("pass", {}, labelled)
    scale = max(1.0, *(abs(value) for row in wanted for value in row))
    for row, after, want in zip(read, out, wanted, strict=True):
        got = json.loads(after)["advantages"]
        trained = row.get("loss_mask", [1] * len(got))
        assert [value for value, flag in zip(got, trained, strict=True) if flag] == pytest.approx(
            want, abs=1e-5 * scale
        )


def test_changed_rows_are_read_right_or_refused_in_one_line(folder: Path) -> None:
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    refused = 0
    for case in range(CASES):
        content, harmless = changed_file(generator("rows", case))
        source.write_bytes(content)
        out.unlink(missing_ok=True)
        with sc.RolloutFile(source) as file:
            told = one_line(source, lambda: file.fold(Summary, Summary.add))
        with sc.RolloutFile(source) as file:
            compute = FileEstimator(sc.PASS(), file)
            refusal = one_line(source, lambda: file.shape(out, compute))  # noqa: B023
        rows = naive_lines(content)
        try:
            assert told is None or refusal == told
            assert refusal is None or (not harmless and "\n" not in refusal), refusal
            assert refusal is not None or rows is not None
            assert (refusal is None) == out.exists()
            if refusal is None and rows is not None:
                check_output(rows, out.read_bytes().decode().split("\n")[:-1])
        except AssertionError as error:
            raise AssertionError(f"case {case}: {content!r}: {error}") from error
        refused += refusal is not None
    assert 0.2 * CASES < refused < 0.8 * CASES
