"""How an estimator's mean policy gradient compares with the exact one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stepcredit.oracles.decision_process import Vector, World
from stepcredit.oracles.every_group import WorldGroups

NO_GRADIENT = 1e-9
"""A gradient of at most this length counts as none."""


@dataclass(frozen=True)
class MeanGradient:
    """The exact mean and variance of a world's estimated gradient over all groups.

        g = 1/G sum_i sum_j A_ij grad log pi(a_ij | s_ij)

    Args:
        world: whose logits are the parameters.
        mean: E[g], (move,).
        variance: E|g - E[g]|^2.
    """

    world: World
    mean: Vector
    variance: float

    @classmethod
    def of(cls, groups: WorldGroups, credit: Float64[np.ndarray, " step"]) -> MeanGradient:
        """The gradient that credit gives in each group, averaged over all groups.

        Args:
            groups: of one world.
            credit: of each step of each rollout, in the order of `groups.steps`.
        """
        world, moves = groups.world, len(groups.world.moves)
        cells = groups.group_of_step * moves + groups.steps
        table = np.bincount(cells, credit, minlength=len(groups.chances) * moves)
        gradients = table.reshape(-1, moves) @ world.score_function / groups.size
        mean = groups.chances @ gradients
        variance = float(groups.chances @ ((gradients - mean) ** 2).sum(1))
        return cls(world, mean, variance)


@dataclass(frozen=True)
class Validity:
    """The mean gradients of all worlds, compared with the exact ones.

        cosine    of the exact and the mean gradient; the mean of the worlds' cosines
        error     |exact - c mean| / |exact| of all worlds' logits together, c >= 0 the best scale
        variance  sum of the worlds' variances / sum of their |mean gradient|^2
        filler, stop   change of the expected number of fillers, or of early stops, per unit step
                  along the mean gradient of all worlds

    Args:
        cosine: -1 to 1; a world without any gradient counts 0.
        error: 0 is exact, 1 is no better than no gradient.
        variance: of one group's gradient; infinite where there is no mean gradient.
        filler: above 0: the update grows filler.
        stop: above 0: the update stops early more often.
    """

    cosine: float
    error: float
    variance: float
    filler: float
    stop: float

    @classmethod
    def of(cls, gradients: Sequence[MeanGradient]) -> Validity:
        """The figures of one gradient per world, at least one."""
        exact = np.concatenate([g.world.gradient(g.world.q) for g in gradients])
        mean = np.concatenate([g.mean for g in gradients])
        cosines = [cosine(g.world.gradient(g.world.q), g.mean) for g in gradients]
        length = float(mean @ mean)
        noise = sum(g.variance for g in gradients)
        return cls(
            cosine=math.fsum(cosines) / len(cosines),
            error=_scaled_error(exact, mean),
            variance=noise / length if length > NO_GRADIENT**2 else math.inf,
            filler=_push(gradients, "filler"),
            stop=_push(gradients, "stop"),
        )


def useful_groups(validity: Validity, rival_variance: float) -> float:
    """Up to how many groups per task a method's gradient is nearer to the truth than a rival's.

    Over B groups of each task the least E|exact - c g|^2 / |exact|^2 at the best scale c is
    1 - (1 - error^2) / (1 + variance / B). This is the B at which it equals that of a rival whose
    mean gradient is exact.

    Args:
        validity: of the method.
        rival_variance: the rival's `variance`.

    Returns:
        0 where the rival is nearer for every B; infinite where the method is.

    Example:
        >>> useful_groups(Validity(1.0, 0.5, 0.2, 0.0, 0.0), rival_variance=1.0)
        2.2
    """
    gain = rival_variance * (1.0 - validity.error**2) - validity.variance
    if not gain > 1e-6 * rival_variance:  # less is rounding
        return 0.0
    return round(gain / validity.error**2, 9) if validity.error > 1e-6 else math.inf


def cosine(a: Vector, b: Vector) -> float:
    """The cosine of the angle between two vectors; 0 where one has no length.

    Example:
        >>> cosine(np.array([1.0, 0.0]), np.array([3.0, 4.0]))
        0.6
    """
    sizes = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return float(a @ b) / (sizes[0] * sizes[1]) if min(sizes) > NO_GRADIENT else 0.0


def _scaled_error(exact: Vector, mean: Vector) -> float:
    length = float(mean @ mean)
    scale = max(0.0, float(exact @ mean) / length) if length > NO_GRADIENT**2 else 0.0
    return float(np.linalg.norm(exact - scale * mean) / np.linalg.norm(exact))


def _push(gradients: Sequence[MeanGradient], kind: str) -> float:
    """The derivative of the expected number of moves of a kind along the mean gradient."""
    length = math.sqrt(sum(float(g.mean @ g.mean) for g in gradients))
    if length <= NO_GRADIENT:
        return 0.0
    return sum(_rise(g, kind) for g in gradients) / length


def _rise(gradient: MeanGradient, kind: str) -> float:
    world = gradient.world
    counted = world.expected_sum(world.counts_of(kind))
    return float(world.gradient(counted) @ gradient.mean)
