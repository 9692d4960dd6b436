"""Members written into rows as they were read: other bytes, columns and types stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stepcredit as sc
from stepcredit.data import write_rollouts
from stepcredit.data.files.batches import Batch
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.splice import with_members, without_member
from stepcredit.data.files.spool import Spool
from stepcredit.errors import FileError, RolloutError, RowError

NAMES = st.sampled_from(["group", "outcome", "a", "é", 'q"', "\\", "\u2028", "a/b", ""])


def objects(floats: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | floats | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(NAMES, values, max_size=5)


ROWS = objects(st.floats(allow_nan=False))
MEMBERS = objects(st.floats(allow_nan=False, allow_infinity=False))
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\n ")])


@settings(max_examples=300, deadline=None)
@given(ROWS, MEMBERS, SPACES, st.booleans())
def test_new_members_take_the_place_of_old_ones(
    row: dict[str, Any], new: dict[str, Any], marks: tuple[str, str], ascii_: bool
) -> None:
    row = {"kept": 1} | row
    raw = json.dumps(row, separators=marks, ensure_ascii=ascii_).encode()
    members = json.dumps(new, ensure_ascii=ascii_).encode()
    expected = {name: value for name, value in row.items() if name not in new} | new
    made = json.loads(with_members(raw, members), object_pairs_hook=list)
    assert json.dumps(made) == json.dumps(json.loads(json.dumps(expected), object_pairs_hook=list))
    for name in row:
        rest = json.loads(without_member(raw, name))
        assert rest == {other: value for other, value in row.items() if other != name}


def test_every_other_byte_stays() -> None:
    raw = b'{ "group" : 1 ,"x":1e400, "out\\u0063ome": 0, "y" :[1.0e0,  -0.0] ,"outcome":1 }'
    made = with_members(raw, b'{"outcome":2}')
    assert made == b'{ "group" : 1 ,"x":1e400, "y" :[1.0e0,  -0.0],"outcome":2}'
    assert with_members(b'{"a":1}', b"{}") == b'{"a":1}'
    assert with_members(b'{"a\\/b":1, "c":2}', b'{"a/b":3}') == b'{"c":2,"a/b":3}'


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=9)), max_size=20))
def test_a_spool_gives_back_what_was_put_last(pieces: list[tuple[int, bytes]]) -> None:
    with Spool() as spool:
        for _ in range(2):
            kept: dict[int, bytes] = {}
            for position, piece in pieces:
                spool.put(position, piece)
                kept[position] = piece
            spool.flush()
            assert len(spool) == 1 + max(kept, default=-1)
            for position in range(len(spool)):
                assert spool.get(position) == kept.get(position, b"")
            spool.clear()
            assert len(spool) == 0


ROWS: list[dict[str, Any]] = [
    {"group": i % 3, "length": 2, "outcome": float(i), "note": f"é{i}", "old": [i]}
    for i in range(3000)
]


def told(batch: Batch) -> list[dict[str, Any]]:
    """New columns: one on some rows alone, one in place of the row's own."""
    return [
        {"seen": np.float32([row.position, 0.1]), "old": {"was": row.fields["old"]}}
        | ({"odd": True} if row.position % 2 else {})
        for row in batch.rows
    ]


def expected(i: int) -> dict[str, Any]:
    row = ROWS[i] | {"seen": [float(i), 0.1], "old": {"was": [i]}}
    return row | ({"odd": True} if i % 2 else {})


@pytest.mark.parametrize("source", ["in.jsonl", "in.jsonl.gz", "in.parquet"])
@pytest.mark.parametrize("output", ["out.jsonl", "out.jsonl.gz", "out.parquet", None])
def test_rows_of_scattered_groups_keep_their_order(
    source: str, output: str | None, tmp_path: Path
) -> None:
    write_rollouts(tmp_path / source, ROWS)
    target = tmp_path / (output or source)
    with RolloutFile(tmp_path / source) as file:
        assert file.annotate(target, told) == 3000
    for i, row in enumerate(sc.read_rows(target)):
        seen = row.pop("seen")
        wanted = expected(i)
        assert seen == pytest.approx(wanted.pop("seen"), abs=1e-6)
        assert row == wanted


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    path = tmp_path / "in.parquet"
    columns = {
        "group": arrow.array(["a", "b"], arrow.large_string()),
        "length": arrow.array([2, 2], arrow.int16()),
        "when": arrow.array([1, 2], arrow.timestamp("us")),
        "old": arrow.array([1, 2], arrow.int8()),
    }
    made = arrow.table(columns).replace_schema_metadata({"kept": "yes"})
    arrow.parquet.write_table(made, path)
    with RolloutFile(path) as file:
        file.annotate(path, lambda batch: [{"old": 0.5, "step_scores": np.float32([1])}] * 2)
    schema = arrow.parquet.read_schema(path)
    assert schema.metadata[b"kept"] == b"yes"
    assert {field.name: str(field.type) for field in list(schema)[:4]} == {
        "group": "large_string",
        "length": "int16",
        "when": "timestamp[us]",
        "old": "double",
    }
    assert schema.names[4:] == ["step_scores"]
    assert str(schema.field("step_scores").type.value_type) == "double"


