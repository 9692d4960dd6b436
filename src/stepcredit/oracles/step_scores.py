"""The signals of the oracle table: what a reward model or a teacher says of each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stepcredit.keys import keyed_generator
from stepcredit.oracles.decision_process import Trajectory, Vector, World

NOISE = 0.5
"""Standard deviation of the noisy signal's errors; a right score lies in [-1, 1]."""
DRAWS = 8
"""Independent draws of the noisy signal's errors."""
TEACHER_TEMPERATURE = 0.5
"""T of the teacher: pi_T(a|s) is proportional to pi(a|s) exp(score / T)."""

Scores = Float64[np.ndarray, " step"]


@dataclass(frozen=True)
class StepSignal:
    """How one signal scores steps; all start from the exact 2 Q(s, a) - 1, in [-1, 1].

    Args:
        name: as the table shows it.
        about: one sentence.
        noise: standard deviation of the errors; one error per move, the same at each visit.
        shifted: whether a step's score stands on the next step, and 0 on the first.
        hackable: whether filler gets 1, and an early stop the highest score of its state.
        draws: independent draws of the errors.

    Example:
        >>> from stepcredit.oracles.worlds import DELAYED
        >>> SIGNALS["right"].move_scores(DELAYED, draw=0)[:2].tolist()
        [1.0, -1.0]
    """

    name: str
    about: str
    noise: float = 0.0
    shifted: bool = False
    hackable: bool = False
    draws: int = 1

    def move_scores(self, world: World, draw: int) -> Vector:
        """The score of each move, before any shift."""
        scores = 2.0 * world.q - 1.0
        if self.noise:
            errors = keyed_generator(draw, "oracles", self.name, world.name)
            scores = scores + self.noise * errors.standard_normal(len(scores))
        return _hacked(world, scores) if self.hackable else scores

    def on_steps(self, values: Vector, trajectory: Trajectory) -> Scores:
        """The values of a response's moves, where the signal puts them: shifted or not."""
        steps = values[list(trajectory.moves)]
        return np.concatenate([[0.0], steps[:-1]]) if self.shifted else steps

    def log_ratios(self, world: World, draw: int) -> Vector:
        """log pi_T(a|s) - log pi(a|s) of each move, for the teacher that the scores define."""
        tilt = self.move_scores(world, draw) / TEACHER_TEMPERATURE
        total = np.bincount(world.state_of, world.policy * np.exp(tilt))
        return tilt - np.log(total)[world.state_of]


def _hacked(world: World, scores: Vector) -> Vector:
    best = np.full(len(world.states), -np.inf)
    np.maximum.at(best, world.state_of, scores)
    stopped = np.where(world.counts_of("stop") > 0, best[world.state_of], scores)
    return np.where(world.counts_of("filler") > 0, 1.0, stopped)


SIGNALS = {
    signal.name: signal
    for signal in (
        StepSignal("right", "the exact 2 Q - 1"),
        StepSignal("noisy", f"right, with normal errors of {NOISE}", noise=NOISE, draws=DRAWS),
        StepSignal("shifted", "right, but each score stands on the next step", shifted=True),
        StepSignal("hackable", "right, but filler gets the highest score", hackable=True),
    )
}
"""All signals by name."""
