"""Parquet columns of every type: kept, read right, or refused by row and column."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import stepcredit as sc
from stepcredit.errors import FileError, RowError, StepCreditError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Signals = dict[str, dict[str, list[float]]]
JUDGE: Signals = {"judge": {"scores": [0.5, 0.25]}}
AS_MAP = pa.map_(pa.string(), pa.struct([("scores", pa.list_(pa.float64()))]))


def write(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table({"group": [1, 1], "length": [2, 2], **columns}), path)


def shaped(source: Path, out: Path) -> None:
    with sc.RolloutFile(source) as file:
        file.shape(out, sc.PASS())


@pytest.mark.parametrize(
    "column",
    [
        pa.array([json.dumps(JUDGE)] * 2),
        pa.array([json.dumps(JUDGE)] * 2, pa.json_()),
        pa.array([json.dumps(JUDGE)] * 2).dictionary_encode(),
        pa.array([JUDGE] * 2),
        pa.array([list(JUDGE.items())] * 2, AS_MAP),
    ],
    ids=["text", "json", "dictionary", "struct", "map"],
)
def test_signals_may_be_json_a_struct_or_a_map(column: Any, tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", signals=column)
    assert [row["signals"] for row in sc.read_rows(tmp_path / "in.parquet")] == [JUDGE] * 2


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (pa.array([None, 3]), "signals: expected an object, got 3"),
        (pa.array([None, [1]]), "signals: expected an object, got [1]"),
        (pa.array([None, "judge"]), "signals: is not JSON: Expecting value at column 1"),
        (pa.array([None, "[1]"]), "signals: expected an object, got [1]"),
        (pa.array([None, date(2024, 1, 2)]), "signals: is not JSON: Extra data at column 5"),
        (pa.array([None, {"judge": 3}]), "signals.judge: expected an object, got 3"),
        (
            pa.array([None, [("judge", {"scores": [1]})] * 2], AS_MAP),
            "signals: has two signals of one name",
        ),
    ],
)
def test_signals_of_another_type_are_refused(cell: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    write(path, signals=cell)
    with pytest.raises(RowError) as raised:
        list(sc.read_rows(path))
    assert str(raised.value) == f"{path}:2: {reason}"


TEXTS = {
    "in a zone": (pa.array([None, 0], pa.timestamp("ms", "Mars/X")), "1970-01-01 00:00:00.000"),
    "nanoseconds": (pa.array([None, 1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
    "a date": (pa.array([None, date(2024, 1, 2)]), "2024-01-02"),
    "a time": (pa.array([None, datetime(2024, 1, 2, 3).time()]), "03:00:00.000000"),
    "a decimal": (pa.array([None, Decimal("1.50")]), "1.50"),
    "an integer beyond 63 bits": (pa.array([None, 2**64 - 1], pa.uint64()), 2**64 - 1),
    "in a list": (pa.array([None, [date(2024, 1, 2), None]]), ["2024-01-02", None]),
    "in an object": (pa.array([None, {"a": [Decimal("0.1")]}]), {"a": ["0.1"]}),
    "in a map": (pa.array([None, [("a", 0)]], pa.map_(pa.string(), pa.date32())),
                 [["a", "1970-01-01"]]),
    "a dictionary": (pa.array([None, "b"]).dictionary_encode(), "b"),
    "a list of one size": (pa.array([None, [1, 2]], pa.list_(pa.int8(), 2)), [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_carried_columns_are_kept_and_written_as_json(case: str, tmp_path: Path) -> None:
    column, value = TEXTS[case]
    write(tmp_path / "in.parquet", x=column)
    shaped(tmp_path / "in.parquet", tmp_path / "out.parquet")
    shaped(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    before, after = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("in", "out"))
    assert after.column("x").equals(before.column("x"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.get("x") for row in rows] == [None, value]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"\xff", None]),
        pa.array([5, None], pa.duration("us")),
        pa.array([[b"a"], None]),
        pa.array([{"image": b"a"}, None]),
        pa.array([b"0" * 16, None], pa.uuid()),
    ],
    ids=["bytes", "duration", "list", "struct", "uuid"],
)
def test_columns_that_json_can_not_hold_are_kept_in_parquet(column: Any, tmp_path: Path) -> None:
    source, lines = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    write(source, x=column)
    shaped(source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("x").equals(pq.read_table(source).column("x"))
    with pytest.raises(FileError) as raised:
        shaped(source, lines)
    reason = f"JSON can't hold {table.schema.field('x').type}"
    assert str(raised.value).startswith(f"{source}: x: {reason}")
    assert str(raised.value).endswith(": write a .parquet file, or drop the column")
    assert not lines.exists()


def broken_text(rows: int) -> Any:
    buffers = pa.array([b"a", b"\xff"][:rows], pa.binary()).buffers()
    return pa.StringArray.from_buffers(rows, *buffers[1:])


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "not utf-8": (lambda: {"x": broken_text(2)}, ":2: x: is not UTF-8"),
    "a far date": (
        lambda: {"x": pa.array([0, 2**40], pa.timestamp("s"))},
        ":2: x: can't be read: a date that is not within the years 1 to 9999",
    ),
    "bytes for a text": (lambda: {"text": pa.array([b"a", b"b"])}, ": text: binary can't be read"),
    "a null in scores": (
        lambda: {"token_scores": pa.array([[0.5, 1.0], [0.5, None]])},
        ":2: token_scores: expected numbers, got null at index 1",
    ),
    "a decimal for a number": (
        lambda: {"outcome": pa.array([Decimal("0.5")] * 2)},
        ':1: outcome: expected a number or null, got "0.5" (and 1 more fault)',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_can_not_be_read_are_refused(case: str, tmp_path: Path) -> None:
    columns, reason = REFUSED[case]
    source = tmp_path / "in.parquet"
    write(source, **columns())
    with pytest.raises(StepCreditError) as raised:
        shaped(source, tmp_path / "out.parquet")
    assert str(raised.value) == f"{source}{reason}"
    assert not (tmp_path / "out.parquet").exists()


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    columns = [pa.array([1]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.table(columns, names=["group", "length", "length"]), path)
    with pytest.raises(FileError, match=r"in\.parquet: length: is the name of more than one col"):
        sc.read_rollouts(path)


def test_tables_without_rows_or_columns_hold_no_rollouts(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    for table in (pa.table({"group": pa.array([], pa.int64())}), pa.table({})):
        pq.write_table(table, path)
        with pytest.raises(FileError, match=r"in\.parquet: there are no rollouts in it$"):
            sc.read_rollouts(path)


@pytest.mark.parametrize(
    ("carried", "reason"),
    [
        (['{"x": 9007199254740993}', '{"x": 0.5}'], ":2: the rows fit no Parquet schema: x: Integ"),
        (['{"x": 9007199254740993}'] * 1024 + ['{"x": 0.5}'], ": the rows fit no Parquet schema: "),
        (['{"x": 1}'] * 1030 + ['{"x": "y"}'], ":1031: the rows fit no Parquet schema: "),
        (['{"x": 18446744073709551616}'], ":1: the rows fit no Parquet schema: x: "),
        (['{"x": {}}'], ": the rows fit no Parquet schema: "),
        (['{"x": 1}', '{"x": "1"}'], ":2: the rows fit no Parquet schema: x: "),
        (['{"x": true}', '{"x": 1}'], ":2: the rows fit no Parquet schema: x: "),
        (['{"x": 1.5}', '{"x": {"a": [1e400]}}'], ":2: x: holds a number too large for a column"),
        (['{"x": "1e400"}', '{"x": [1E+0400]}'], ":2: x: holds a number too large for a column"),
        (['{"x": 1' + "0" * 300 + ".5e99}"], ":1: x: holds a number too large for a column"),
        (['{"x": 1.5}', '{"x": -1e999}'], ":2: x: holds a number too large for a column"),
    ],
)
def test_a_carried_value_that_parquet_would_change_is_refused(
    carried: list[str], reason: str, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    source.write_text("".join('{"group": 1, "length": 1, ' + row[1:] + "\n" for row in carried))
    with pytest.raises(StepCreditError) as raised:
        shaped(source, out)
    assert str(raised.value).startswith(f"{out}{reason}")
    assert "\n" not in str(raised.value)
    assert not out.exists()


def test_not_finite_numbers_stay_in_carried_columns(tmp_path: Path) -> None:
    row = '{"group": 1, "length": 1, "x": [NaN, Infinity, -0.0], "y": "1e400"}\n'
    (tmp_path / "in.jsonl").write_text(row)
    shaped(tmp_path / "in.jsonl", tmp_path / "between.parquet")
    shaped(tmp_path / "between.parquet", tmp_path / "out.jsonl")
    assert '"x": [NaN, Infinity, -0.0]' in (tmp_path / "out.jsonl").read_text()


@pytest.mark.parametrize("value", [float("nan"), [0.5, float("inf")], {"a": [float("-inf")]}])
def test_not_finite_numbers_are_not_written_as_null(value: object, tmp_path: Path) -> None:
    row = {"group": 1, "length": 1, "x": value}
    with pytest.raises(StepCreditError, match=r"^row 0: x: -?(NaN|Infinity) can't be written as J"):
        sc.write_rollouts(tmp_path / "out.jsonl", [row])
    assert list(tmp_path.iterdir()) == []
