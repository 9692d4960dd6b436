"""The outputs of one session are credited as one trajectory."""

from __future__ import annotations

import pytest
import torch

import stepcredit as sc
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.errors import EngineError, RolloutError
from stepcredit.lab.arithmetic import build_tokenizer

TOKENIZER = build_tokenizer()  # one character a token
SAID = ["1+1=2\n", "2+2=5\n", "3+3=6\n2+1=3\n", "1+2=4\n", "9+9=1\n"]
KEYS = ["u_0_1", "u_1_0", "u_0_0", "u_2_0", "u_2_1"]  # the rows of session 0 in another order
OUTCOMES = [1.0, 0.0, 1.0, 0.5, 0.5]


def queued(outcomes=OUTCOMES, **columns):
    ids = [torch.tensor(TOKENIZER.encode(text, add_special_tokens=False)) for text in SAID]
    rewards = [
        torch.cat([torch.zeros(len(row) - 1), torch.tensor([outcome])])
        for row, outcome in zip(ids, outcomes, strict=True)
    ]
    masks = [torch.ones(len(row), dtype=torch.int64) for row in ids]
    masks[4][:] = 0  # the last output of session 2 trains nothing
    fields = {
        "uid": ["u"] * len(SAID),
        "responses": ids,
        "prompts": [torch.tensor([3, 4])] * len(SAID),
        "response_mask": masks,
        "rm_scores": rewards,
        **columns,
    }
    return QueuedBatch.of(fields, KEYS, [{}] * len(KEYS))


def credit_of(batch, **given):
    settings = VerlSettings.of({"algorithm": {"stepcredit": {"splitter": "newline", **given}}})
    return BatchCredit(batch, settings, TOKENIZER)


def test_a_session_counts_once_by_hand():
    """RLOO over three sessions: 1 - (0 + 0.5) / 2, 0 - 1.5 / 2 and 0.5 - 1 / 2."""
    rows = credit_of(queued(), method="rloo").rows()
    assert [sorted(set(row.tolist())) for row in rows] == [[0.75], [-0.75], [0.75], [0.0], [0.0]]
    assert [len(row) for row in rows] == [len(text) for text in SAID]


@pytest.mark.parametrize("method", ["pass", "pure", "turn-return"])
def test_steps_go_on_in_the_next_output(method):
    credit = credit_of(queued(), method=method, process_signal="equations")
    scores = credit.rollouts.streams["process"]
    assert scores.counts.tolist() == [2, 1, 1, 1]  # session 0 in the order of its outputs
    whole = sc.Rollouts(
        ["u"] * 3,
        process=sc.Steps([[5, 11, 17], [5], [5]], scores.values.split([3, 1, 1])),
        outcome=[1.0, 0.0, 0.5],
    )
    first, second, third = sc.estimator(method)(whole).ragged()
    assert first.abs().max() > 0
    for row, want in zip(credit.rows(), [first[12:], second, first[:12], third], strict=False):
        torch.testing.assert_close(row, want)


def test_metrics_describe_sessions():
    credit = credit_of(queued(), process_signal="equations")
    found = credit.metrics()
    assert found["stepcredit/length"] == (18 + 6 + 6) / 3
    assert found["stepcredit/steps"] == (3 + 1 + 1) / 3
    assert found["stepcredit/right_share"] == 2 / 3


def test_outputs_with_other_rewards_are_refused_by_key():
    credit = credit_of(queued(outcomes=[0.0, 0.0, 1.0, 0.5, 0.5]), method="rloo")
    with pytest.raises(RolloutError) as caught:
        credit.rows()
    line = "response u_0_1: outcome: is 0.0, but row 0 of its trajectory has 1.0"
    assert str(caught.value) == line


def test_what_only_the_last_output_has_is_refused():
    scores = {"step_ends": [5], "step_scores": [1.0]}
    extras = [{"reward_extra_info": scores} for _ in SAID]
    with pytest.raises(EngineError) as caught:
        credit_of(queued(extra_fields=extras)).rows()
    reason = "the reward function scores only the last of a session's outputs: expected a signal of"
    assert str(caught.value) == f"stream 'process': {reason} algorithm.stepcredit.process_signal"
    teacher = queued(teacher_logprobs=[torch.zeros(2 + len(text), 1) for text in SAID])
    with pytest.raises(EngineError, match="only about the last of a session's outputs"):
        teacher.logprobs("teacher")
