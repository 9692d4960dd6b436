"""Traces of verifiers: turns, branches that share messages, rewards, and advantages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, run

from stepcredit.logs.read_log import read_log

__all__ = ["run"]  # a fixture


def node(parent: int | None, ids: list[int], *, sampled: bool = False, **more: Any) -> Any:
    message = {"role": "assistant" if sampled else "user", "content": f"<{ids}>"}
    mask = [False] + [sampled] * (len(ids) - 1)
    fields = {"parent": parent, "message": message, "sampled": sampled}
    return {**fields, "token_ids": ids, "mask": mask, **more}


def trace(name: str, score: float | None, *nodes: Any, **more: Any) -> dict[str, Any]:
    rewards = {"right": {"score": score, "weight": 2.0}}
    task = {"type": "T", "data": {"prompt": "ask"}, "key": "k"}
    return {"id": name, "task": task, "nodes": list(nodes), "rewards": rewards, **more}


LINEAR = (
    node(None, [1, 2]),
    node(0, [3, 4, 5], sampled=True, advantages=[0.5, 0.25]),
    node(1, [6, 7]),
    node(2, [8, 9], sampled=True),
    node(3, [10, 11]),
)
FORKED = (
    node(None, [1, 2]),
    node(0, [3, 4], sampled=True),
    node(1, [5, 6], sampled=True),
    node(1, [7, 8], sampled=True),
)


def rows_of(folder: Path, *traces: dict[str, Any]) -> list[dict[str, Any]]:
    path = folder / "traces.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in traces))
    return list(read_log(path))


def test_turns_are_steps_and_advantages_stand_on_sampled_tokens(tmp_path: Path) -> None:
    row, other = rows_of(tmp_path, trace("a", 0.5, *LINEAR), trace("b", 0.0, *LINEAR[:2]))
    assert row["token_ids"] == [3, 4, 5, 6, 7, 8, 9]  # without the message behind the last turn
    assert row["loss_mask"] == [0, 1, 1, 0, 0, 0, 1]
    assert row["step_ends"] == [2, 6]
    assert row["advantages"] == [0.0, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]
    assert (row["outcome"], other["outcome"]) == (1.0, 0.0)
    assert row["group"] == other["group"]
    assert "trajectory" not in row


def test_branches_are_parts_and_a_shared_turn_is_trained_once(tmp_path: Path) -> None:
    first, second, _ = rows_of(tmp_path, trace("a", 1.0, *FORKED), trace("b", 0.0, *LINEAR[:2]))
    assert (first["trajectory"], second["trajectory"]) == ("a", "a")
    assert first["token_ids"] == [3, 4, 5, 6]
    assert first["loss_mask"] == [0, 1, 0, 1]
    assert second["token_ids"] == [3, 4, 7, 8]
    assert second["loss_mask"] == [0, 0, 0, 1]
    assert (first["step_ends"], second["step_ends"]) == ([1, 3], [3])
    assert "advantages" not in first


def test_an_attempt_at_a_compaction_that_was_dropped_is_no_branch(tmp_path: Path) -> None:
    attempt = {"semantic_parents": [{"node": 1, "type": "compaction_attempt"}]}
    nodes = (*FORKED[:3], node(1, [7, 8], sampled=True, **attempt))
    [row] = rows_of(tmp_path, trace("a", 1.0, *nodes))
    assert row["token_ids"] == [3, 4, 5, 6]
    taken = {"semantic_parents": [{"node": 3, "type": "compaction"}]}
    accepted = (*nodes, node(None, [20, 21], **taken), node(4, [22, 23], sampled=True))
    assert len(rows_of(tmp_path, trace("a", 1.0, *accepted))) == 3


def test_without_token_ids_words_are_the_tokens(tmp_path: Path) -> None:
    bare = [{**each, "token_ids": [], "mask": []} for each in LINEAR[:4]]
    [row] = rows_of(tmp_path, trace("a", 1.0, *bare))
    assert row["text"] == "<[3, 4, 5]><[6, 7]><[8, 9]>"
    assert "token_ids" not in row
    assert 0 in row["loss_mask"]


def test_what_is_not_scored_or_not_trained_is_said(run: Run, tmp_path: Path) -> None:
    traces = [
        trace("a", None, *LINEAR),
        trace("b", 1.0, *LINEAR, agent={"trainable": False}),
        trace("c", None, *LINEAR),
    ]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(each) + "\n" for each in traces))
    ended = run("convert", "traces.jsonl", "-o", "out.jsonl")
    assert ended.code == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row.get("outcome") for row in rows] == [None, None]
    assert "1 response of an agent that is not trained: left out" in ended.err
    assert "unknown reward" in ended.err


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"mask": [True]}, "nodes[1].mask: 1 values, but the message has 3 tokens"),
        ({"advantages": [1.0]}, "nodes[1].advantages: 1 values, but 2 tokens are sampled"),
        ({"parent": 4}, "nodes[1].parent: expected an earlier message, got 4"),
    ],
)
def test_lists_that_do_not_fit_are_refused_by_place(
    run: Run, tmp_path: Path, changed: dict[str, Any], line: str
) -> None:
    bad = trace("a", 1.0, LINEAR[0], {**LINEAR[1], **changed})
    (tmp_path / "traces.jsonl").write_text(json.dumps(bad) + "\n")
    ended = run("convert", "traces.jsonl", "-o", "out.jsonl")
    assert ended.code == 1
    assert f"traces.jsonl:1: {line}" in ended.err
