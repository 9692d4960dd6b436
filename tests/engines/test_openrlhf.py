"""The OpenRLHF example, in OpenRLHF's own maker of experiences, or in a stand-in where it isn't."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from tests.engines.turn_values import SCORES, by_token, expected, real_or
from tests.loading import module_of

import stepcredit as sc
from stepcredit.errors import EngineError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/openrlhf_advantages.py"
MASKS = ([0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 1, 1])


@dataclass
class Experience:
    """What the example reads of OpenRLHF's class of this name."""

    action_mask: torch.Tensor
    rewards: torch.Tensor
    info: dict[str, Any] = field(default_factory=dict)
    index: list[int] | None = None
    advantages: torch.Tensor | None = None


class Maker:
    """What the example overrides of `RemoteExperienceMaker`."""

    def __init__(self, actor: Any, critic: Any, reward: Any, initial: Any, *rest: Any) -> None:
        self.initial_model_group = initial
        self.kl_ctl, strategy, _ = rest
        self.args = strategy.args

    def split_rollout_samples(self, samples: list[Experience]) -> list[Experience]:
        for row, sample in enumerate(samples):
            sample.index = [row]
        return samples

    def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
        return experiences


class Actor(NamedTuple):
    """What the example reads of a class of Ray's."""

    modified_class: type


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    package = "openrlhf.trainer.ppo_utils"
    modules = {
        f"{package}.experience": {"Experience": Experience},
        f"{package}.experience_maker": {"RemoteExperienceMaker": Maker},
        "ray": {"remote": lambda kind: SimpleNamespace(__ray_metadata__=Actor(kind))},
    }
    with pytest.MonkeyPatch.context() as patch:
        real = real_or(patch, modules)
        module = module_of(EXAMPLE)
        module.is_real = real
        yield module


def maker_of(example: Any, *, batch: int = 1, **kl: Any) -> Any:
    penalty = {"init_coef": kl.get("value", 0.0), "use_loss": False, **kl}
    advantage = SimpleNamespace(estimator="dr_grpo", gamma=1.0, no_std_norm=False)
    args = SimpleNamespace(
        algo=SimpleNamespace(kl=SimpleNamespace(**penalty), advantage=advantage),
        rollout=SimpleNamespace(n_samples_per_prompt=2, micro_batch_size=batch, max_new_tokens=8),
        reward=SimpleNamespace(
            clip_range=None,
            overlong_buffer_len=None,
            overlong_penalty_factor=0.0,
            stop_properly_penalty_coef=None,
        ),
        train=SimpleNamespace(dynamic_batch_enable=False),
    )
    controller = SimpleNamespace(value=kl.get("value", 0.0))
    tokenizer = SimpleNamespace(pad_token_id=0)
    model = kl.get("model")
    strategy = SimpleNamespace(args=args)
    return example.StepCreditExperienceMaker(
        None, None, None, model, controller, strategy, tokenizer
    )


def samples_of(example: Any, scores: list[list[float]] | None) -> list[Any]:
    samples = []
    for row, mask in enumerate(MASKS):
        outcome = torch.tensor([1.0 - row])
        info = {"reward": outcome}
        if scores is not None:
            info["turn_scores"] = torch.tensor([scores[row]])
        fields = {"action_mask": torch.tensor([mask]), "rewards": outcome, "info": info}
        if example.is_real:
            fields["sequences"] = fields["attention_mask"] = torch.ones(1, len(mask) + 1).long()
        samples.append(example.Experience(**fields))
    return samples


def credited(example: Any, maker: Any, scores: list[list[float]] | None) -> list[Any]:
    experiences = maker.split_rollout_samples(samples_of(example, scores))
    for each in experiences:
        each.kl = torch.zeros(each.action_mask.shape)
    return maker.compute_advantages_and_returns(experiences)


@pytest.mark.parametrize("batch", [1, 2])
def test_turns_have_their_advantages(example: Any, batch: int) -> None:
    if batch > 1 and not example.is_real:
        pytest.skip("needs OpenRLHF's own padding")
    maker = maker_of(example, batch=batch)
    maker.estimator = sc.PASS(k=1.0)
    rows = [row for each in credited(example, maker, SCORES) for row in each.advantages]
    assert len(rows) == 2
    for row, mask, turns in zip(rows, MASKS, expected(), strict=True):
        assert row[: len(mask)].tolist() == by_token(mask, turns)
        assert not row[len(mask) :].any()


def test_without_scores_the_outcome_of_whole_groups_is_credited(example: Any) -> None:
    maker = maker_of(example)
    maker.estimator = sc.DrGRPO()
    for sign, mask, each in zip((1, -1), MASKS, credited(example, maker, None), strict=True):
        assert each.advantages[0].tolist() == [0.5 * sign * flag for flag in mask]
        assert "turn_scores" not in each.info


def test_what_does_not_fit_is_one_line(example: Any) -> None:
    with pytest.raises(EngineError) as error:
        credited(example, maker_of(example), [[0.9, 0.4, 0.1], [0.2, 0.6]])
    assert str(error.value) == "row 0: scores: 3 values for 2 turns"
    with pytest.raises(EngineError) as error:
        credited(example, maker_of(example, value=0.1, model="reference"), SCORES)
    reason = "the penalty would be lost, as it is a part of the reward: set it to True"
    assert str(error.value) == f"algo.kl.use_loss: {reason}"


def test_the_trainer_gets_the_maker(example: Any) -> None:
    class Trainer:
        def __init__(self, given: Any) -> None:
            self.actor_model_group = self.critic_model_group = self.reward_model_group = None
            self.reference_model_group, self.kl_ctl, self.tokenizer = None, None, given
            self.strategy = SimpleNamespace(args=maker_of(example).args)

    credited = example.with_credit(example.ray.remote(Trainer), sc.RLOO())
    trainer = credited.__ray_metadata__.modified_class("tokenizer")
    maker = trainer.experience_maker
    assert (type(maker).__name__, maker.estimator) == ("StepCreditExperienceMaker", sc.RLOO())
    assert maker.args is trainer.strategy.args
