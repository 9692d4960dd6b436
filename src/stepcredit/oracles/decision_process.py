"""Small decision processes with a stochastic policy, solved exactly by dynamic programming."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NoReturn

import numpy as np
from jaxtyping import Float64, Int64

from stepcredit.errors import StepCreditError

Kind = Literal["work", "filler", "stop"]
Vector = Float64[np.ndarray, " move"]


@dataclass(frozen=True)
class Move:
    """One step that the policy can write in a state.

    Args:
        weight: exp of the policy's logit; the policy chooses in proportion to it.
        to: the next state's name, or the outcome with which the response ends.
        kind: "filler" changes nothing; "stop" ends the response before the work is done.
    """

    weight: float
    to: str | float
    kind: Kind = "work"


@dataclass(frozen=True)
class Trajectory:
    """One possible response.

    Args:
        moves: numbers of its moves, one per step.
        probability: with which the policy samples it.
        outcome: its reward.
    """

    moves: tuple[int, ...]
    probability: float
    outcome: float


@dataclass(frozen=True)
class World:
    """A task whose every state is known, with a softmax policy over the moves of each state.

        V(s) = sum_a pi(a|s) Q(s, a);   Q(s, a) = V(s'), or the outcome at the end
        A(s, a) = Q(s, a) - V(s)

    Moves are numbered from 0 through all states; arrays below have one value per move. The policy's
    parameters are its logits, one per move.

    Args:
        name: of the task.
        about: what it shows, one sentence.
        states: {state: its moves}; the first state is the start. No state may be reached again.

    Raises:
        StepCreditError: a state that is missing, has no move, or is reached again; a weight that is
            not above 0.

    Example:
        >>> world = World("coin", "One step.", {"start": (Move(3.0, 1.0), Move(1.0, 0.0))})
        >>> world.expected_outcome, world.advantage.tolist()
        (0.75, [0.25, -0.75])
    """

    name: str
    about: str
    states: Mapping[str, tuple[Move, ...]]

    def __post_init__(self) -> None:
        for state, moves in self.states.items():
            if not moves:
                self._refuse(state, "has no move")
            for move in moves:
                self._check(state, move)
        for state in self.states:
            if state not in self.order:
                self._refuse(state, "is reached again, or leads to a state that is")

    def _check(self, state: str, move: Move) -> None:
        if not 0 < move.weight < math.inf:
            self._refuse(state, f"expected weights above 0, got {move.weight}")
        if isinstance(move.to, str) and move.to not in self.states:
            self._refuse(state, f"leads to {move.to!r}, which is missing")

    def _refuse(self, state: str, reason: str) -> NoReturn:
        raise StepCreditError(reason, field=f"{self.name}.{state}")

    @cached_property
    def order(self) -> list[str]:
        """The states, each after all states to which it leads; without those on a circle."""
        done: list[str] = []
        while found := [s for s in self.states if s not in done and self._next(s) <= set(done)]:
            done += found
        return done

    def _next(self, state: str) -> set[str]:
        return {move.to for move in self.states[state] if isinstance(move.to, str)}

    @cached_property
    def moves(self) -> list[Move]:
        """All moves, in the order of their numbers."""
        return [move for moves in self.states.values() for move in moves]

    @cached_property
    def numbers(self) -> dict[str, range]:
        """The numbers of each state's moves."""
        ends = np.cumsum([len(moves) for moves in self.states.values()]).tolist()
        return {
            state: range(end - len(self.states[state]), end)
            for state, end in zip(self.states, ends, strict=True)
        }

    @cached_property
    def state_of(self) -> Int64[np.ndarray, " move"]:
        """Number of the state in which each move is made."""
        return np.repeat(np.arange(len(self.states)), [len(m) for m in self.states.values()])

    @cached_property
    def policy(self) -> Vector:
        """pi(a|s) of each move."""
        weights = np.array([move.weight for move in self.moves])
        return weights / np.bincount(self.state_of, weights)[self.state_of]

    @cached_property
    def q(self) -> Vector:
        """Q(s, a) of the expected outcome."""
        ends = [0.0 if isinstance(move.to, str) else move.to for move in self.moves]
        return self.expected_sum(np.array(ends))

    def expected_sum(self, rewards: Vector) -> Vector:
        """The expected sum of rewards from each move on, its own reward included.

        Args:
            rewards: of each move, finite.
        """
        sums = rewards.astype(np.float64)
        for state in self.order:
            for number in self.numbers[state]:
                to = self.moves[number].to
                if isinstance(to, str):
                    after = self.numbers[to]
                    sums[number] += self.policy[after] @ sums[after]
        return sums

    def centred(self, q: Vector) -> Vector:
        """q less its mean under the policy in each state: the advantage, where q is Q."""
        return q - np.bincount(self.state_of, self.policy * q)[self.state_of]

    @cached_property
    def advantage(self) -> Vector:
        """A(s, a), with differences that are only rounding set to 0."""
        advantage = self.centred(self.q)
        return np.where(abs(advantage) < 1e-12, 0.0, advantage)

    @property
    def expected_outcome(self) -> float:
        """V of the start."""
        return float(self.policy[self._first] @ self.q[self._first])

    @property
    def _first(self) -> range:
        return self.numbers[next(iter(self.states))]

    @cached_property
    def visits(self) -> Vector:
        """The probability that a response makes each move."""
        made = np.zeros(len(self.moves))
        for trajectory in self.trajectories:
            made[list(trajectory.moves)] += trajectory.probability
        return made

    def gradient(self, q: Vector) -> Vector:
        """The exact policy gradient of an expected sum whose Q is `q`, by logits.

        d/d logit(s, a) = P(s) pi(a|s) (q(s, a) - sum_b pi(b|s) q(s, b))
        """
        return self.visits * self.centred(q)

    @cached_property
    def score_function(self) -> Float64[np.ndarray, "move move"]:
        """Row a is the gradient of log pi(a|s) by all logits: 1 at a, less pi in its state."""
        same = self.state_of[:, None] == self.state_of
        return np.eye(len(self.moves)) - same * self.policy

    @cached_property
    def trajectories(self) -> list[Trajectory]:
        """Every response that the policy can sample."""
        return list(self._from(next(iter(self.states)), (), 1.0))

    def _from(
        self, state: str, before: tuple[int, ...], probability: float
    ) -> Iterator[Trajectory]:
        for number in self.numbers[state]:
            moves, chance = (*before, number), probability * float(self.policy[number])
            to = self.moves[number].to
            if isinstance(to, str):
                yield from self._from(to, moves, chance)
            else:
                yield Trajectory(moves, chance, to)

    def counts_of(self, kind: str) -> Vector:
        """1 for each move of a kind, else 0: the rewards whose expected sum counts such moves."""
        return np.array([float(move.kind == kind) for move in self.moves])
