"""Rewards on a file of rollouts: one number into each row, every other byte of it kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from stepcredit.data.atomic import replacing
from stepcredit.data.batches import Batch
from stepcredit.data.files import RolloutFile
from stepcredit.data.splice import without_member
from stepcredit.errors import FileError, RolloutError, SettingError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.formats import Format


@dataclass
class Found:
    """Values of one field for a file's rows, put in any order: 9 bytes a row."""

    values: array[float] = field(default_factory=lambda: array("d"))
    replaces: bytearray = field(default_factory=bytearray)

    def put(self, position: int, value: float, replaces: bool) -> None:
        """Keep a row's value."""
        missing = position + 1 - len(self.values)
        if missing > 0:
            self.values.extend([0.0] * missing)
            self.replaces.extend(bytes(missing))
        self.values[position], self.replaces[position] = value, replaces


def reward_file(
    file: RolloutFile, output: str | Path, rewards: Sequence[Reward], text: str = "text"
) -> int:
    """Write a file's rows with their rewards: `outcome`, or `format` and `format_ok`.

    Args:
        file: the rollouts, opened.
        output: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-"; it may be the file itself.
        rewards: at most one that gives an outcome and one that gives a format. A row's fields are
            the facts.
        text: the field that holds the response's text.

    Returns:
        Rows written.

    Raises:
        SettingError: two rewards for the same field.
        RowError: the first fault; the output is then as it was before.
        FileError: a file that can't be read or written.
    """
    _check_kinds(rewards)

    def start() -> dict[str, Found]:
        for rule in rewards:
            rule.tally.clear()
        return {}

    def step(found: dict[str, Found], batch: Batch) -> dict[str, Found]:
        texts = [_text(row.fields, text, at) for at, row in enumerate(batch.rows)]
        facts = [row.fields for row in batch.rows]
        for rule in rewards:
            for name, values in _fields(rule, texts, facts).items():
                kept = found.setdefault(name, Found())
                for row, value in zip(batch.rows, values, strict=True):
                    kept.put(row.position, value, name in row.fields)
        return found

    found = file.fold(start, step)
    with replacing(output) as out:
        return _write(file, found, out, str(output))


def _check_kinds(rewards: Sequence[Reward]) -> None:
    taken: dict[str, str] = {}
    for rule in rewards:
        if rule.gives in taken:
            reason = f"{taken[rule.gives]} and {rule.name} both give the {rule.gives}"
            raise SettingError(reason, field="reward")
        taken[rule.gives] = rule.name


def _text(fields: Mapping[str, Any], name: str, row: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        wrong = f"expected a string, got {value!r}"
        reason = "missing: rewards read it" if value is None else wrong
        raise RolloutError(reason, row=row, field=name)
    return value


def _fields(
    rule: Reward, texts: Sequence[str], facts: Sequence[Mapping[str, Any]]
) -> dict[str, Sequence[float]]:
    values = rule(texts, facts)
    if rule.gives == "outcome":
        return {"outcome": values}
    passing = rule.passing if isinstance(rule, Format) else 1.0
    return {"format": values, "format_ok": [value >= passing for value in values]}


def _write(file: RolloutFile, found: dict[str, Found], out: IO[bytes], name: str) -> int:
    rows = len(next(iter(found.values())).values) if found else 0
    if not name.endswith(".parquet"):
        for line in _lines(file, found, rows):
            out.write(line)
    elif file.path.endswith(".parquet"):
        from stepcredit.rewards.columns import with_columns

        with_columns(file.path, {each: kept.values for each, kept in found.items()}, out)
    else:
        from stepcredit.data.parquet import from_lines

        from_lines(lambda: _lines(file, found, rows), out, name)
    return rows


def _lines(file: RolloutFile, found: dict[str, Found], rows: int) -> Iterator[bytes]:
    done = 0
    for position, _, raw in file._source.lines():
        if position == rows:
            break
        for name, kept in found.items():
            if kept.replaces[position]:
                raw = without_member(raw, name)
            raw = _with(raw, name, kept.values[position])
        yield raw + b"\n"
        done += 1
    if done < rows:
        raise FileError(f"{file.path}: lost rows while it was read")


def _with(raw: bytes, name: str, value: float) -> bytes:
    """A row's JSON object with one more member at its end."""
    body = raw[:-1].rstrip()
    comma = b"" if body.endswith(b"{") else b","
    told = bool(value) if name == "format_ok" else value
    return b'%b%b"%b":%b}' % (body, comma, name.encode(), orjson.dumps(told))
