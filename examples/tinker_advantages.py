"""Tinker: one advantage per token in the data of tinker-cookbook, computed by stepcredit.

Copy this file beside your training script, and put it in the place of the cookbook's function
before training starts:

    import tinker_cookbook.rl.train as loop
    from tinker_advantages import StepCreditData

    loop.assemble_training_data = StepCreditData(turn_score=lambda turn: turn.metrics["score"])

A turn (a transition) is a step. Its score is what `turn_score` returns for it; the outcome is the
trajectory's total reward, or what `outcome` returns for its group. The cookbook lays out the data:
where an observation does not continue the sequence before it, a trajectory becomes several
`Datum`s, and they are credited as one response. Observations, and turns that the cookbook masks
because they could not be parsed, get 0. A trajectory without a trained token is left out of its
group. Written for tinker 0.38 and tinker-cookbook 0.6.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tinker
import torch
from tinker_cookbook.rl.data_processing import trajectory_to_data
from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup, Transition
from torch import Tensor

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages


class StepCreditData:
    """`assemble_training_data` of tinker-cookbook, with a method's advantages.

    Args:
        estimator: the method; default: PASS.
        turn_score: returns a turn's process score; None: there is no process signal.
        turn_state: returns the key of the state in which a turn was taken, which `gigpo` reads.
        outcome: returns a number per trajectory of a group.
    """

    def __init__(
        self,
        estimator: sc.Estimator | None = None,
        *,
        turn_score: Callable[[Transition], float] | None = None,
        turn_state: Callable[[Transition], str] | None = None,
        outcome: Callable[[TrajectoryGroup], Sequence[float]] = TrajectoryGroup.get_total_rewards,
    ) -> None:
        self.estimator = estimator or sc.PASS()
        self.turn_score, self.turn_state, self.outcome = turn_score, turn_state, outcome

    def __call__(
        self,
        trajectory_groups_P: list[TrajectoryGroup],
        advantages_P: list[Tensor] | None = None,
        include_provenance: bool = True,
    ) -> tuple[list[tinker.Datum], list[dict[str, int]]]:
        """The data and where each is from, as the cookbook returns them.

        Args:
            trajectory_groups_P: whole groups.
            advantages_P: the cookbook's own, which are not read.
            include_provenance: as for the cookbook's function.
        """
        data, places, trajectories = [], [], []
        for at, group in enumerate(trajectory_groups_P):
            outcomes = self.outcome(group)
            for number, trajectory in enumerate(group.trajectories_G):
                own = trajectory_to_data(trajectory, 0.0, include_provenance=include_provenance)
                data += own
                places += [{"group_idx": at, "traj_idx": number}] * len(own)
                turns = turn_numbers(trajectory)
                trajectories.append(self._turns(at, trajectory, turns, float(outcomes[number])))
        credit = turn_advantages(trajectories, self.estimator)
        tokens = iter([value for row in credit for turn in row for value in turn])
        for datum in data:
            trained = read(datum, "mask") > 0
            values = [next(tokens) if flag else 0.0 for flag in trained.tolist()]
            datum.loss_fn_inputs["advantages"] = tinker.TensorData.from_torch(torch.tensor(values))
        return data, places

    def _turns(
        self, group: int, trajectory: Trajectory, turns: Tensor, outcome: float
    ) -> TurnTrajectory:
        """A trajectory as its turns."""
        taken = trajectory.transitions
        tokens = torch.bincount(turns, minlength=len(taken)).tolist()

        def of_turns(function: Callable[[Transition], Any] | None) -> list[Any] | None:
            if function is None:
                return None
            pairs = zip(taken, tokens, strict=True)
            return [function(turn) if count else 0.0 for turn, count in pairs]

        scores, states = of_turns(self.turn_score), of_turns(self.turn_state)
        return TurnTrajectory(group, tokens, outcome, scores, states)


def turn_numbers(trajectory: Trajectory) -> Tensor:
    """Of each trained token of a trajectory's data, in order, the number of its turn.

    The cookbook lays out the data of a trajectory whose log-probs are these numbers.
    """
    numbered = [
        replace(turn, ac=replace(turn.ac, maybe_logprobs=[float(number)] * len(turn.ac.tokens)))
        for number, turn in enumerate(trajectory.transitions)
    ]
    data = trajectory_to_data(
        replace(trajectory, transitions=numbered), 0.0, include_provenance=False
    )
    found = [read(datum, "logprobs")[read(datum, "mask") > 0].long() for datum in data]
    return torch.cat([torch.zeros(0, dtype=torch.long), *found])


def read(datum: tinker.Datum, name: str) -> Tensor:
    """One of a datum's inputs of the loss."""
    return datum.loss_fn_inputs[name].to_torch()
