"""`stepcredit states`: what it writes, what GiGPO makes of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, read, write

CALL = '<tool_call>{"name": "look", "arguments": {"at": "%s"}}</tool_call>'


def agent(at: list[str], outcome: float) -> dict[str, Any]:
    """An agent that looks at things; each call, each answer and the end is one token."""
    tokens, mask = [], []
    for thing in at:
        tokens += [CALL % thing, f"[{thing}]"]
        mask += [1, 0]
    tokens.append("Done.")
    text = "".join(tokens)
    mask.append(1)
    return {"group": 1, "text": text, "tokens": tokens, "loss_mask": mask, "outcome": outcome}


ROWS = [agent(["door", "key"], 1.0), agent(["door", "wall"], 0.0), agent(["wall"], 0.0)]


def test_states_are_written_and_gigpo_reads_them(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    ended = run("states", "in.jsonl", "-o", "out.jsonl", "--split", "turns")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    rows = read(tmp_path / "out.jsonl")
    assert [{k: v for k, v in row.items() if k in ROWS[0]} for row in rows] == ROWS
    states = [row["step_states"] for row in rows]
    door, key, wall = (states[0][1], states[0][3], states[1][3])
    assert door.startswith("look:")
    assert len({"start", door, key, wall}) == 4
    assert states == [
        ["start", door, door, key, key],
        ["start", door, door, wall, wall],
        ["start", wall, wall],
    ]
    assert [row["step_ends"] for row in rows] == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2]]
    ended = run("shape", "out.jsonl", "-o", "shaped.jsonl", "--method", "gigpo")
    assert ended.code == 0, ended.err
    credit = [row["advantages"] for row in read(tmp_path / "shaped.jsonl")]
    assert all(own[1] == 0.0 for own in credit)
    assert credit[0][2] > credit[1][2]


def test_a_function_of_ones_own_and_several_keys(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "house.py").write_text("def rooms(r): return [len(t) for t in r.step_texts]\n")
    given = ("states", "in.jsonl", "-o", "out.jsonl", "--split", "turns")
    assert run(*given, "--from", "house:rooms").code == 0
    assert read(tmp_path / "out.jsonl")[2]["step_states"] == [str(len(CALL % "wall")), "6", "5"]
    ended = run("states", "out.jsonl", "-o", "out.jsonl", "--last", "2", "--last", "1")
    assert (ended.code, ended.err) == (
        1,
        "out.jsonl:1: step_states: is there already: --replace it (and 2 more faults)\n",
    )
    again = ("states", "out.jsonl", "-o", "out.jsonl", "--last", "2", "--last", "1", "--replace")
    assert run(*again).code == 0
    states = read(tmp_path / "out.jsonl")[0]["step_states"]
    assert states[0] == ["start", "start"]
    assert states[3][0] != states[3][1]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ["--from", "unfit:short"],
            "in.jsonl:1: step_states: 1 state, but 5 steps (and 2 more faults)",
        ),
        (["--from", "unfit:fails"], "in.jsonl:1: states: ZeroDivisionError: division by zero"),
        (["--from", "calls"], "--from: expected tool-calls, or a function, or MODULE:FUNCTION, "),
        (["--last", "0"], "--last: expected a whole number of at least 1, or several that fall, "),
        (["--tag", "<a>"], "--tag: expected names of tags, such as tool_call, got ('<a>',)"),
    ],
)
def test_what_does_not_fit_is_one_line(
    run: Run, tmp_path: Path, flags: list[str], line: str
) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "unfit.py").write_text("def short(r): return [1]\ndef fails(r): return 1 / 0\n")
    ended = run("states", "in.jsonl", "-o", "out.jsonl", "--split", "turns", *flags)
    assert ended.code == 1
    assert ended.err.startswith(line)
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_other_steps_than_the_rows_are_refused(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{**ROWS[2], "step_ends": [1, 2]}])
    ended = run("states", "in.jsonl", "-o", "out.jsonl", "--split", "turns")
    line = "in.jsonl:1: step_ends: are [1, 2], but by --split [0, 1, 2]: leave --split out\n"
    assert (ended.code, ended.err) == (1, line)
    assert run("states", "in.jsonl", "-o", "out.jsonl").code == 0
    assert len(json.loads((tmp_path / "out.jsonl").read_text())["step_states"]) == 2
