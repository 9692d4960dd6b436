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
from dataclasses import dataclass, replace
from typing import Any

import tinker
import torch
from tinker_cookbook.rl.data_processing import trajectory_to_data
from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup, Transition
from torch import Tensor

import stepcredit as sc


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
        found = [
            TrajectoryData.of(at, number, trajectory, float(outcome), include_provenance)
            for at, group in enumerate(trajectory_groups_P)
            for number, (trajectory, outcome) in enumerate(
                zip(group.trajectories_G, self.outcome(group), strict=True)
            )
        ]
        trained = [one for one in found if len(one.turns)]
        if trained:
            credit = self.estimator(self._rollouts(trained)).ragged()
            for one, advantages in zip(trained, credit, strict=True):
                one.write(advantages)
        data = [datum for one in found for datum in one.data]
        return data, [one.place for one in found for _ in one.data]

    def _rollouts(self, trained: "list[TrajectoryData]") -> sc.Rollouts:
        ends = [one.turn_ends for one in trained]
        taken = [one.turns_taken for one in trained]
        steps: dict[str, Any] = {}
        if self.turn_score is not None:
            scores = [[float(self.turn_score(turn)) for turn in turns] for turns in taken]
            steps["process"] = sc.Steps(ends, scores)
        if self.turn_state is not None:
            steps["step_states"] = [[self.turn_state(turn) for turn in turns] for turns in taken]
            steps["step_ends"] = ends
        return sc.Rollouts(
            group=[one.place["group_idx"] for one in trained],
            lengths=[len(one.turns) for one in trained],
            outcome=[one.outcome for one in trained],
            **steps,
        )


@dataclass
class TrajectoryData:
    """A trajectory's data, and which turn each trained token is of.

    Args:
        place: the group and the trajectory in it, as the cookbook names them.
        outcome: its outcome.
        trajectory: the trajectory.
        data: of the cookbook; `write` sets their advantages.
        turns: of each trained token of all data, in order, the number of its turn.
    """

    place: dict[str, int]
    outcome: float
    trajectory: Trajectory
    data: list[tinker.Datum]
    turns: Tensor

    @classmethod
    def of(
        cls, group: int, number: int, trajectory: Trajectory, outcome: float, provenance: bool
    ) -> "TrajectoryData":
        """The data with zeros as advantages."""
        data = trajectory_to_data(trajectory, 0.0, include_provenance=provenance)
        numbered = trajectory_to_data(with_turn_numbers(trajectory), 0.0, include_provenance=False)
        turns = [read(datum, "logprobs")[trained_tokens(datum)] for datum in numbered]
        place = {"group_idx": group, "traj_idx": number}
        return cls(place, outcome, trajectory, data, torch.cat([torch.zeros(0), *turns]).long())

    @property
    def turn_ends(self) -> list[int]:
        """The last trained token of each turn that has one."""
        last = torch.ones(len(self.turns), dtype=torch.bool)
        last[:-1] = self.turns[1:] != self.turns[:-1]
        return last.nonzero().flatten().tolist()

    @property
    def turns_taken(self) -> list[Transition]:
        """The turns that have a trained token."""
        return [self.trajectory.transitions[int(self.turns[end])] for end in self.turn_ends]

    def write(self, advantages: Tensor) -> None:
        """Write the advantages of the trained tokens; 0 elsewhere."""
        for datum in self.data:
            trained = trained_tokens(datum)
            own, advantages = advantages.split(
                [int(trained.sum()), len(advantages) - int(trained.sum())]
            )
            table = torch.zeros(len(trained))
            table[trained] = own
            datum.loss_fn_inputs["advantages"] = tinker.TensorData.from_torch(table)


def with_turn_numbers(trajectory: Trajectory) -> Trajectory:
    """The trajectory with the number of its turn as the log-prob of every sampled token.

    So the cookbook's layout says which turn each position is of.
    """
    turns = [
        replace(turn, ac=replace(turn.ac, maybe_logprobs=[float(number)] * len(turn.ac.tokens)))
        for number, turn in enumerate(trajectory.transitions)
    ]
    return replace(trajectory, transitions=turns)


def read(datum: tinker.Datum, name: str) -> Tensor:
    """One of a datum's inputs of the loss."""
    return datum.loss_fn_inputs[name].to_torch()


def trained_tokens(datum: tinker.Datum) -> Tensor:
    """True at the targets that are trained."""
    return read(datum, "mask") > 0
