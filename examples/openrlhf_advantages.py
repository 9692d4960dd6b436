"""OpenRLHF: one advantage per token from the experience maker, computed by stepcredit.

Put this file beside a launch script that changes the trainer before OpenRLHF starts it:

    import openrlhf.trainer.ppo_trainer as trainer
    from openrlhf_advantages import with_credit

    trainer.PPOTrainer = with_credit(trainer.PPOTrainer, sc.PASS(k=0.7))
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")

A turn, which is a run of sampled tokens, is a step. An agent whose last `step` returns
`extra_logs={"turn_scores": [...]}`, one number per turn, gives the process signal; the outcome is
the reward, after OpenRLHF's penalties of length. The samples of a prompt are a group, and the maker
has all of them. The returns that train a critic stay OpenRLHF's. The
asynchronous trainer makes its experiences in an actor that no script can change. Written for
OpenRLHF 0.11.2.
"""

from typing import Any

import ray
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages, turn_tokens
from stepcredit.errors import EngineError


class StepCreditExperienceMaker(RemoteExperienceMaker):
    """OpenRLHF's maker of experiences, with a method's advantages."""

    estimator: sc.Estimator = sc.PASS()

    def split_rollout_samples(self, rollout_samples: list[Experience]) -> list[Experience]:
        """Take the scores out of the samples before OpenRLHF pads them."""
        found = [sample.info.pop("turn_scores", None) for sample in rollout_samples]
        self.turn_scores = [None if each is None else each.flatten().tolist() for each in found]
        return super().split_rollout_samples(rollout_samples)

    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        """OpenRLHF's, and then the method's advantages in their place."""
        kl = self.args.algo.kl
        if self.initial_model_group is not None and self.kl_ctl.value and not kl.use_loss:
            reason = "the penalty would be lost, as it is a part of the reward: set it to True"
            raise EngineError(reason, field="algo.kl.use_loss")
        experiences = super().compute_advantages_and_returns(experiences)
        size = self.args.rollout.n_samples_per_prompt
        rows = [(each, row) for each in experiences for row in range(len(each.index))]
        trajectories = [
            TurnTrajectory(
                group=each.index[row] // size,
                tokens=turn_tokens(each.action_mask[row]),
                outcome=float(each.rewards[row]),
                scores=self.turn_scores[each.index[row]],
            )
            for each, row in rows
        ]
        for each in experiences:
            each.advantages = each.action_mask.new_zeros(
                each.action_mask.shape, dtype=torch.float32
            )
        for (each, row), turns in zip(
            rows, turn_advantages(trajectories, self.estimator), strict=True
        ):
            values = [value for turn in turns for value in turn]
            each.advantages[row, each.action_mask[row].bool()] = each.advantages.new_tensor(values)
        return experiences


def with_credit(trainer: Any, estimator: sc.Estimator | None = None) -> Any:
    """OpenRLHF's trainer, a class of Ray's, whose experiences have a method's advantages."""

    class CreditedTrainer(trainer.__ray_metadata__.modified_class):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.experience_maker = StepCreditExperienceMaker(
                self.actor_model_group,
                self.critic_model_group,
                self.reward_model_group,
                self.reference_model_group,
                self.kl_ctl,
                self.strategy,
                self.tokenizer,
            )
            self.experience_maker.estimator = estimator or sc.PASS()

    return ray.remote(CreditedTrainer)
