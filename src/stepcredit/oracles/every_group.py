"""Every group that a policy can sample, each with its exact probability, as rollouts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations_with_replacement

import numpy as np
import torch
from jaxtyping import Float64, Int64

from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream, Tokens
from stepcredit.oracles.decision_process import Trajectory, Vector, World
from stepcredit.oracles.step_scores import StepSignal

GROUP_SIZE = 4
"""Responses per group."""


def groups_of(
    trajectories: Sequence[Trajectory], size: int = GROUP_SIZE
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every unordered group of responses, with its probability; these add up to 1.

        P = size! / prod_i c_i! * prod_i p_i^c_i,   c_i = how often response i is in the group

    Args:
        trajectories: every response, with its probability.
        size: responses per group.

    Example:
        >>> halves = [Trajectory((0,), 0.5, 1.0), Trajectory((1,), 0.5, 0.0)]
        >>> list(groups_of(halves, size=2))
        [((0, 0), 0.25), ((0, 1), 0.5), ((1, 1), 0.25)]
    """
    for members in combinations_with_replacement(range(len(trajectories)), size):
        orders = math.factorial(size)
        for count in Counter(members).values():
            orders //= math.factorial(count)
        chance = math.prod(trajectories[member].probability for member in members)
        yield members, orders * chance


@dataclass(frozen=True)
class WorldGroups:
    """Every group of one world.

    Args:
        world: whose responses are sampled.
        size: responses per group.
    """

    world: World
    size: int = GROUP_SIZE

    @cached_property
    def _both(self) -> tuple[Int64[np.ndarray, " rollout"], Vector]:
        pairs = list(groups_of(self.world.trajectories, self.size))
        members = np.array([members for members, _ in pairs]).ravel()
        return members, np.array([chance for _, chance in pairs])

    @property
    def members(self) -> Int64[np.ndarray, " rollout"]:
        """Number of each rollout's trajectory; the rollouts of a group stand together."""
        return self._both[0]

    @property
    def chances(self) -> Float64[np.ndarray, " group"]:
        """The probability of each group."""
        return self._both[1]

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " rollout"]:
        """Steps of each rollout."""
        sizes = np.array([len(trajectory.moves) for trajectory in self.world.trajectories])
        return sizes[self.members]

    @cached_property
    def steps(self) -> Int64[np.ndarray, " step"]:
        """Number of the move of each step of each rollout."""
        moves = [np.array(trajectory.moves) for trajectory in self.world.trajectories]
        return self.each_step(moves).astype(np.int64)

    @cached_property
    def group_of_step(self) -> Int64[np.ndarray, " step"]:
        """Number of the group of each step."""
        return np.repeat(np.arange(len(self.members)) // self.size, self.lengths)

    def each_step(self, rows: Sequence[np.ndarray]) -> Float64[np.ndarray, " step"]:
        """Values per step of each trajectory, repeated for every rollout.

        Args:
            rows: one array per trajectory, one value per step.
        """
        return np.concatenate([rows[member] for member in self.members])


@dataclass(frozen=True)
class SignalledGroups:
    """Every group of some worlds under one signal: one large batch, one token per step.

    Args:
        parts: the groups of each world, at least one, all of one size.
        signal: that scores their steps; None: they have no scores, and no teacher.
        draw: number of the draw of the signal's errors.
    """

    parts: tuple[WorldGroups, ...]
    signal: StepSignal | None
    draw: int = 0

    @cached_property
    def rollouts(self) -> Rollouts:
        """The groups with step scores, the states of steps, outcomes and log-probs of five models.

        "student" and "ref" are the policy, "teacher" and "prm" the teacher that the scores define,
        and "base" chooses all moves of a state alike.
        """
        counts = torch.from_numpy(np.concatenate([part.lengths for part in self.parts]))
        ends = torch.cat([torch.arange(count) for count in counts.tolist()])
        student = self._each(lambda part: np.log(part.world.policy)[part.steps])
        base = self._each(lambda part: _uniform(part.world)[part.steps])
        logprobs = {"student": student, "ref": student, "base": base}
        signal, process = self.signal, None
        if signal is not None:
            scores = self._each(partial(self._placed, signal, signal.move_scores))
            ratio = self._each(partial(self._placed, signal, signal.log_ratios))
            process = Steps(ends, scores, counts)
            logprobs |= {"teacher": student + ratio, "prm": student + ratio}
        return Rollouts(
            group=np.arange(len(counts)) // self.parts[0].size,
            process=process,
            outcome=self._each(_outcomes),
            logprobs={name: Tokens(values, counts) for name, values in logprobs.items()},
            step_ends=Stream._of(values=ends, counts=counts),
            step_states=self._each(lambda part: part.world.state_of[part.steps]),
        )

    def _each(self, values: Callable[[WorldGroups], np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([values(part) for part in self.parts]))

    def _placed(
        self, signal: StepSignal, values_of: Callable[[World, int], Vector], part: WorldGroups
    ) -> Float64[np.ndarray, " step"]:
        values, trajectories = values_of(part.world, self.draw), part.world.trajectories
        return part.each_step([signal.on_steps(values, each) for each in trajectories])

    @cached_property
    def advantage(self) -> Float64[np.ndarray, " step"]:
        """The exact advantage of each step of each rollout."""
        return self._each(lambda part: part.world.advantage[part.steps]).numpy()

    @cached_property
    def chance(self) -> Float64[np.ndarray, " step"]:
        """The probability of the group of each step; those of a world's groups add up to 1."""
        return self._each(lambda part: part.chances[part.group_of_step]).numpy()

    def by_part(
        self, values: Float64[np.ndarray, " step"]
    ) -> Iterator[tuple[WorldGroups, Float64[np.ndarray, " step"]]]:
        """Values per step, split by world.

        Args:
            values: one per step of each rollout.
        """
        ends = np.cumsum([len(part.steps) for part in self.parts])[:-1]
        return zip(self.parts, np.split(values, ends), strict=True)


def _outcomes(part: WorldGroups) -> np.ndarray:
    return np.array([t.outcome for t in part.world.trajectories])[part.members]


def _uniform(world: World) -> Vector:
    return -np.log(np.bincount(world.state_of))[world.state_of]
