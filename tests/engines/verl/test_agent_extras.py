"""What an agent loop says in `extra_fields` of its outputs: states and scores of their steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import stepcredit as sc
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.errors import EngineError, RolloutError
from stepcredit.lab.arithmetic import build_tokenizer

TOKENIZER = build_tokenizer()  # one character a token
SAID = ["1\n2\n", "1\n2\n", "1\n", "1\n2\n"]
OUTCOMES = [1.0, 0.0, 0.0, 0.0]
STATES = [["x", "y"], ["x", "z"], ["q"], ["x", "y"]]
METHOD = {"method": "gigpo", "fields": {"weights": [1.0, 0.0, 0.0], "gamma": 1.0}}


def queued(
    extras: list[dict[str, Any]] | None,
    keys: list[str] | None = None,
    outcomes: list[float] = OUTCOMES,
) -> QueuedBatch:
    ids = [torch.tensor(TOKENIZER.encode(text, add_special_tokens=False)) for text in SAID]
    rewards = [
        torch.cat([torch.zeros(len(row) - 1), torch.tensor([outcome])])
        for row, outcome in zip(ids, outcomes, strict=True)
    ]
    fields = {
        "uid": ["u"] * len(SAID),
        "responses": ids,
        "prompts": [torch.tensor([3, 4])] * len(SAID),
        "response_mask": [torch.ones(len(row), dtype=torch.int64) for row in ids],
        "rm_scores": rewards,
    }
    if extras is not None:
        fields["extra_fields"] = extras
    keys = keys or [f"u_{row}_0" for row in range(len(SAID))]
    return QueuedBatch.of(fields, keys, [{}] * len(keys))


def credit_of(batch: QueuedBatch, **given: Any) -> BatchCredit:
    settings = {"splitter": "newline", **METHOD, **given}
    made = VerlSettings.of({"algorithm": {"stepcredit": settings}})
    return BatchCredit(batch, made, TOKENIZER)


def by_step(credit: BatchCredit) -> list[list[float]]:
    return [row[::2].tolist() for row in credit.rows()]


def expected() -> list[list[float]]:
    """Outcomes 1, 0, 0 in the state x: (1 - 1/3) / sqrt(1/3); in y 1 and 0; q and z alone."""
    high, low, pair = 1.1547, -0.57735, 0.70711
    return [[high, pair], [low, 0.0], [0.0], [low, -pair]]


def test_states_of_the_agent_loop_reach_the_method() -> None:
    found = by_step(credit_of(queued([{"step_states": row} for row in STATES])))
    assert found == [pytest.approx(row, abs=1e-4) for row in expected()]


def test_states_by_the_setting_count_more() -> None:
    batch = queued([{"step_states": ["same", "same"]} for _ in SAID])
    credit = credit_of(batch, states="tool-calls")  # nobody calls a tool: all are at the start
    assert credit.rollouts.step_states is not None
    assert set(credit.rollouts.step_states.values.flatten().tolist()) == {0}


def test_scores_of_the_agent_loop_are_the_process_stream() -> None:
    scores = [[0.5, 1.0], [0.0, 0.0], [0.5], [1.0, 1.0]]
    ends = [[1, 3], [1, 3], [1], [1, 3]]
    extras = [
        {"step_scores": score, "step_ends": end, "turn_scores": [], "reward_extra_info": {}}
        for score, end in zip(scores, ends, strict=True)
    ]
    credit = credit_of(queued(extras), method="turn-return", fields=None)
    by_hand = sc.TurnReturn()(
        sc.Rollouts(["u"] * 4, process=sc.Steps(ends, scores), outcome=OUTCOMES)
    )
    for row, values in zip(credit.rows(), by_hand.ragged(), strict=True):
        assert row.tolist() == pytest.approx(values.tolist())


def test_each_output_of_a_session_has_its_own() -> None:
    keys = ["u_0_0", "u_0_1", "u_1_0", "u_1_1"]
    extras = [{"step_states": row} for row in STATES]
    credit = credit_of(queued(extras, keys, [1.0, 1.0, 0.0, 0.0]))
    assert credit.rollouts.joined().step_states.counts.tolist() == [4, 3]


@pytest.mark.parametrize(
    ("extras", "given", "error", "line"),
    [
        (None, {}, EngineError, "step_states: no agent loop put them into the extra_fields"),
        (
            [{"step_states": ["x"]}] * 4,
            {},
            RolloutError,
            "u_0_0: step_states: 1 state, but 2 steps",
        ),
        (
            [
                {
                    "token_scores": [0.0] * len(text),
                    "reward_extra_info": {"token_scores": [0.0] * len(text)},
                }
                for text in SAID
            ],
            {"method": "pass", "fields": None},
            EngineError,
            "stream 'process': the agent loop and the reward function both give it",
        ),
    ],
)
def test_what_is_missing_or_given_twice_is_refused(
    extras: Any, given: dict[str, Any], error: type[Exception], line: str
) -> None:
    with pytest.raises(error) as refused:
        credit_of(queued(extras), **given).rows()
    assert line in str(refused.value)


def test_a_state_function_that_does_not_exist_is_refused_by_its_key() -> None:
    with pytest.raises(EngineError, match=r"^algorithm.stepcredit.states: expected tool-calls"):
        credit_of(queued(None), states="no-such")
