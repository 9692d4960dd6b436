"""The ms-swift example, in ms-swift's own trainer, or in a stand-in where it isn't."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from tests.engines.turn_values import SCORES, by_token, expected, real_or
from tests.loading import module_of

import stepcredit as sc
from stepcredit.errors import EngineError

pytest.importorskip("accelerate")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/swift_advantages.py"
MASKS = ([1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 1])


class Trainer:
    """What the example overrides of `GRPOTrainer`."""

    def _postprocess_batch(self, samples: list[Any], batches: list[dict[str, Any]]) -> None:
        pass


class Factory:
    """What the example sets of `TrainerFactory`."""

    TRAINER_MAPPING: ClassVar = {"grpo": "swift.rlhf_trainers.GRPOTrainer"}


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    modules = {
        "swift.rlhf_trainers": {"GRPOTrainer": Trainer},
        "swift.rlhf_trainers.utils": {"get_even_process_data": lambda trainer, data: data},
        "swift.trainers": {"TrainerFactory": Factory},
    }
    with pytest.MonkeyPatch.context() as patch:
        real_or(patch, modules)
        from swift.trainers import TrainerFactory

        patch.setattr(TrainerFactory, "TRAINER_MAPPING", {**TrainerFactory.TRAINER_MAPPING})
        module = module_of(EXAMPLE)
        name = TrainerFactory.TRAINER_MAPPING["grpo"]
        assert name == "swift_advantages.StepCreditGRPOTrainer"
        yield module


def trainer_of(example: Any, **given: Any) -> Any:
    """A trainer as ms-swift's `__init__` leaves it, of what its `_postprocess_batch` reads."""
    trainer = example.StepCreditGRPOTrainer.__new__(example.StepCreditGRPOTrainer)
    fields = {
        "_has_teacher": False,
        "use_teacher_api": False,
        "advantage_reweight": None,
        "sdar_loss_coef": 0.0,
        "teacher_kl_coef": 0.0,
        "kl_in_reward": False,
        "beta": 0.0,
        "dynamic_num_samples": False,
        "loss_type": "grpo",
        "num_generations": 2,
        "num_generations_eval": 2,
        "scale_rewards": "group",
        "advantage_estimator": "grpo",
        "reward_func_names": ["right", "form"],
        "reward_weights": torch.tensor([1.0, 0.5]),
        "_rewards_per_func": torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]),
        "accelerator": SimpleNamespace(num_processes=1, process_index=0, device="cpu"),
        "template": SimpleNamespace(sequence_parallel_size=1),
        "model": SimpleNamespace(training=True),
        "args": SimpleNamespace(steps_per_generation=2),
        "_metrics": {"train": defaultdict(list)},
        "_logs": {"advantages": [], "rewards": defaultdict(list)},
    }
    for name, value in {**fields, **given}.items():
        setattr(trainer, name, value)
    return trainer


def run(trainer: Any, scores: list[list[float]] | None, masks: Any = MASKS) -> torch.Tensor:
    """The advantages of two samples in two micro-batches."""
    samples, batches = [], []
    for row, mask in enumerate(masks):
        infos = {} if scores is None else {"turn_scores": scores[row]}
        fields = {"prompt_id": "prompt_0", "request_id": f"r{row}", "rollout_infos": infos}
        samples.append(SimpleNamespace(**fields, advantages=None))
        batch = SimpleNamespace(completion_mask=torch.tensor([mask]).bool())
        batch.teacher_per_token_logps = batch.old_per_token_logps = batch.advantages = None
        batches.append({"grpo_batch": batch})
    trainer._postprocess_batch(samples, batches)
    return torch.cat([each["grpo_batch"].advantages for each in batches])


def test_turns_have_their_advantages(example: Any) -> None:
    trainer = trainer_of(example)
    trainer.estimator = sc.PASS(k=1.0)
    for row, mask, turns in zip(run(trainer, SCORES), MASKS, expected(), strict=True):
        assert row.tolist() == by_token(mask, turns)


def test_without_scores_the_weighted_rewards_are_the_outcome(example: Any) -> None:
    trainer = trainer_of(example, _rewards_per_func=torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    trainer.estimator = sc.DrGRPO()
    for row, mask, sign in zip(run(trainer, None), MASKS, (1, -1), strict=True):
        assert row.tolist() == [0.5 * sign * flag for flag in mask]


def test_a_sample_on_another_process_is_in_the_group(
    example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with a sample each: what the other gathers stands before or behind."""
    own: dict[int, list[Any]] = {}
    for process in (0, 1):
        monkeypatch.setattr(
            example, "gather_object", lambda rows, at=process: own.setdefault(at, rows)
        )
        rewards = torch.tensor([[1.0 - process, 0.0]])
        accelerator = SimpleNamespace(num_processes=1, process_index=process, device="cpu")
        given = {"_rewards_per_func": rewards, "accelerator": accelerator, "num_generations": 1}
        given["template"] = SimpleNamespace(sequence_parallel_size=1)
        one = trainer_of(example, **given, args=SimpleNamespace(steps_per_generation=1))
        monkeypatch.setattr(type(one).__mro__[1], "_postprocess_batch", lambda *_: None)
        monkeypatch.setattr(example, "get_even_process_data", lambda trainer, data: data)
        run(one, [SCORES[process]], [MASKS[process]])
    monkeypatch.setattr(example, "gather_object", lambda rows: [*own[0], *own[1]])
    one.estimator = sc.PASS(k=1.0)
    found = run(one, [SCORES[1]], [MASKS[1]])
    assert found[0].tolist() == by_token(MASKS[1], expected()[1])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"kl_in_reward": True, "beta": 0.1}, "kl_in_reward"),
        ({"dynamic_num_samples": True}, "dynamic_num_samples"),
        ({"template": SimpleNamespace(sequence_parallel_size=2)}, "sequence_parallel_size"),
        ({"loss_type": "real"}, "loss_type"),
    ],
)
def test_settings_that_would_lose_credit_are_refused(
    example: Any, given: dict[str, Any], name: str
) -> None:
    with pytest.raises(EngineError) as error:
        trainer_of(example, **given).refuse_lost_credit([])
    assert str(error.value) == f"{name}: stepcredit's advantages do not go with this"
