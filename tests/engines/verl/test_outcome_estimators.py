"""Outcome-only methods under verl's `register_adv_est`, against the core."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import numpy as np
import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

import stepcredit as sc
from stepcredit.credit.method_registry import METHODS
from stepcredit.engines.verl.outcome_estimators import outcome_methods
from stepcredit.errors import EngineError, StepCreditError

UIDS = np.array(["b", "a", "b", "a", "a", "b", "pad"], dtype=object)
MASK = torch.tensor(
    [[1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0] * 4]
)
OUTCOME_METHODS = ["dr-grpo", "gdpo", "grpo", "reinforce-plus-plus", "rloo"]
OUTCOMES = [1.0, 0.0, 0.25, 0.75, 0.0, 0.0]


def advantages_of(name, config=None):
    """As verl's trainers ask for them: the reward on a token that a tool may have written."""
    rewards = torch.zeros(MASK.shape)
    rewards[: len(OUTCOMES), -1] = torch.tensor(OUTCOMES)
    data = DataProto.from_dict(
        {"token_level_rewards": rewards, "response_mask": MASK}, {"uid": UIDS}
    )
    algorithm = OmegaConf.create(config or {})
    return compute_advantage(data, adv_estimator=name, config=algorithm).batch


@pytest.mark.parametrize("method", ["grpo", "dr-grpo", "rloo", "reinforce-plus-plus", "gdpo"])
def test_they_are_the_cores_and_padding_is_no_member(method):
    found = advantages_of(f"stepcredit-{method}")
    rollouts = sc.Rollouts.from_padded(MASK[:-1], UIDS[:-1].tolist(), outcome=OUTCOMES)
    expected = sc.estimator(method)(rollouts).padded(MASK[:-1])
    assert expected.abs().max() > 0
    torch.testing.assert_close(found["advantages"][:-1], expected, rtol=0, atol=0)
    assert torch.equal(found["advantages"][-1], torch.zeros(4))
    assert torch.equal(found["returns"], found["advantages"])


def test_reinforce_plus_plus_is_verls_own_with_a_group_baseline():
    ours = advantages_of("stepcredit-reinforce-plus-plus")["advantages"]
    theirs = advantages_of("reinforce_plus_plus_baseline")["advantages"]
    assert ours.abs().max() > 1
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_fields_under_which_a_method_reads_more_than_outcomes_are_refused():
    inside = {"stepcredit": {"fields": {"of": "rloo"}}}
    assert advantages_of("stepcredit-reinforce-plus-plus", inside)["advantages"].abs().max() > 1
    with pytest.raises(EngineError) as caught:
        advantages_of("stepcredit-reinforce-plus-plus", {"stepcredit": {"fields": {"of": "pass"}}})
    assert str(caught.value) == (
        "algorithm.stepcredit.fields: stepcredit-reinforce-plus-plus gets rewards alone, but with "
        "these it reads steps or log-probs: use a trainer of stepcredit (trainer.v1.trainer_mode) "
        "with algorithm.adv_estimator=grpo"
    )


def test_the_methods_fields_are_read_under_our_key():
    found = advantages_of("stepcredit-rloo", {"stepcredit": {"fields": {"clip": 0.25}}})
    assert found["advantages"].max() == 0.25
    with pytest.raises(EngineError) as caught:
        advantages_of("stepcredit-rloo", {"stepcredit": {"fields": {"clop": 0.25}}})
    reason = "rloo has no such field, did you mean 'clip'?"
    assert str(caught.value) == f"algorithm.stepcredit.fields.clop: {reason}"
    with pytest.raises(EngineError) as caught:
        advantages_of("stepcredit-rloo", {"stepcredit": {"method": "grpo"}})
    reason = "is 'grpo', but algorithm.adv_estimator is stepcredit-rloo"
    assert str(caught.value) == f"algorithm.stepcredit.method: {reason}"


def test_keys_that_an_estimator_does_not_read_are_refused():
    read = {"outcome_reward": "maths", "splitter": "blank-line", "preflight": False}
    assert advantages_of("stepcredit-rloo", {"stepcredit": read})["advantages"].max() > 0
    with pytest.raises(EngineError) as caught:
        advantages_of("stepcredit-rloo", {"stepcredit": {"process_signal": "equations"}})
    reason = "stepcredit-rloo gets rewards alone, so that this key has no effect: use a trainer of "
    reason += "stepcredit (trainer.v1.trainer_mode) with algorithm.adv_estimator=grpo"
    assert str(caught.value) == f"algorithm.stepcredit.process_signal: {reason}"


def test_a_batch_of_padding_alone_has_no_advantages():
    estimator = get_adv_estimator_fn("stepcredit-grpo")
    rewards, mask = torch.ones(2, 3), torch.zeros(2, 3)
    advantages, _ = estimator(rewards, mask, index=["p", "p"], config=None)
    assert torch.equal(advantages, torch.zeros(2, 3))


def test_all_methods_that_read_the_outcome_alone_are_there():
    steps = sc.Steps([[0, 2], [1, 2]], [[0.9, 0.1], [0.2, 0.7]])
    given = {"lengths": [3, 3], "outcome": [1.0, 0.0]}
    bare = sc.Rollouts(["q", "q"], **given)
    scored = sc.Rollouts(["q", "q"], process=steps, format=[0.0, 1.0], **given)
    found = []
    for name in sc.methods():
        try:
            alone = sc.estimator(name)(bare).packed()
        except StepCreditError:
            continue
        if name == "gdpo" or torch.equal(sc.estimator(name)(scored).packed(), alone):
            found.append(name)  # gdpo reads the format too, which verl does not give
    assert sorted(found) == sorted(outcome_methods()) == OUTCOME_METHODS


def test_a_method_that_fails_in_its_own_way_leaves_the_others(monkeypatch):
    @dataclass(frozen=True)
    class Broken(sc.GRPO):
        @property
        def reads(self):
            raise TypeError("a method of an installed package")

    monkeypatch.setattr(METHODS, "_known", METHODS.all())
    sc.register("broken")(Broken)
    assert sorted(outcome_methods()) == OUTCOME_METHODS
