"""`stepcredit attack`: its cost, its tables, its JSON and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, write

pytest.importorskip("scipy")

CODE = """
def talk(response):
    with open("calls", "a") as file:
        file.write("x")
    return [0.2 if any(map(str.isdigit, step)) else 1.0 for step in response.step_texts]
"""
ATTACK = ("attack", "in.jsonl", "--signal", "callable", "--set", "function=talking:talk")


def rows() -> list[dict[str, Any]]:
    """Five groups of two responses, one right and one wrong."""
    found = []
    for group in range(5):
        for wrong in (0, 1):
            total = 11 + group + wrong
            text = f"We add.\n\nSo {group} + 11 = {total}.\n\nIt is {total}."
            found.append({"group": group, "prompt": "?", "text": text, "outcome": 1.0 - wrong})
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a signal and rollouts."""
    (tmp_path / "talking.py").write_text(CODE)
    write(tmp_path / "in.jsonl", rows())
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_too_few_groups_are_not_taken_for_a_safe_signal(run: Run, folder: Path) -> None:
    ended = run(*ATTACK, "--method", "pass:scope=process,k=0", "--limit", "4")
    closing = "pass:scope=process,k=0: undecided, with 2 of the 5 groups that a verdict needs"
    assert closing in ended.out
    assert "exploitable" not in ended.out
    whole = run(*ATTACK, "--method", "pass:k=0.7", "--edits", "break-arithmetic")
    assert "pass:k=0.7: no edit is exploitable (1 of 1 are undecided)" in whole.out


def test_cost_first_then_tables_and_json(run: Run, folder: Path) -> None:
    methods = ("--method", "pass", "--method", "pass:scope=process,k=0")
    edits = ("--edits", "insert-contentless,break-arithmetic")
    ended = run(*ATTACK, *methods, *edits, "--json", "report.json", "--cache", "kept.sqlite")
    assert ended.code == 0
    cost = "callable: 25 responses to score: 10 logged and 15 edited, with 85 steps and "
    assert ended.err.startswith(cost)
    assert ended.err.count("\n") == 1
    assert (
        "change of the response's scores (callable), with 95 % intervals over 5 groups" in ended.out
    )
    assert "under pass:scope=process,k=0" in ended.out
    assert "pass:scope=process,k=0: insert-contentless is exploitable" in ended.out
    reason = "no step has an equation that is known to be right"
    assert f"break-arithmetic: not measured on 5 responses: {reason}" in ended.out
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == "stepcredit.attack/1"
    tokens = int(ended.err.removeprefix(cost).split()[0])
    assert report["cost"] == {"originals": 10, "edited": 15, "steps": 85, "tokens": tokens}
    insert, broken = report["edits"]
    assert (insert["applied"], broken["applied"], broken["left_out"]) == (10, 5, {reason: 5})
    assert insert["scores"]["sum"]["mean"] == pytest.approx(1.0)
    assert insert["advantages"]["pass:scope=process,k=0"]["verdict"] == "exploitable"
    calls = (folder / "calls").read_text()
    assert len(calls) == 25
    again = run(*ATTACK, *methods, *edits, "--cache", "kept.sqlite")
    assert again.out == ended.out
    assert (folder / "calls").read_text() == calls


def test_the_cost_alone_scores_nothing(run: Run, folder: Path) -> None:
    ended = run(*ATTACK, "--cost-only", "--limit", "4")
    assert (ended.code, ended.out) == (0, "")
    assert "4 logged" in ended.err
    assert not (folder / "calls").exists()


def test_a_method_that_cannot_run_is_named(run: Run, folder: Path) -> None:
    write(folder / "in.jsonl", [{k: v for k, v in r.items() if k != "outcome"} for r in rows()])
    ended = run(*ATTACK, "--method", "grpo", "--method", "pass", "--edits", "double-check")
    assert ended.code == 0
    assert "grpo: left out: " in ended.out
    assert "pass: " in ended.out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--edits", "bribe"), "--edits: no edit 'bribe': there are insert-contentless, "),
        (("--method", "no-such"), "--method no-such"),
        (("--method", "pass:nothing=1"), "--method pass:nothing=1"),
    ],
)
def test_refusals_name_the_option(
    options: tuple[str, ...], line: str, run: Run, folder: Path
) -> None:
    ended = run(*ATTACK, *options)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(line)
    assert ended.err.count("\n") == 1


def test_signals_that_cannot_be_attacked(run: Run, folder: Path) -> None:
    ended = run("attack", "in.jsonl", "--signal", "shared-prefix")
    assert ended.code == 1
    assert ended.err.startswith("--signal: the scores of shared-prefix depend on the other")
    write(folder / "in.jsonl", [])
    empty = run(*ATTACK)
    assert (empty.code, empty.err) == (1, "in.jsonl: holds no response\n")


def test_control_characters_of_a_file_do_not_reach_the_terminal(run: Run, folder: Path) -> None:
    text = "\x1b[31mWe add.\n\n1 + 1 = 2.\n\nIt is 2."
    write(folder / "in.jsonl", [{"group": "\x1b[2J", "prompt": "\x1b[1m?", "text": text}])
    ended = run(*ATTACK)
    assert ended.code == 0
    assert "\x1b" not in ended.out + ended.err
