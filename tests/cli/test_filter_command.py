"""`stepcredit filter`: what it keeps, drops, counts and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run


def row(group: object, outcome: float | None, *scores: float, **more: Any) -> dict[str, Any]:
    steps = {"step_ends": list(range(len(scores))), "step_scores": list(scores)}
    known = {} if outcome is None else {"outcome": outcome}
    return {"group": group, **known, **(steps if scores else {"length": 1}), **more}


ROWS = [
    row("a", 1.0, 0.9, 0.7, id=0),
    row("b", None, 0.5, id=1),
    row("a", 1.0, 0.2, id=2),
    row("a", 0.0, 0.1, id=3),
    row("a", 0.0, 0.6, 0.8, id=4),
    row("b", None, 0.25, id=5),
    row("a", 1.0, id=6),
    row("c", 1.0, 0.5, 0.5, id=7),
    row("c", 1.0, 0.75, id=8),
    row("c", 1.0, 0.25, id=9),
    row("d", 0.0, 0.5, id=10),
]
KEPT = [0, 1, 3, 5, 7, 8, 10]
COUNTS = """\
kept     7 of 11 rollouts; 4 groups, 2 of them cut
right    3 of 6 kept; mean score 0.683 kept, 0.225 dropped
wrong    2 of 3 kept; mean score 0.300 kept, 0.700 dropped
unknown  2 of 2 kept; mean score 0.375 kept
all right or all wrong, cut by their scores alone: 1 group
kept whole, because no outcome is known: 1 group
rollouts without scores, which count as the least consistent: 1
"""


def write(path: Path, rows: list[dict[str, Any]]) -> bytes:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(content)
    return content


def ids(path: Path) -> list[int]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def test_what_agrees_is_kept_and_the_rest_goes_to_another_file(run: Run, tmp_path: Path) -> None:
    content = write(tmp_path / "in.jsonl", ROWS)
    ended = run("filter", "in.jsonl", "--keep", "2", "-o", "out.jsonl", "--dropped", "rest.jsonl")
    assert (ended.code, ended.out, ended.err) == (0, "", COUNTS)
    assert ids(tmp_path / "out.jsonl") == KEPT
    assert ids(tmp_path / "rest.jsonl") == [2, 4, 6, 9]
    both = [*(tmp_path / "out.jsonl").open("rb"), *(tmp_path / "rest.jsonl").open("rb")]
    assert sorted(both) == sorted(content.splitlines(keepends=True))
    assert (tmp_path / "in.jsonl").read_bytes() == content


def test_a_dry_run_counts_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    ended = run("filter", "in.jsonl", "--keep", "2", "--dry-run")
    assert (ended.code, ended.out, ended.err) == (0, COUNTS, "")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_where_all_fit_all_are_kept_byte_by_byte(run: Run, tmp_path: Path) -> None:
    content = write(tmp_path / "in.jsonl", ROWS)
    assert run("filter", "in.jsonl", "--keep", "8", "-o", "out.jsonl").code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == content
    ended = run("filter", "-", "--keep", "2", "-o", "-", stdin=content)
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == KEPT
    assert ended.err == COUNTS


def test_other_settings_choose_others(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    chosen = ("--keep", "2", "--step-penalty", "1")
    assert run("filter", "in.jsonl", *chosen, "-o", "out.jsonl").code == 0
    assert ids(tmp_path / "out.jsonl") == [0, 1, 4, 5, 7, 8, 10]
    chosen = ("--keep", "2", "--right-above", "1")
    ended = run("filter", "in.jsonl", *chosen, "--dry-run")
    assert "right" not in ended.out.splitlines()[1]
    drawn = set()
    for seed in range(12):
        chosen = ("--keep", "2", "--rank", "right", "--seed", str(seed))
        assert run("filter", "in.jsonl", *chosen, "-o", "out.jsonl").code == 0
        kept = ids(tmp_path / "out.jsonl")
        assert kept[0] == 0
        drawn |= {*kept} & {3, 4}
    assert drawn == {3, 4}


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl.gz", "out.jsonl"])
def test_files_of_other_kinds(run: Run, tmp_path: Path, name: str) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "in.jsonl", ROWS)
    assert run("filter", "in.jsonl", "--keep", "8", "-o", "in.parquet").code == 0
    for source in ("in.jsonl", "in.parquet"):
        ended = run("filter", source, "--keep", "2", "-o", name)
        assert (ended.code, ended.err) == (0, COUNTS)
        assert run("filter", name, "--keep", "8", "-o", "back.jsonl").code == 0
        assert ids(tmp_path / "back.jsonl") == KEPT
        if (source, name) == ("in.parquet", "out.parquet"):
            both = [pyarrow.read_schema(tmp_path / file) for file in (source, name)]
            assert both[0].equals(both[1], check_metadata=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--keep", "2"], "-o: needed, unless --dry-run is given"),
        (
            ["--keep", "2", "-o", "in.jsonl"],
            "-o: is IN itself: what is dropped would be lost",
        ),
        (
            ["--keep", "2", "-o", "o.jsonl", "--dropped", "./in.jsonl"],
            "--dropped: is IN itself: what is dropped would be lost",
        ),
        (["--keep", "2", "-o", "o.jsonl", "--dropped", "o.jsonl"], "--dropped: is OUT itself"),
        (["--keep", "2", "-o", "o.jsonl", "--dry-run"], "-o: goes without --dry-run"),
        (
            ["--keep", "0", "--dry-run"],
            "--keep: expected a whole number of at least 1, got 0",
        ),
        (
            ["--keep", "2", "--rank", "wrong", "--dry-run"],
            "--rank: expected one of both, right, got 'wrong'",
        ),
        (
            ["--keep", "2", "--stream", "prm", "--dry-run"],
            "in.jsonl:1: prm: no row has its scores",
        ),
        (
            ["--keep", "2", "-o", "no/such/out.jsonl"],
            "no/such/out.jsonl: no such file or directory",
        ),
    ],
)
def test_refusals_are_one_line_and_leave_the_file(
    run: Run, tmp_path: Path, arguments: list[str], line: str
) -> None:
    content = write(tmp_path / "in.jsonl", ROWS)
    ended = run("filter", "in.jsonl", *arguments)
    assert (ended.code, ended.out, ended.err) == (1, "", f"{line}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert (tmp_path / "in.jsonl").read_bytes() == content


def test_a_bad_row_is_named_by_its_line(run: Run, tmp_path: Path) -> None:
    tokens = {"group": "b", "token_scores": [0.5], "outcome": 1.0}
    write(tmp_path / "in.jsonl", [row("a", 1.0, 0.5), tokens, tokens])
    ended = run("filter", "in.jsonl", "--keep", "1", "--step-penalty", "1", "--dry-run")
    reason = "step_ends: missing: a penalty on the number of steps needs it beside token scores"
    assert (ended.code, ended.err) == (1, f"in.jsonl:2: {reason}\n")
    ended = run("filter", "in.jsonl", "--dry-run")
    assert ended.code == 2
    assert "--keep" in ended.err
