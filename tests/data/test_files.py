"""Files of rollouts: what is read is what was written, in any order and any container."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import batches, build, examples, random_rows
from tests.reference import trained

import stepcredit as sc
from stepcredit.data.files import batches as batching

Rows = list[dict[str, Any]]
METHODS = (sc.PASS(), sc.PASS(scope="process", match_std=True), sc.PURE(), sc.PASSMin())
CONTAINERS = ("jsonl", "jsonl.gz", "parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def shaped(folder: Path, rows: Rows, method: sc.Estimator) -> list[list[float]]:
    """Advantages of rows by way of a file."""
    sc.write_rollouts(folder / "in.jsonl", rows)
    with sc.RolloutFile(folder / "in.jsonl") as file:
        assert file.shape(folder / "out.jsonl", method) == len(rows)
    out = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "advantages"} for row in out] == rows
    return [row["advantages"] for row in out]


@given(batches(gaps=True), st.sampled_from(METHODS))
@examples(40)
def test_a_file_gives_what_the_estimator_gives(
    folder: Path, rows: Rows, method: sc.Estimator
) -> None:
    expected = [row.tolist() for row in method(build(rows)).ragged()]
    for got, want in zip(shaped(folder, rows, method), expected, strict=True):
        assert got == pytest.approx(want, abs=1e-6)


@given(batches(signals=("steps", "tokens"), max_groups=5), st.integers(0, 2**20))
@examples(25)
def test_interleaved_groups_give_the_same(folder: Path, rows: Rows, seed: int) -> None:
    order = sorted(range(len(rows)), key=lambda i: rows[i]["group"])
    contiguous = shaped(folder, [rows[i] for i in order], sc.PASS())
    in_file = order.copy()
    Random(seed).shuffle(order)
    scattered = shaped(folder, [rows[i] for i in order], sc.PASS())
    by_row = dict(zip(in_file, contiguous, strict=True))
    for i, got in zip(order, scattered, strict=True):
        assert got == pytest.approx(by_row[i], abs=1e-6)


def test_small_batches_give_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(Random(5), [3] * 40, "steps", "real")
    expected = shaped(folder, rows, sc.PASS())
    monkeypatch.setattr(batching, "BATCH_ROWS", 4)
    for got, want in zip(shaped(folder, rows, sc.PASS()), expected, strict=True):
        assert got == pytest.approx(want, abs=1e-6)


def test_kinds_of_streams_may_change_from_group_to_group(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MOST_OPEN", 1)
    rng = Random(3)
    signals = [rng.choice(("steps", "tokens", "streams", "none")) for _ in range(60)]
    groups = [random_rows(rng, [3], signal, "real") for signal in signals]
    for label, group in enumerate(groups):
        for row in group:
            row["group"] = label
    expected = [row for group in groups for row in shaped(folder, group, sc.PASS())]
    got = shaped(folder, [row for group in groups for row in group], sc.PASS())
    for mine, alone in zip(got, expected, strict=True):
        assert mine == pytest.approx(alone, abs=1e-6)


@st.composite
def masked_rows(draw: st.DrawFn) -> Rows:
    """Rows whose response holds tokens that are not trained."""
    rows = draw(batches(signals=("steps", "tokens", "streams"), max_groups=2))
    rng = Random(draw(st.integers(0, 2**20)))
    for row in rows:
        mask = [int(rng.random() < 0.6) for _ in range(row["length"])]
        mask[rng.randrange(len(mask))] = 1
        row["loss_mask"], row["length"] = mask, sum(mask)
    return rows


@given(masked_rows())
@examples(40)
def test_holes_are_as_if_they_were_not_there(folder: Path, rows: Rows) -> None:
    plain = [row_of_trained(row) for row in rows]
    expected = shaped(folder, plain, sc.PASS())
    for row, got, want in zip(rows, shaped(folder, rows, sc.PASS()), expected, strict=True):
        kept = [a for a, m in zip(got, row["loss_mask"], strict=True) if m]
        assert kept == want
        assert [a for a, m in zip(got, row["loss_mask"], strict=True) if not m] == [0.0] * (
            len(got) - len(kept)
        )


def row_of_trained(row: dict[str, Any]) -> dict[str, Any]:
    """The row without the tokens that are not trained, by the reference."""
    plain = trained(row)
    out = {k: row[k] for k in ("group", "outcome", "format", "format_ok") if k in row}
    out["length"] = plain.length
    signals = {}
    for name, stream in plain.streams.items():
        key = "advantages" if stream.is_advantage else "scores"
        signals[name] = {key: stream.scores}
        if stream.ends is not None:
            signals[name]["ends"] = stream.ends
    return {**out, "signals": signals}


def test_steps_without_a_trained_token_are_counted(folder: Path) -> None:
    row = {"group": 1, "loss_mask": [1, 0, 1], "step_ends": [0, 1, 2], "step_scores": [1, 2, 3]}
    sc.write_rollouts(folder / "a.jsonl", [row])
    with sc.RolloutFile(folder / "a.jsonl") as file:
        batch = file.fold(lambda: None, lambda _, batch: batch)
        assert file.warnings() == [
            f"{folder}/a.jsonl: 1 steps without a trained token are left out, with their scores"
        ]
    assert batch.rollouts.streams["process"].values.tolist() == [1, 3]
    assert batch.rollouts.streams["process"].ends.tolist() == [0, 1]


def test_other_fields_keep_their_bytes(folder: Path) -> None:
    odd = b'"n": 123456789012345678901234567890, "x":1e400,"y": 1.10, "z":"\\u00e9", "w": NaN }'
    lines = [
        b'  {"group": 1, "length": 2, ' + odd,
        b'{"group": 1, "advantages":[0, 0] , "length": 2, ' + odd + b"\r",
        b'{"\\u0061dvantages": [9,9], "group": 1, "length": 2, ' + odd,
    ]
    (folder / "odd.jsonl").write_bytes(b"\n\n".join(lines))
    with sc.RolloutFile(folder / "odd.jsonl") as file:
        file.shape(folder / "odd.out.jsonl", sc.PASS())
    expected = b'{"group": 1, "length": 2, ' + odd[:-2] + b',"advantages":[0.0,0.0]}'
    first, second, third = (folder / "odd.out.jsonl").read_bytes().splitlines()
    assert first == expected
    assert second == expected.replace(b', "length"', b' , "length"', 1)
    assert third == expected


@pytest.mark.parametrize("container", CONTAINERS)
@given(rows=batches(gaps=True))
@examples(12)
def test_round_trip(container: str, folder: Path, rows: Rows) -> None:
    if container == "parquet":
        pytest.importorskip("pyarrow")
    path = folder / f"round.{container}"
    sc.write_rollouts(path, rows)
    back = list(sc.read_rows(path))
    assert back == [without_nulls(row) if container == "parquet" else row for row in rows]


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """An unknown outcome is an empty cell in Parquet, and read as absent."""
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("source", CONTAINERS)
@pytest.mark.parametrize("output", CONTAINERS)
def test_shape_from_any_container_to_any(folder: Path, source: str, output: str) -> None:
    pytest.importorskip("pyarrow")
    rows = random_rows(Random(1), [3] * 500, "streams", "real")
    sc.write_rollouts(folder / f"in.{source}", rows)
    with sc.RolloutFile(folder / f"in.{source}") as file:
        file.shape(folder / f"to.{output}", sc.PASS())
    expected = shaped(folder, rows, sc.PASS())
    back = list(sc.read_rows(folder / f"to.{output}"))
    assert [row["group"] for row in back] == [row["group"] for row in rows]
    for row, want in zip(back, expected, strict=True):
        assert row["advantages"] == pytest.approx(want, abs=1e-6)


def test_parquet_columns_keep_their_types(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "group": pa.array([3, 3], pa.int16()),
            "advantages": pa.array([[9.0], [9.0]], pa.list_(pa.float64())),
            "token_scores": pa.array([[0.5], [0.25]], pa.list_(pa.float32())),
            "when": pa.array([1, 2], pa.timestamp("us")),
        }
    )
    pq.write_table(table, folder / "typed.parquet")
    with sc.RolloutFile(folder / "typed.parquet") as file:
        file.shape(folder / "typed.parquet", sc.PASS())
    back = pq.read_table(folder / "typed.parquet")
    assert back.drop(["advantages"]).equals(table.drop(["advantages"]))
    assert back.schema.field("advantages").type == pa.list_(pa.float32())
    assert back["advantages"].to_pylist() == [[pytest.approx(0.70710, 1e-4)], [
        pytest.approx(-0.70710, 1e-4)
    ]]  # fmt: skip


def test_parquet_labels_of_both_types_become_strings(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    path = folder / "labels.parquet"
    sc.write_rollouts(path, [{"group": 3, "length": 1}, {"group": "3", "length": 1}])
    assert [row["group"] for row in sc.read_rows(path)] == ["3", "3"]


def test_nan_in_parquet_is_refused(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"group": [1, 1], "length": [1, 1], "outcome": [1.0, float("nan")]})
    pq.write_table(table, folder / "nan.parquet")
    with pytest.raises(sc.data.files.rollout_file.RowError) as caught:
        list(sc.read_rows(folder / "nan.parquet"))
    assert str(caught.value) == f"{folder}/nan.parquet:2: outcome: NaN is not a finite number"


def test_write_takes_tensors_and_writes_float32_shortest(folder: Path) -> None:
    row = {
        "group": 1,
        "token_scores": torch.tensor([0.1, 0.2], dtype=torch.float32),
        "advantages": np.array([0.3, -0.1], dtype=np.float32),
        "student_logprobs": torch.tensor([-0.5, -1.0], dtype=torch.bfloat16),
    }
    sc.write_rollouts(folder / "t.jsonl", [row])
    assert (folder / "t.jsonl").read_text() == (
        '{"group":1,"token_scores":[0.1,0.2],"advantages":[0.3,-0.1],'
        '"student_logprobs":[-0.5,-1.0]}\n'
    )


def test_write_refuses_a_bad_row_and_leaves_the_file(folder: Path) -> None:
    path = folder / "kept.jsonl"
    path.write_text("kept")
    rows = [{"group": 1, "length": 1}, {"group": 1, "length": 1, "outcome": float("nan")}]
    with pytest.raises(ValueError, match=r"^row 1: outcome: NaN is not a finite number$"):
        sc.write_rollouts(path, rows)
    assert path.read_text() == "kept"
    assert [p.name for p in folder.iterdir() if p.name.endswith(".part")] == []


def test_read_rollouts_keeps_the_files_order(folder: Path) -> None:
    rows = [{"group": g, "length": n} for n, g in enumerate("abab", start=1)]
    sc.write_rollouts(folder / "order.jsonl", rows)
    rollouts = sc.read_rollouts(folder / "order.jsonl")
    assert rollouts.lengths.tolist() == [1, 2, 3, 4]
    assert rollouts.group_index.tolist() == [0, 1, 0, 1]


def test_read_rollouts_refuses_two_kinds_of_a_stream(folder: Path) -> None:
    path = folder / "kinds.jsonl"
    steps = {"group": 1, "step_ends": [0], "step_scores": [1]}
    sc.write_rollouts(path, [steps, {"group": 2, "token_scores": [1]}])
    reason = "token_scores: a score per token, but line 1 of the file has a score per step"
    with pytest.raises(ValueError, match=f"^{path}:2: {reason}$"):
        sc.read_rollouts(path)


def test_read_rollouts_warns_of_a_mute_gate(folder: Path) -> None:
    sc.write_rollouts(folder / "m.jsonl", [{"group": 1, "length": 1, "format_ok": False}])
    with pytest.warns(UserWarning, match=r"m.jsonl:1: format_ok: false, but there is no format$"):
        sc.read_rollouts(folder / "m.jsonl")


def test_an_estimator_that_gives_nan_is_told_by_line(folder: Path) -> None:
    def broken(rollouts: sc.Rollouts) -> sc.Advantages:
        good = sc.PASS()(rollouts)
        values = good.packed().clone()
        values[2] = float("nan")
        return sc.Advantages(values, None, rollouts.lengths, rollouts.lengths)

    path = folder / "n.jsonl"
    sc.write_rollouts(path, [{"group": 1, "length": 2}, {"group": 1, "length": 2}])
    with sc.RolloutFile(path) as file:
        expected = f"{path}:2: advantages: the method gives nan, which is not a finite number"
        with pytest.raises(ValueError, match=f"^{expected}$"):
            file.shape(folder / "never.jsonl", broken)
    assert not (folder / "never.jsonl").exists()


def test_a_replaced_output_keeps_its_permissions_and_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.jsonl", tmp_path / "link.jsonl"
    target.touch(mode=0o640)
    link.symlink_to(target)
    sc.write_rollouts(link, [{"group": 1, "length": 1}])
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(sc.read_rows(target)) == [{"group": 1, "length": 1}]


def test_gzip_output_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        sc.write_rollouts(tmp_path / name, [{"group": 1, "length": 1}])
    one, two = ((tmp_path / name).read_bytes() for name in ("a.jsonl.gz", "b.jsonl.gz"))
    assert one == two
    assert gzip.decompress(one) == b'{"group":1,"length":1}\n'


@pytest.mark.parametrize("container", CONTAINERS)
def test_empty_lists_name_streams_that_a_row_has_none_of(container: str, tmp_path: Path) -> None:
    """A stream's place and kind are told by the first row, though it has no score."""
    none = {
        "process": {"scores": [], "ends": []},
        "hops": {"scores": [], "ends": []},
        "judge": {"scores": []},
        "critic": {"advantages": []},
    }
    full = {
        "hops": {"scores": [0.5, 1.0], "ends": [0, 2]},
        "judge": {"scores": [0.25, 0.5, 1.0]},
        "critic": {"advantages": [0.5, 0.0, 1.0]},
    }
    steps = {"step_ends": [1, 2], "step_scores": [1.0, 2.0]}
    rows = [
        {"group": 1, "length": 2, "signals": none},
        {"group": 1, **steps, "signals": {"process": {"scores": []}, **full}},
    ]
    path = tmp_path / f"in.{container}"
    sc.write_rollouts(path, rows)
    streams = sc.read_rollouts(path).streams
    assert list(streams) == ["process", "hops", "judge", "critic"]
    kinds = [sc.Steps, sc.Steps, sc.Tokens, sc.TokenAdvantages]
    assert [type(stream) for stream in streams.values()] == kinds
    assert [s.counts.tolist() for s in streams.values()] == [[0, 2], [0, 2], [0, 3], [0, 3]]
    assert streams["process"].ends.tolist() == [1, 2]
