"""Odd and broken Parquet files: the right output, by Arrow's own reading, or one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.credit.strategies import random_rows
from tests.fuzz.cases import CASES, generator

import stepcredit as sc
from stepcredit.cli.options import FileEstimator
from stepcredit.data.files.columns import has_json_form
from stepcredit.errors import StepCreditError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Column = Callable[[int], Any]
CARRIED: dict[str, Column] = {
    "when": lambda n: pa.array([0] * n, pa.timestamp("ns", "Asia/Tokyo")),
    "zone": lambda n: pa.array([1] * n, pa.timestamp("us", "Mars/Olympus")),
    "far": lambda n: pa.array([2**40] * n, pa.timestamp("s")),
    "day": lambda n: pa.array([date(2024, 1, 2)] * n),
    "span": lambda n: pa.array([5] * n, pa.duration("us")),
    "price": lambda n: pa.array([Decimal("1.50")] * n),
    "huge": lambda n: pa.array([2**64 - 1] * n, pa.uint64()),
    "bytes": lambda n: pa.array([b"\xff"] * n),
    "kind": lambda n: pa.array(["a"] * n).dictionary_encode(),
    "map": lambda n: pa.array([[("a", 1), ("a", None)]] * n, pa.map_(pa.string(), pa.int8())),
    "nulls": lambda n: pa.array([[None, 1]] * n, pa.list_(pa.int8())),
    "none": lambda n: pa.nulls(n),
    "nan": lambda n: pa.array([float("nan")] * n),
    "uuid": lambda n: pa.array([b"0" * 16] * n, pa.uuid()),
    "json": lambda n: pa.array(['{"a": 1}'] * n, pa.json_()),
    "deep": lambda n: pa.array([_nested(40)] * n),
    "pairs": lambda n: pa.array([{"a": None, "b": {"c": "x"}}] * n),
    "times": lambda n: pa.array([[Decimal("0.1"), None]] * n),
    "text": lambda n: pa.array(["ü\u2028"] * n, pa.large_string()),
    "half": lambda n: pa.array([1.5] * n, pa.float16()),
    "fixed": lambda n: pa.array([[1, 2]] * n, pa.list_(pa.int8(), 2)),
    "latin": lambda n: _as_strings(b"\xe9", n),
}
FIELDS: dict[str, Column] = {
    "group": lambda n: pa.array([2**63] * n, pa.uint64()),
    "outcome": lambda n: pa.array([Decimal("0.5")] * n),
    "length": lambda n: pa.array([1.0] * n),
    "signals": lambda n: pa.array([date(2024, 1, 2)] * n),
    "format_ok": lambda n: pa.array([b"x"] * n),
    "text": lambda n: _as_strings(b"\xc3", n),
    "prompt": lambda n: pa.array([{"role": "user"}] * n),
    "token_scores": lambda n: pa.array([[None]] * n, pa.list_(pa.float32())),
    "token_ids": lambda n: pa.array([2**31] * n),
    "step_ends": lambda n: pa.array([[0]] * n, pa.large_list(pa.uint64())),
}


def _nested(levels: int) -> Any:
    return [_nested(levels - 1)] if levels else 1


def _as_strings(text: bytes, rows: int) -> Any:
    """A column of texts that are not UTF-8."""
    binary = pa.array([text] * rows, pa.binary())
    return pa.StringArray.from_buffers(rows, *binary.buffers()[1:])


def table(rng: Random) -> Any:
    """A table of good rows, with further columns, columns of other types, or columns twice."""
    rows = random_rows(rng, [rng.randint(1, 3)] * rng.randint(0, 3), rng.choice(("steps", "none")))
    columns = {
        name: pa.array([row.get(name) for row in rows]) for name in (rows[0] if rows else ())
    }
    named = list(columns.items())
    for name in rng.sample(sorted(CARRIED), rng.randint(0, 3)):
        named.append((name, CARRIED[name](len(rows))))
    if rng.random() < 0.3:
        name = rng.choice(sorted(FIELDS))
        named = [column for column in named if column[0] != name]
        named.append((name, FIELDS[name](len(rows))))
    if named and rng.random() < 0.05:
        named.append(rng.choice(named))
    return pa.table([array for _, array in named], names=[name for name, _ in named])


def write(rng: Random, path: Path) -> None:
    """A table in one of the many ways to write it, and in half of the cases a few other bytes."""
    pq.write_table(
        table(rng),
        path,
        compression=rng.choice(("none", "snappy", "zstd", "gzip")),
        use_dictionary=rng.random() < 0.5,
        row_group_size=rng.choice((1, 2, 100)),
        data_page_version=rng.choice(("1.0", "2.0")),
        store_schema=rng.random() < 0.8,
    )
    if rng.random() < 0.5:
        return
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 16))):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del content[place : place + rng.randrange(1, 9)]
            case 3:
                content[place:place] = content[: rng.randrange(1, 9)]
    path.write_bytes(bytes(content))


def refusal(source: Path, out: Path) -> str | None:
    """What is said of a file that can't be shaped into `out`."""
    try:
        with sc.RolloutFile(source) as file:
            file.shape(out, FileEstimator(sc.PASS(), file))
    except StepCreditError as error:
        assert not out.exists()
        line = str(error)
        assert line.startswith(f"{source}:"), line
        assert "\n" not in line
        return line
    return None


def check_lines(given: Any, out: Path) -> None:
    """Carried columns that JSON has the types of are in the lines as Arrow reads them."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == given.num_rows
    for name in ("huge", "kind", "nulls", "none", "deep", "pairs", "text", "half", "fixed"):
        if name in given.column_names:
            assert [row.get(name) for row in rows] == given.column(name).to_pylist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parquet")


def check(case: int, folder: Path) -> bool:
    """One case; was it accepted?"""
    source, lines, out = folder / "in.parquet", folder / "out.jsonl", folder / "out.parquet"
    write(generator("parquet", case), source)
    for path in (lines, out):
        path.unlink(missing_ok=True)
    as_columns, as_lines = refusal(source, out), refusal(source, lines)
    if as_columns is not None:
        assert as_lines is not None
        return False
    given, kept = (pq.ParquetFile(path).read() for path in (source, out))
    for name in given.column_names:
        if name != "advantages":
            cells, before = (table.column(name).combine_chunks() for table in (kept, given))
            assert str(cells) == str(before)
            assert kept.schema.field(name).type == given.schema.field(name).type
    if as_lines is None:
        assert all(has_json_form(field.type) for field in given.schema)
        check_lines(given, lines)
    return True


def test_odd_and_broken_files_are_read_right_or_refused_in_one_line(folder: Path) -> None:
    accepted = 0
    for case in range(CASES):
        try:
            accepted += check(case, folder)
        except Exception as error:
            raise AssertionError(f"case {case}: {type(error).__name__}: {error}") from error
    assert 0.1 * CASES < accepted < 0.9 * CASES
