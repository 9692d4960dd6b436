"""`stepcredit score --signal self-teacher`: what is written, said and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run, read, write
from tests.signals.tiny_models import save

QUESTION = "Tom has 3 apples and buys 4 more. How many?"
TEXTS = [("It is 7.", 1.0), ("It is 8.", 0.0), ("Seven.", 1.0)]


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    policy = save(tmp_path / "policy", seed=4)
    rows = [
        {"group": 1, "prompt": QUESTION, "text": text, "outcome": outcome}
        for text, outcome in TEXTS
    ]
    write(tmp_path / "in.jsonl", [*rows, {**rows[1], "group": 2, "text": "No."}])
    given = ["--signal", "self-teacher", "--tokenizer", policy, "--set", f"student={policy}"]
    return ["score", "in.jsonl", "-o", "out.jsonl", *given, "--set", "context=sibling"]


def test_scores_are_written_and_responses_without_context_are_counted(
    run: Run, tmp_path: Path, flags: list[str]
) -> None:
    ended = run(*flags, "--set", "absent=zero")
    said = "self-teacher: 1 of 4 responses have no context: they score 0\n"
    assert (ended.code, ended.out, ended.err) == (0, "", said)
    rows = read(tmp_path / "out.jsonl")
    assert [row["text"] for row in rows] == ["It is 7.", "It is 8.", "Seven.", "No."]
    assert all(len(row["token_scores"]) == len(row["token_ids"]) for row in rows)
    assert [any(row["token_scores"]) for row in rows] == [True, True, True, False]
    assert all(row["prompt"] == QUESTION and "prompt_ids" not in row for row in rows)


def test_a_sibling_that_does_not_exist_is_one_line(
    run: Run, tmp_path: Path, flags: list[str]
) -> None:
    ended = run(*flags)
    reason = "no other response of the group is right; absent='zero' gives scores of 0"
    assert (ended.code, ended.err) == (1, f"in.jsonl:4: sibling: {reason}\n")
    assert not (tmp_path / "out.jsonl").exists()


def test_siblings_cannot_be_cached(run: Run, flags: list[str]) -> None:
    ended = run(*flags, "--cache", "scores.sqlite")
    line = "--cache: the scores of self-teacher depend on the other responses\n"
    assert (ended.code, ended.err) == (1, line)
