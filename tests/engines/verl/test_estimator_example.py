"""The example of an estimator that reads step scores, by the rule of verl's pull request 7473."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import numpy as np
import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from stepcredit.errors import EngineError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MASK = torch.tensor([[1, 1, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1], [0] * 6])
ENDS, SCORES = [[1, 3], [2, 5], None], [[0.9, 0.4], [0.2, 0.6], None]
NAME = "stepcredit-steps"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The example, imported by its name as verl's `external_lib` is."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import verl_estimator

    assert get_adv_estimator_fn(NAME) is verl_estimator.step_advantages


def column(rows):
    values = np.empty(len(rows), dtype=object)
    values[:] = rows
    return values


def batch_of(**columns):
    rewards = torch.zeros(MASK.shape)
    rewards[0, 3] = 1.0
    columns = {"uid": column(["q", "q", "pad"]), **columns}
    return DataProto.from_dict({"token_level_rewards": rewards, "response_mask": MASK}, columns)


def with_7473(data, config):
    """verl's call of an estimator with the pull request's rule: what its signature accepts."""
    estimator = get_adv_estimator_fn(NAME)
    parameters = inspect.signature(estimator).parameters.values()
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    given = {
        "token_level_rewards": data.batch["token_level_rewards"],
        "response_mask": data.batch["response_mask"],
        "config": OmegaConf.create(config),
        "index": data.non_tensor_batch["uid"],
    }
    for name, value in (("non_tensor_batch", data.non_tensor_batch), ("batch", data.batch)):
        if takes_any or name in {each.name for each in parameters}:
            given[name] = value
    return estimator(**given)


def test_steps_are_credited():
    data = batch_of(step_ends=column(ENDS), step_scores=column(SCORES))
    config = {"stepcredit": {"method": "pass", "fields": {"k": 1.0}}}
    advantages, returns = with_7473(data, config)
    scores = torch.tensor([0.9, 0.4, 0.2, 0.6]).double()
    z = ((scores - scores.mean()) / (scores.std() + 1e-6)).tolist()
    out = 0.5 / (0.5**0.5 + 1e-6)
    first, last = (z[0] + z[1]) / 2 + out, z[1] + out
    third, fourth = (z[2] + z[3]) / 2 - out, z[3] - out
    expected = [[first, first, 0, last, 0, 0], [third, third, third, 0, fourth, fourth], [0.0] * 6]
    torch.testing.assert_close(advantages, torch.tensor(expected), atol=1e-5, rtol=0)
    assert torch.equal(advantages, returns)


def test_parts_of_a_trajectory_are_one_response():
    data = batch_of(trajectory=column(["a", "b", "c"]))
    advantages, _ = with_7473(data, {"stepcredit": {"method": "rloo"}})
    assert torch.equal(advantages, torch.tensor([[1.0], [-1.0], [0.0]]) * MASK)
    one = {"rewards": data.batch["token_level_rewards"]}
    one["rewards"][1, 5] = 1.0  # both parts have the trajectory's outcome
    joined = batch_of(trajectory=column(["a", "a", "c"]))
    joined.batch["token_level_rewards"] = one["rewards"]
    assert not with_7473(joined, {"stepcredit": {"method": "rloo"}})[0].any()


def test_verl_without_the_pull_request_is_refused():
    data = batch_of(step_ends=column(ENDS), step_scores=column(SCORES))
    with pytest.raises(EngineError) as error:
        compute_advantage(data, adv_estimator=NAME, config=OmegaConf.create({}))
    reason = "this verl hands it no non_tensor_batch: use trainer.v1.trainer_mode=stepcredit"
    assert str(error.value) == f"algorithm.adv_estimator: {reason}"
