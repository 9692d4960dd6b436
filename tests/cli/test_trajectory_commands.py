"""The commands take the rows of one trajectory as one response, next to each other or apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run

Row = dict[str, Any]


def row(name: str | None, outcome: float | None, *scores: float) -> Row:
    """One step per token."""
    steps = {"step_ends": list(range(len(scores))), "step_scores": list(scores)}
    known = {} if outcome is None else {"outcome": outcome}
    return {"group": "q", **({} if name is None else {"trajectory": name}), **known, **steps}


ROWS = [
    row("a", None, 0.9),  # a: right, mean 0.5
    row("b", 1.0, 0.6, 0.8),  # right, mean 0.7
    row("a", 1.0, 0.1, 0.5),
    row(None, 0.0, 0.4),
    row("c", 0.0, 0.1),  # c: wrong, mean 0.2
    row("c", None, 0.3),
]


@pytest.fixture(autouse=True)
def a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shape_gives_each_row_its_part(run: Run, tmp_path: Path) -> None:
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", "--method", "rloo")
    assert (ended.code, ended.err) == (0, "")
    found = [written["advantages"] for written in read(tmp_path / "out.jsonl")]
    high, low = pytest.approx(2 / 3), pytest.approx(-2 / 3)
    assert found == [[high], [high] * 2, [high] * 2, [low], [low], [low]]


def test_shape_whitens_a_whole_file_with_a_trajectory_once(run: Run, tmp_path: Path) -> None:
    """GDPO: group z-scores of 1, 1, 0, 0, then the same over the batch's four responses."""
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", "--method", "gdpo", "--set", "eps=0")
    assert (ended.code, ended.err) == (0, "")
    first = [written["advantages"][0] for written in read(tmp_path / "out.jsonl")]
    z = 0.75**0.5
    assert first == pytest.approx([z, z, z, -z, -z, -z], rel=2e-4)


def test_explain_shows_the_chunks_of_each_row(run: Run) -> None:
    ended = run("explain", "in.jsonl", "--group", "q", "--method", "turn-return")
    lines = [line.split() for line in ended.out.splitlines() if "0-0" in line or "1-1" in line]
    assert ended.code == 0
    assert sum("0-0" in line for line in lines) == 6
    assert sum("1-1" in line for line in lines) == 2


def test_filter_keeps_a_trajectory_whole(run: Run, tmp_path: Path) -> None:
    ended = run("filter", "in.jsonl", "--keep", "2", "-o", "out.jsonl", "--dropped", "rest.jsonl")
    assert ended.code == 0
    assert read(tmp_path / "out.jsonl") == [ROWS[1], ROWS[4], ROWS[5]]
    assert read(tmp_path / "rest.jsonl") == [ROWS[0], ROWS[2], ROWS[3]]
    assert ended.err.startswith("kept     2 of 4 rollouts; 1 group, 1 of them cut\n")


def test_validate_counts_trajectories(run: Run) -> None:
    lines = run("validate", "in.jsonl").out.splitlines()
    assert lines[0].split() == ["rollouts", "6", "in", "1", "group"]
    assert lines[1].split() == ["trajectories", "4,", "some", "of", "several", "rollouts"]


def test_audit_counts_trajectories_as_responses(run: Run, tmp_path: Path) -> None:
    ended = run("audit", "in.jsonl", "--json", "report.json")
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"]["responses"] == 4


@pytest.mark.parametrize("command", [["shape", "-o", "out.jsonl"], ["validate"], ["audit"]])
def test_parts_with_other_outcomes_are_refused_in_one_line(
    run: Run, tmp_path: Path, command: list[str]
) -> None:
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write(json.dumps(row("b", 0.0, 0.5)) + "\n")
    ended = run(command[0], "in.jsonl", *command[1:])
    assert ended.code == 1
    line = "in.jsonl:7: outcome: is 0.0, but line 2 of its trajectory has 1.0\n"
    assert ended.err == line
