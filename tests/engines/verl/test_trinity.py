"""The Trinity-RFT example, through Trinity's own registry, experiences and pipeline wrapper."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

import stepcredit as sc

pytest.importorskip("trinity", reason="trinity-rft is not installed: its example is not tested")

from trinity.algorithm.advantage_fn import ADVANTAGE_FN
from trinity.buffer.operators.experience_operator import ensure_v1_operator
from trinity.common.experience import EID, Experience, gather_response_attrs

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the example as Trinity's explorer does: by its dotted path, from the config's args."""
    monkeypatch.syspath_prepend(EXAMPLES)
    kind = ADVANTAGE_FN.get("trinity_advantage.StepCreditAdvantage")
    assert kind.compute_in_trainer() is False
    return lambda **args: ensure_v1_operator(kind(**(args or kind.default_args())))


def experience(task: int, length: int, reward: float, **given: Any) -> Experience:
    given = {"logprobs": [-1.0] * length, **given}
    tokens = list(range(2 + length))
    return Experience(
        eid=EID(batch=0, task=task), tokens=tokens, prompt_length=2, reward=reward, **given
    )


def run(operator: Any, experiences: list[Experience]) -> tuple[list[Experience], dict[str, float]]:
    """Through the bytes that the explorer hands to its pipeline."""
    arrived = Experience.deserialize_many(Experience.serialize_many(experiences))
    shaped, metrics = asyncio.run(operator.process(arrived))
    return shaped, metrics


def test_ragged_groups_get_the_cores_advantages_in_their_order(operator: Any) -> None:
    rows = [
        experience(0, 4, 1.0, info={"step_ends": [1, 3], "step_scores": [0.9, 0.2]}),
        experience(1, 2, 0.0, info={"step_ends": [1], "step_scores": [0.5]}),
        experience(0, 6, 0.0, info={"step_ends": [0, 2, 5], "step_scores": [0.1, 0.8, 0.3]}),
        experience(1, 3, 1.0, info={"step_ends": [0, 2], "step_scores": [0.7, 0.6]}),
    ]
    shaped, metrics = run(operator(), rows)
    rollouts = sc.Rollouts(
        group=[0, 1, 0, 1],
        process=sc.Steps(
            ends=[[1, 3], [1], [0, 2, 5], [0, 2]],
            scores=[[0.9, 0.2], [0.5], [0.1, 0.8, 0.3], [0.7, 0.6]],
        ),
        outcome=[1.0, 0.0, 0.0, 1.0],
    )
    for exp, want in zip(shaped, sc.PASS()(rollouts).ragged(), strict=True):
        torch.testing.assert_close(exp.advantages, want)
        assert exp.returns.equal(exp.advantages)
    assert gather_response_attrs(shaped, "advantages", 6).shape == (4, 6)
    assert metrics["stepcredit/steps"] == 2.0


def test_tools_output_is_no_step_and_gets_nothing(operator: Any) -> None:
    """A turn, a tool's answer, a turn: ends count all tokens."""
    info = {"step_ends": [1, 3, 4], "step_scores": [0.9, 0.5, 0.2]}
    rows = [
        experience(0, 5, 1.0, info=info, action_mask=[1, 1, 0, 0, 1]),
        experience(0, 3, 0.0, info={"step_ends": [2], "step_scores": [0.4]}),
    ]
    shaped, _ = run(operator(method="pass", fields={"k": 1.0}), rows)
    rollouts = sc.Rollouts(
        group=[0, 0],
        process=sc.Steps(ends=[[1, 2], [2]], scores=[[0.9, 0.2], [0.4]]),
        outcome=[1.0, 0.0],
    )
    first, second = sc.PASS(k=1.0)(rollouts).ragged()
    torch.testing.assert_close(shaped[0].advantages[[0, 1, 4]], first)
    assert shaped[0].advantages[2:4].tolist() == [0.0, 0.0]
    torch.testing.assert_close(shaped[1].advantages, second)


def test_teacher_and_sampled_logprobs_feed_distillation(operator: Any) -> None:
    rows = [
        experience(0, 2, 0.0, logprobs=[-1.0, -2.0], teacher_logprobs=[-0.5, -3.0]),
        experience(0, 3, 0.0, logprobs=[-1.0, -1.0, -1.0], teacher_logprobs=[-1.0, 0.0, -4.0]),
    ]
    shaped, _ = run(operator(method="opd"), rows)
    assert [exp.advantages.tolist() for exp in shaped] == [[0.5, -1.0], [0.0, 1.0, -3.0]]


def test_format_gate_and_token_scores(operator: Any) -> None:
    rows = [
        experience(0, 3, 1.0, token_level_reward=[0.1, 0.4, 0.2], info={"format": 1.0}),
        experience(
            0, 2, 1.0, token_level_reward=[0.35, 0.0], info={"format": 0.0, "format_ok": False}
        ),
    ]
    shaped, metrics = run(operator(), rows)
    assert metrics["stepcredit/format_gated_share"] == 0.5
    gated = shaped[1].advantages
    assert gated[0] < 0
    assert gated[0] != shaped[0].advantages[0]
    rollouts = sc.Rollouts(
        group=[0, 0],
        process=sc.Tokens([[0.1, 0.4, 0.2], [0.35, 0.0]]),
        outcome=[1.0, 1.0],
        format=[1.0, 0.0],
        format_ok=[True, False],
    )
    for exp, want in zip(shaped, sc.PASS()(rollouts).ragged(), strict=True):
        torch.testing.assert_close(exp.advantages, want)


def test_a_prompt_that_was_cut_off_gets_zeros(operator: Any) -> None:
    rows = [
        experience(0, 4, 1.0, truncate_status="prompt_truncated"),
        experience(0, 2, 0.0),
        experience(0, 3, 1.0),
    ]
    shaped, _ = run(operator(method="grpo"), rows)
    assert shaped[0].advantages.tolist() == [0.0] * 4
    assert shaped[1].advantages.lt(0).all()


def test_scores_that_are_no_step_each_are_refused(operator: Any) -> None:
    rows = [experience(0, 4, 1.0, info={"step_ends": [3], "step_scores": [0.9, 0.2]})]
    with pytest.raises(ValueError, match=r"^0/0/0/0/\w+: 2 step scores, 1 step ends$"):
        run(operator(), rows)


def test_no_experiences_stay_none(operator: Any) -> None:
    assert run(operator(), []) == ([], {})
