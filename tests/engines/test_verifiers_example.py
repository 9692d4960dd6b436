"""The verifiers example: advantages on the sampled tokens of messages, and none elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.loading import module_of

pytest.importorskip("verifiers.v1.trace", reason="verifiers 0.4 is not installed: not tested")

from verifiers.v1.trace import WireTrace

import stepcredit as sc
from stepcredit.logs.read_log import read_log

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/verifiers_traces.py"


@pytest.fixture(scope="module")
def credit_traces() -> Any:
    return module_of(EXAMPLE).credit_traces


def node(parent: int | None, ids: list[int], sampled: bool, role: str = "user") -> dict[str, Any]:
    """A message; of a sampled one the first token is the template's."""
    mask = [False] + [sampled] * (len(ids) - 1)
    message = {"role": "assistant" if sampled else role, "content": f"text {ids}"}
    logprobs = [-0.5] * sum(mask)
    fields = {"parent": parent, "message": message, "sampled": sampled, "token_ids": ids}
    return {**fields, "mask": mask, "logprobs": logprobs}


def trace(name: str, reward: float, *nodes: dict[str, Any], trainable: bool = True) -> WireTrace:
    return WireTrace.model_validate(
        {
            "id": name,
            "task": {"type": "T", "data": {"prompt": "ask"}, "key": "task 1"},
            "agent": {"config": {"harness": {"id": "none"}}, "trainable": trainable},
            "nodes": list(nodes),
            "rewards": {"right": {"score": reward, "weight": 1.0}},
        }
    )


def two_turns(name: str, reward: float) -> WireTrace:
    """Two turns of 2 and 3 tokens, then a branch from the first question with a turn of 1."""
    return trace(
        name,
        reward,
        node(None, [1, 2], False),
        node(0, [3, 4, 5], True),
        node(1, [6, 7], False, "user"),
        node(2, [8, 9, 10, 11], True),
        node(0, [12, 13], True),
    )


SCORES = {("a", 1): 0.9, ("a", 3): 0.1, ("a", 4): 0.5, ("b", 1): 0.3, ("b", 3): 0.2, ("b", 4): 0.8}


def test_each_turn_has_its_advantages(credit_traces: Any) -> None:
    group = [two_turns("a", 1.0), two_turns("b", 0.0)]
    untrained = trace("c", 5.0, node(None, [1], False), node(0, [2, 3], True), trainable=False)
    method = sc.PASS(k=1.0)
    credit_traces([[*group, untrained]], method, turn_score=lambda t, at: SCORES[t.id, at])
    scores = torch.tensor(list(SCORES.values())).double()
    z = ((scores - scores.mean()) / (scores.std() + 1e-6)).tolist()
    out = 0.5 / (0.5**0.5 + 1e-6)
    for one, own, sign in zip(group, (z[:3], z[3:]), (1, -1), strict=True):
        for at, size, left in ((1, 2, 3), (3, 3, 2), (4, 1, 1)):
            expected = sum(own[3 - left :]) / left + sign * out
            assert one.nodes[at].advantages == pytest.approx([expected] * size, abs=1e-5)
        assert [one.nodes[at].advantages for at in (0, 2)] == [None, None]
    assert all(each.advantages is None for each in untrained.nodes)


def test_a_written_trace_is_read_again(credit_traces: Any, tmp_path: Path) -> None:
    single = [
        trace(name, reward, *(two_turns(name, 0.0).to_record()["nodes"][:4]))
        for name, reward in (("a", 1.0), ("b", 0.0))
    ]
    credit_traces([single], sc.GRPO())
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(each.to_record()) + "\n" for each in single))
    rows = list(read_log(path))
    assert [row["outcome"] for row in rows] == [1.0, 0.0]
    assert rows[0]["token_ids"] == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert rows[0]["loss_mask"] == [0, 1, 1, 0, 0, 0, 1, 1, 1]
    assert rows[0]["step_ends"] == [2, 8]
    high = pytest.approx(0.7071, abs=1e-4)
    assert rows[0]["advantages"] == [0, high, high, 0, 0, 0, high, high, high]
