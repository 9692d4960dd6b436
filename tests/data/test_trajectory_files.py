"""`trajectory` in files: rows that are parts of one response, next to each other or apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import stepcredit as sc
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.errors import RowError

Row = dict[str, Any]
ROWS: list[Row] = [
    {"group": "q", "trajectory": "a", "step_ends": [0, 2], "step_scores": [0.5, 1.0]},
    {"group": "p", "length": 2, "outcome": 1.0, "trajectory": "a"},
    {"group": "q", "step_ends": [1], "step_scores": [0.25], "outcome": 0.0},
    {"group": "q", "trajectory": "a", "step_ends": [1], "step_scores": [0.75], "outcome": 1.0},
    {"group": "p", "length": 1, "outcome": 0.0, "trajectory": 7, "format_ok": True},
    {"group": "p", "length": 1, "trajectory": "7", "loss_mask": [0, 1, 0]},
]


def written(tmp_path: Path, rows: list[Row], name: str = "in.jsonl") -> Path:
    path = tmp_path / name
    if name.endswith(".parquet"):
        sc.write_rollouts(path, rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shaped(path: Path, method: sc.Estimator) -> list[list[float]]:
    out = path.with_name("out.jsonl")
    with RolloutFile(path) as file:
        file.shape(out, method)
    return [json.loads(line)["advantages"] for line in out.read_text().splitlines()]


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.parquet"])
def test_each_row_gets_its_own_part_by_hand(tmp_path: Path, name: str) -> None:
    """Two groups of two responses each, whose rows stand between each other."""
    rows = [{k: v for k, v in row.items() if v is not None} for row in ROWS]
    path = tmp_path / name
    sc.write_rollouts(path, rows)
    if name == "in.parquet":
        with RolloutFile(path) as file:
            rows_read = [row.trajectory for row in file.rows()]
        assert rows_read == ["a", "a", None, "a", "7", "7"]
        method: sc.Estimator = sc.RLOO()
        with RolloutFile(path) as file:
            file.shape(tmp_path / "out.parquet", method)
        with RolloutFile(tmp_path / "out.parquet") as file:
            got = [row.fields["advantages"] for row in file.rows()]
    else:
        got = shaped(path, sc.RLOO())
    assert got == [[1.0] * 3, [1.0] * 2, [-1.0] * 2, [1.0] * 2, [-1.0], [0.0, -1.0, 0.0]]


def test_a_file_gives_what_tensors_give(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row["group"] == "q"]
    got = shaped(written(tmp_path, rows), sc.PASS())
    steps = sc.Steps([[0, 2], [1], [1]], [[0.5, 1.0], [0.25], [0.75]])
    rollouts = sc.Rollouts(
        ["q"] * 3, process=steps, outcome=[None, 0, 1], trajectory=["a", None, "a"]
    )
    for mine, want in zip(got, sc.PASS()(rollouts).ragged(), strict=True):
        assert torch.equal(torch.tensor(mine), want)


def refused(tmp_path: Path, *rows: Row) -> str:
    path = written(tmp_path, [{"group": "q", "trajectory": "t", **row} for row in rows])
    with RolloutFile(path) as file, pytest.raises(RowError) as caught:
        file.fold(int, lambda count, batch: count + len(batch.rows))
    return str(caught.value).removeprefix(str(path))


def test_parts_that_disagree_are_refused_by_line(tmp_path: Path) -> None:
    one = {"length": 1}
    assert refused(tmp_path, one, one | {"outcome": 1.0}, one | {"outcome": 0.0}) == (
        ":3: outcome: is 0.0, but line 2 of its trajectory has 1.0"
    )
    assert refused(tmp_path, one | {"format": 1.0}, one | {"format": 0.5}) == (
        ":2: format: is 0.5, but line 1 of its trajectory has 1.0"
    )
    gated = one | {"format_ok": False, "format": 0.0}
    assert refused(tmp_path, gated, one | {"format_ok": True}) == (
        ":2: format_ok: is true, but line 1 of its trajectory has false"
    )


def test_parts_that_lack_a_stream_are_refused_by_line(tmp_path: Path) -> None:
    scored = {"step_ends": [0], "step_scores": [0.5]}
    assert refused(tmp_path, {"length": 1}, scored) == (
        ":1: step_scores: missing, but line 2 of its trajectory has it"
    )
    judged = {"length": 1, "signals": {"judge": {"scores": [0.5]}}}
    assert refused(tmp_path, judged, {"length": 1}) == (
        ":2: signals.judge: missing, but line 1 of its trajectory has it"
    )
    assert refused(tmp_path, {"length": 1, "teacher_logprobs": [-1.0]}, {"length": 1}) == (
        ":2: teacher_logprobs: missing, but line 1 of its trajectory has it"
    )
    assert refused(tmp_path, scored, {"token_scores": [0.5]}) == (
        ":2: step_scores: missing, but line 1 of its trajectory has it"
    )


def test_other_bad_values_are_refused_by_line(tmp_path: Path) -> None:
    assert refused(tmp_path, {"length": 1, "trajectory": 1.5}) == (
        ":1: trajectory: expected a string or an integer, got 1.5"
    )
    assert refused(tmp_path, {"length": 1}, {"loss_mask": [0, 0]}) == (
        ":2: loss_mask: a response needs at least one trained token"
    )
    apart = [{"length": 1, "outcome": 1.0}, {"length": 1, "trajectory": None}]
    assert refused(tmp_path, *apart) == ":2: outcome: unknown, but known for others of its group"


def test_a_part_without_format_ok_takes_the_trajectorys(tmp_path: Path) -> None:
    row = {"group": "q", "trajectory": 1, "length": 1}
    broken = row | {"format_ok": False, "format": 0.0}
    other = {"group": "q", "length": 1, "format": 1.0}
    with RolloutFile(written(tmp_path, [row, broken, other])) as file:
        found = file.fold(list, lambda rows, batch: rows + batch.rows)
        assert [row.format_ok for row in found] == [False, False, True]
        assert file.warnings() == []


def test_a_group_of_one_trajectory_has_one_response(tmp_path: Path) -> None:
    rows = [{"group": "q", "trajectory": 1, "length": 1, "outcome": 1.0}] * 2
    with RolloutFile(written(tmp_path, rows)) as file:
        file.fold(int, lambda count, batch: count + 1)
        assert "every group has one response" in file.group_warnings()[0]


def test_what_a_method_lacks_names_the_line_of_the_first_part(tmp_path: Path) -> None:
    rows = [{"group": "a", "length": 1, "outcome": 1.0}]
    rows += [{"group": "b", "trajectory": 1, "length": 1}] * 2
    path = written(tmp_path, rows)
    with RolloutFile(path) as file, pytest.raises(RowError) as caught:
        file.shape(tmp_path / "out.jsonl", sc.GRPO())
    assert str(caught.value) == f"{path}:2: outcome: missing: grpo needs it"
