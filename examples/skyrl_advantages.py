"""SkyRL: one advantage per token in the trainer's batch, computed by stepcredit.

Copy this file beside your training script, and name the trainer in your experiment:

    class Experiment(BasePPOExp):
        def get_trainer(self, *args, **kwargs):
            return StepCreditTrainer(*args, **kwargs)

A turn, which is a run of trained tokens, is a step. SkyRL puts an environment's reward of each turn
on the turn's last token, so a turn has a reward; `signals` says what these rewards are. As it
stands, their sum is the outcome. For rewards of turns that are one sum of returns:

    StepCreditTrainer.estimator = sc.TurnReturn(gamma=0.95)
    StepCreditTrainer.signals = staticmethod(lambda rewards: (rewards, None))

and where the turns' rewards are scores and the last one is the outcome:
`lambda rewards: ([*rewards[:-1], 0.0], rewards[-1])`. With `generator.step_wise_trajectories`, the
rows of a trajectory are credited as one response. SkyRL's registry of advantage estimators is not
enough: an estimator sees rewards and `response_mask`, which holds the tokens of tools too. The
returns that train a critic stay SkyRL's. Written for SkyRL 0.3.0.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch
from skyrl.train.trainer import RayPPOTrainer
from torch import Tensor

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages, turn_tokens
from stepcredit.errors import EngineError

Signals = Callable[[list[float]], tuple[list[float] | None, float | None]]


def sum_of_rewards(rewards: list[float]) -> tuple[None, float]:
    """The outcome alone: the sum of the turns' rewards."""
    return None, sum(rewards)


class StepCreditTrainer(RayPPOTrainer):
    """SkyRL's trainer with a method's advantages; `signals` gives scores and outcome."""

    estimator: sc.Estimator = sc.PASS()
    signals: Signals = staticmethod(sum_of_rewards)

    def compute_advantages_and_returns(self, data: TrainingInputBatch) -> TrainingInputBatch:
        """SkyRL's, and then the method's advantages in their place."""
        if self.cfg.trainer.algorithm.advantage_batch_normalize:
            reason = "advantages would be standardized twice: set it to false"
            raise EngineError(reason, field="trainer.algorithm.advantage_batch_normalize")
        data = super().compute_advantages_and_returns(data)
        ends = [True] * len(data["rewards"])
        if self.cfg.generator.step_wise_trajectories:
            ends = data.metadata["is_last_step"]
        data["advantages"] = credited(
            data["loss_mask"].bool(),
            data["rewards"],
            data.metadata["uids"],
            ends,
            self.estimator,
            self.signals,
        )
        return data


def credited(
    trained: Tensor,
    rewards: Tensor,
    groups: Sequence[str],
    is_last: Sequence[bool],
    estimator: sc.Estimator,
    signals: Signals,
) -> Tensor:
    """The advantages of a batch, 0 where no token is trained.

    Args:
        trained: which tokens are trained.
        rewards: the reward on each token.
        groups: the prompt of each row.
        is_last: whether a row is the last of its trajectory.
        estimator: the method.
        signals: scores and outcome of the rewards of a trajectory's turns.
    """
    trajectories, tokens, earned = list[TurnTrajectory](), list[int](), list[float]()
    for row, last in enumerate(is_last):
        tokens += turn_tokens(trained[row])
        earned += turn_rewards(trained[row], rewards[row])
        if last and tokens:
            scores, outcome = signals(earned)
            trajectories.append(TurnTrajectory(groups[row], tokens, outcome, scores))
        if last:
            tokens, earned = [], []
    advantages = torch.zeros(trained.shape)
    found = turn_advantages(trajectories, estimator)
    advantages[trained] = torch.tensor([v for each in found for turn in each for v in turn])
    return advantages


def turn_rewards(trained: Tensor, rewards: Tensor) -> list[float]:
    """The sum of the rewards from each turn's first token to the next turn's."""
    before = torch.cat([trained.new_zeros(1), trained[:-1]])
    starts = (trained & ~before).nonzero()[:, 0].tolist()
    bounds = [0, *starts[1:], len(trained)]
    return [float(rewards[a:b].sum()) for a, b in pairwise(bounds) if starts]
