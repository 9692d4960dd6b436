"""The SkyRL example, in SkyRL's own trainer, or in a stand-in where it isn't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.engines.turn_values import SCORES, by_token, expected, real_or
from tests.loading import module_of

import stepcredit as sc
from stepcredit.errors import EngineError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/skyrl_advantages.py"
MASKS = ([0, 0, 1, 1, 0, 1, 0], [1, 1, 1, 0, 0, 1, 1])
"""Right-aligned; the first ends with a token of the environment."""


class Batch(dict):
    """What the example reads of `TrainingInputBatch`."""

    metadata: dict[str, Any]

    def to(self, device: str) -> Batch:
        return self


class Trainer:
    """What the example overrides of `RayPPOTrainer`."""

    def compute_advantages_and_returns(self, data: Any) -> Any:
        return data


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    modules = {
        "skyrl.backends.skyrl_train.training_batch": {"TrainingInputBatch": Batch},
        "skyrl.train.trainer": {"RayPPOTrainer": Trainer},
    }
    with pytest.MonkeyPatch.context() as patch:
        real_or(patch, modules)
        yield module_of(EXAMPLE)


def trainer_of(example: Any, **given: Any) -> Any:
    trainer = example.StepCreditTrainer.__new__(example.StepCreditTrainer)
    algorithm = {"advantage_estimator": "grpo", "gamma": 1.0, "lambd": 1.0}
    algorithm |= {"grpo_norm_by_std": True, "advantage_batch_normalize": False} | given
    trainer.cfg = SimpleNamespace(
        trainer=SimpleNamespace(algorithm=SimpleNamespace(**algorithm)),
        generator=SimpleNamespace(step_wise_trajectories=given.get("step_wise", False)),
    )
    trainer.all_metrics = {}
    return trainer


def batch_of(example: Any, masks: Any, rewards: Any, uids: list[str], **metadata: Any) -> Any:
    mask = torch.tensor(masks)
    fields = {"response_mask": torch.ones(mask.shape).long(), "loss_mask": mask}
    fields |= {"rewards": torch.tensor(rewards), "values": None, "sequences": mask}
    batch = example.TrainingInputBatch(fields)
    batch.metadata = {"uids": uids, "avg_response_length": 1.0, **metadata}
    return batch


def turn_rewards() -> list[list[float]]:
    """The scores on the last token of each turn; the last one behind it, on an end of text."""
    rewards = [[0.0] * 7 for _ in MASKS]
    rewards[0][3], rewards[0][6] = SCORES[0]
    rewards[1][2], rewards[1][6] = SCORES[1]
    return rewards


def test_the_sum_of_rewards_is_the_outcome_and_padding_is_no_member(example: Any) -> None:
    trainer = trainer_of(example)
    trainer.estimator = sc.DrGRPO()
    masks, rewards = [*MASKS, [0] * 7], [*turn_rewards(), [5.0] * 7]
    batch = batch_of(example, masks, rewards, ["a", "a", "pad0"], pad_size=1)
    found = trainer.compute_advantages_and_returns(batch)["advantages"]
    high = (1.3 - 0.8) / 2
    for row, mask, sign in zip(found, MASKS, (1, -1), strict=False):
        assert row.tolist() == pytest.approx([high * sign * flag for flag in mask], abs=1e-6)
    assert not found[2].any()


def test_rewards_of_turns_are_returns(example: Any) -> None:
    trainer = trainer_of(example)
    trainer.estimator = sc.TurnReturn(gamma=0.5)
    trainer.signals = lambda rewards: (rewards, None)
    batch = batch_of(example, [*MASKS], turn_rewards(), ["a", "a"])
    found = trainer.compute_advantages_and_returns(batch)["advantages"]
    first, second = 0.9 + 0.5 * 0.4, 0.2 + 0.5 * 0.6
    turns = [[first - second, 0.4 - 0.6], [second - first, 0.6 - 0.4]]
    for row, mask, values in zip(found, MASKS, turns, strict=True):
        assert row.tolist() == by_token(mask, values)


def test_rows_of_a_trajectory_are_one_response(example: Any) -> None:
    trainer = trainer_of(example, step_wise=True)
    trainer.estimator = sc.PASS(k=1.0)
    trainer.signals = lambda rewards: (SCORES[rewards[-1] < 1], rewards[-1])
    masks = [[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]
    rewards = [[0.0] * 3, [1.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3, [1.0] * 3]
    last = [False, True, False, True, True]
    uids = ["a", "a", "a", "a", "pad0"]
    batch = batch_of(example, masks, rewards, uids, is_last_step=last, pad_size=1)
    found = trainer.compute_advantages_and_returns(batch)["advantages"]
    values = [value for turns in expected() for value in turns]
    for row, mask, value in zip(found, masks, values, strict=False):
        assert row.tolist() == pytest.approx([value * flag for flag in mask], abs=1e-5)


def test_whitening_is_refused(example: Any) -> None:
    trainer = trainer_of(example, advantage_batch_normalize=True)
    with pytest.raises(EngineError) as error:
        trainer.compute_advantages_and_returns(
            batch_of(example, [*MASKS], turn_rewards(), ["a"] * 2)
        )
    reason = "advantages would be standardized twice: set it to false"
    assert str(error.value) == f"trainer.algorithm.advantage_batch_normalize: {reason}"