def test_columns_that_fit_no_schema_leave_the_output(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "in.parquet", ROWS[:2])
    (tmp_path / "out.parquet").write_text("as it was")

    def mixed(batch: Batch) -> list[dict[str, Any]]:
        return [{"new": value} for value in ("text", 5)]

    with RolloutFile(tmp_path / "in.parquet") as file, pytest.raises(FileError) as raised:
        file.annotate(tmp_path / "out.parquet", mixed)
    line = str(raised.value)
    assert line.startswith(f"{tmp_path / 'in.parquet'}: the new columns fit no Parquet schema: ")
    assert "\n" not in line
    assert (tmp_path / "out.parquet").read_text() == "as it was"


def test_a_failure_in_mid_file_leaves_the_output(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "in.jsonl", ROWS)
    before = (tmp_path / "in.jsonl").read_bytes()

    def fails(batch: Batch) -> list[dict[str, Any]]:
        bad = [row for row in batch.rows if row.position == 2001]
        if bad:
            raise RowError("no", path=str(file.path), line=bad[0].line, field="outcome")
        return told(batch)

    with (
        RolloutFile(tmp_path / "in.jsonl", batch_tokens=100) as file,
        pytest.raises(RowError) as raised,
    ):
        file.annotate(tmp_path / "in.jsonl", fails)
    assert str(raised.value) == f"{tmp_path / 'in.jsonl'}:2002: outcome: no"
    assert (tmp_path / "in.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_prepared_rows_are_what_is_checked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"group": 1}\n\n{"group": 1}\n')
    lines: list[int] = []

    def prepare(fields: dict[str, Any], line: int) -> dict[str, Any]:
        lines.append(line)
        return fields | {"length": line}

    with RolloutFile(tmp_path / "in.jsonl", prepare=prepare) as file:
        file.annotate(tmp_path / "out.jsonl", lambda batch: [{"n": r.length} for r in batch.rows])
    assert lines == [1, 3]
    assert (tmp_path / "out.jsonl").read_text() == '{"group": 1,"n":1}\n{"group": 1,"n":3}\n'
    with (
        RolloutFile(tmp_path / "in.jsonl", prepare=lambda row, line: row | {"length": 0}) as file,
        pytest.raises(RowError) as raised,
    ):
        file.annotate(tmp_path / "out.jsonl", told)
    reason = "length: a response needs at least one trained token (and 1 more fault)"
    assert str(raised.value) == f"{tmp_path / 'in.jsonl'}:1: {reason}"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"group": 1}, "row 1: length: missing, and no other field implies it"),
        (
            {"group": 1, "token_scores": torch.tensor([0.5, float("nan")])},
            "row 1: token_scores: NaN at index 1 is not a finite number",
        ),
        (
            {"group": 1, "signals": {"a": {"scores": np.array([np.inf])}}},
            "row 1: signals.a.scores: Infinity at index 0 is not a finite number",
        ),
        (
            {"group": 1, "length": 1, "x": {1}},
            "row 1: can't be written as JSON: Type is not JSON serializable: set",
        ),
    ],
)
def test_a_bad_row_is_not_written(row: dict[str, Any], line: str, tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.parquet"):
        with pytest.raises(RolloutError) as raised:
            write_rollouts(tmp_path / name, [{"group": 1, "length": 1}, row])
        assert str(raised.value) == line
    assert not list(tmp_path.iterdir())


def test_no_rows_make_no_parquet_file(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "out.jsonl", [])
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    with pytest.raises(FileError) as raised:
        write_rollouts(tmp_path / "out.parquet", [])
    line = f"{tmp_path / 'out.parquet'}: a Parquet file needs at least one row"
    assert str(raised.value) == line
    assert not (tmp_path / "out.parquet").exists()


def test_an_integer_of_any_length_is_written_as_it_is(tmp_path: Path) -> None:
    row = {"group": 1, "length": 1, "x": [2**64, {"y": -(10**40)}]}
    write_rollouts(tmp_path / "out.jsonl", [row])
    text = (tmp_path / "out.jsonl").read_text()
    assert f'"x":[{2**64},{{"y":{-(10**40)}}}]' in text
