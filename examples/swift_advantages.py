"""ms-swift: one advantage per token in GRPO's batches, computed by stepcredit.

    swift rlhf --rlhf_type grpo --external_plugins swift_advantages.py ...

A turn, which is a run of trained tokens, is a step. A multi-turn scheduler that puts `turn_scores`
into its `rollout_infos`, one number per turn, gives the process signal; the outcome is the weighted
sum of the reward functions. The samples of a prompt are a group; they may be on several processes,
so the sizes of all turns, outcomes and scores are gathered, and each process computes the same.
The column `advantages` that ms-swift logs stays its own. Written for ms-swift 4.6.0.
"""

from typing import Any

import torch
from accelerate.utils import gather_object
from swift.rlhf_trainers import GRPOTrainer
from swift.rlhf_trainers.utils import get_even_process_data
from swift.trainers import TrainerFactory

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages, turn_tokens
from stepcredit.errors import EngineError


class StepCreditGRPOTrainer(GRPOTrainer):
    """ms-swift's GRPO trainer with a method's advantages."""

    estimator: sc.Estimator = sc.PASS()

    def _postprocess_batch(self, samples: list[Any], batch_encoded_inputs: list[dict]) -> None:
        """ms-swift's, and then the method's advantages in their place."""
        super()._postprocess_batch(samples, batch_encoded_inputs)
        batches = [each["grpo_batch"] for each in batch_encoded_inputs]
        self.refuse_lost_credit(batches)
        rewards = (self._rewards_per_func * self.reward_weights).nansum(1).tolist()
        masks = [mask.bool() for batch in batches for mask in batch.completion_mask]
        own = [
            TurnTrajectory(
                group=sample.prompt_id,
                tokens=turn_tokens(mask),
                outcome=outcome,
                scores=(sample.rollout_infos or {}).get("turn_scores"),
            )
            for sample, mask, outcome in zip(
                samples, masks, get_even_process_data(self, rewards), strict=True
            )
        ]
        process = self.accelerator.process_index
        everyone = gather_object([(process, each) for each in own])
        credit = turn_advantages([each for _, each in everyone], self.estimator)
        found = iter(
            turns for (place, _), turns in zip(everyone, credit, strict=True) if place == process
        )
        for batch in batches:
            batch.advantages = torch.zeros_like(batch.completion_mask, dtype=torch.float32)
            for row, mask in zip(batch.advantages, batch.completion_mask.bool(), strict=True):
                row[mask] = row.new_tensor([value for turn in next(found) for value in turn])

    def refuse_lost_credit(self, batches: list[Any]) -> None:
        """Refuse settings whose part of the advantage would be lost."""
        refused = {
            "kl_in_reward": self.kl_in_reward and self.beta != 0,
            "teacher_model": any(each.teacher_per_token_logps is not None for each in batches),
            "dynamic_num_samples": self.dynamic_num_samples,
            "sequence_parallel_size": self.template.sequence_parallel_size > 1,
            "loss_type": self.loss_type == "real",
        }
        for name, is_set in refused.items():
            if is_set:
                raise EngineError("stepcredit's advantages do not go with this", field=name)


TrainerFactory.TRAINER_MAPPING["grpo"] = f"{__name__}.StepCreditGRPOTrainer"
