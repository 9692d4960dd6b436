"""The mean gradient: laws of REINFORCE, and loops over every group."""

from __future__ import annotations

import math

import numpy as np
import pytest

import stepcredit as sc
from stepcredit.oracles import (
    SIGNALS,
    WORLDS,
    MeanGradient,
    SignalledGroups,
    Validity,
    WorldGroups,
    credit_of,
    useful_groups,
)

SIZE = 3


def batch_of(name: str, signal: str = "right") -> SignalledGroups:
    return SignalledGroups((WorldGroups(WORLDS[name], SIZE),), SIGNALS[signal])


@pytest.mark.parametrize("name", WORLDS)
def test_the_exact_advantage_gives_the_exact_gradient(name: str) -> None:
    batch = batch_of(name)
    gradient = MeanGradient.of(batch.parts[0], batch.advantage)
    world = gradient.world
    assert gradient.mean == pytest.approx(world.gradient(world.q), abs=1e-14)
    validity = Validity.of([gradient])
    assert validity.cosine == pytest.approx(1.0)
    assert validity.error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", WORLDS)
def test_leave_one_out_is_unbiased_and_the_group_mean_shrinks_it(name: str) -> None:
    batch, world = batch_of(name), WORLDS[name]
    exact = world.gradient(world.q)
    rloo = MeanGradient.of(batch.parts[0], credit_of(sc.RLOO(), batch))
    centred = MeanGradient.of(batch.parts[0], credit_of(sc.DrGRPO(), batch))
    assert rloo.mean == pytest.approx(exact, abs=1e-7)
    assert centred.mean == pytest.approx(exact * (1 - 1 / SIZE), abs=1e-7)


def test_mean_and_variance_equal_a_loop_over_groups() -> None:
    batch = batch_of("stopping", "hackable")
    part, world = batch.parts[0], WORLDS["stopping"]
    credit = credit_of(sc.PASS(), batch)
    mean, square, step = np.zeros(len(world.moves)), 0.0, 0
    for group, chance in enumerate(part.chances):
        gradient = np.zeros(len(world.moves))
        for member in part.members[group * SIZE : (group + 1) * SIZE]:
            for move in world.trajectories[member].moves:
                numbers = list(world.numbers[list(world.states)[world.state_of[move]]])
                gradient[numbers] -= credit[step] * world.policy[numbers] / SIZE
                gradient[move] += credit[step] / SIZE
                step += 1
        mean += chance * gradient
        square += chance * float(gradient @ gradient)
    found = MeanGradient.of(part, credit)
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.variance == pytest.approx(square - float(mean @ mean))
    validity = Validity.of([found])
    assert validity.variance == pytest.approx(found.variance / float(mean @ mean))


@pytest.mark.parametrize("kind", ["filler", "stop"])
def test_pushes_are_derivatives_along_the_mean_gradient(kind: str) -> None:
    batch = batch_of("stopping", "hackable")
    found = MeanGradient.of(batch.parts[0], credit_of(sc.PASS(), batch))
    direction = found.mean / np.linalg.norm(found.mean)

    def counted(size: float) -> float:
        """The expected number of moves of that kind after a step along the direction."""
        weights = np.array([m.weight for m in found.world.moves]) * np.exp(size * direction)
        states = {
            state: tuple(
                type(move)(weights[number], move.to, move.kind)
                for number, move in zip(numbers, found.world.states[state], strict=True)
            )
            for state, numbers in found.world.numbers.items()
        }
        moved = type(found.world)("moved", "", states)
        return float(moved.visits @ moved.counts_of(kind))

    rise = (counted(1e-4) - counted(-1e-4)) / 2e-4
    assert getattr(Validity.of([found]), kind) == pytest.approx(rise, abs=1e-7)


def test_useful_groups_are_where_both_mean_squared_errors_meet() -> None:
    batch = batch_of("delayed", "hackable")
    world = batch.parts[0].world
    exact = world.gradient(world.q)
    found = {
        method: MeanGradient.of(batch.parts[0], credit_of(sc.estimator(method), batch))
        for method in ("pass", "rloo")
    }

    def least_error(method: str, groups: float) -> float:
        """The least E|exact - c g|^2 over c, by a search, for the mean of that many groups."""
        g = found[method]
        errors = [
            float((exact - c * g.mean) @ (exact - c * g.mean)) + c * c * g.variance / groups
            for c in np.linspace(0.0, 1.5, 150_001)
        ]
        return min(errors)

    rival = Validity.of([found["rloo"]])
    meet = useful_groups(Validity.of([found["pass"]]), rival.variance)
    assert 0 < meet < math.inf
    assert least_error("pass", meet) == pytest.approx(least_error("rloo", meet), rel=1e-4)
    assert least_error("pass", meet / 2) < least_error("rloo", meet / 2)
    assert least_error("pass", meet * 2) > least_error("rloo", meet * 2)
    assert useful_groups(rival, rival.variance / 2) == 0
    assert math.isinf(useful_groups(rival, rival.variance * 2))


def test_no_gradient_has_no_direction() -> None:
    batch = batch_of("delayed")
    validity = Validity.of([MeanGradient.of(batch.parts[0], np.zeros_like(batch.advantage))])
    assert (validity.cosine, validity.error, validity.filler) == (0.0, 1.0, 0.0)
    assert math.isinf(validity.variance)
