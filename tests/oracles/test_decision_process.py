"""Exact values, advantages and gradients, beside hand computation, brute force and autograd."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from stepcredit.errors import StepCreditError
from stepcredit.oracles import WORLDS, Move, World

EVERY_WORLD = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)

Path = tuple[tuple[str, int], ...]


def paths(world: World, state: str | float, before: Path = ()) -> Iterator[tuple[Path, float]]:
    """Every way to an end, with its outcome; nothing of the solver is used."""
    if not isinstance(state, str):
        yield before, state
        return
    for place, move in enumerate(world.states[state]):
        yield from paths(world, move.to, (*before, (state, place)))


def chance(world: World, path: Path) -> float:
    """The product of the moves' probabilities."""
    product = 1.0
    for state, place in path:
        weights = [move.weight for move in world.states[state]]
        product *= weights[place] / sum(weights)
    return product


def all_paths(world: World) -> list[tuple[Path, float, float]]:
    """Every path from the start, its outcome and its probability."""
    start = next(iter(world.states))
    return [(path, outcome, chance(world, path)) for path, outcome in paths(world, start)]


def expected(found: list[tuple[Path, float, float]]) -> float:
    return sum(o * p for _, o, p in found) / sum(p for _, _, p in found)


def test_two_steps_by_hand() -> None:
    world = World(
        "two",
        "A first step of 3 to 1, a second of 1 to 1 or 1 to 4.",
        {
            "start": (Move(3.0, "good"), Move(1.0, "bad")),
            "good": (Move(1.0, 1.0), Move(1.0, 0.0)),
            "bad": (Move(1.0, 1.0), Move(4.0, 0.0)),
        },
    )
    assert world.expected_outcome == pytest.approx(0.425)  # 3/4 of 1/2, and 1/4 of 1/5
    assert world.q == pytest.approx([0.5, 0.2, 1, 0, 1, 0])
    assert world.advantage == pytest.approx([0.075, -0.225, 0.5, -0.5, 0.8, -0.2])
    assert world.visits == pytest.approx([0.75, 0.25, 0.375, 0.375, 0.05, 0.2])
    assert world.gradient(world.q) == pytest.approx(
        [0.05625, -0.05625, 0.1875, -0.1875, 0.04, -0.04]
    )


@EVERY_WORLD
def test_advantages_equal_brute_force(world: World) -> None:
    found = all_paths(world)
    assert sum(p for _, _, p in found) == pytest.approx(1.0)
    assert world.expected_outcome == pytest.approx(expected(found))
    number = 0
    for state, moves in world.states.items():
        through = [f for f in found if any(s == state for s, _ in f[0])]
        for place in range(len(moves)):
            after = [f for f in through if (state, place) in f[0]]
            assert world.q[number] == pytest.approx(expected(after))
            assert world.advantage[number] == pytest.approx(
                expected(after) - expected(through), abs=1e-12
            )
            number += 1
    assert number == len(world.moves)


@EVERY_WORLD
def test_advantages_sum_to_zero_under_the_policy(world: World) -> None:
    for numbers in world.numbers.values():
        assert world.policy[numbers].sum() == pytest.approx(1.0)
        assert world.policy[numbers] @ world.advantage[numbers] == pytest.approx(0.0, abs=1e-15)


@EVERY_WORLD
def test_gradient_equals_autograd(world: World) -> None:
    logits = {
        state: torch.tensor([move.weight for move in moves]).double().log().requires_grad_()
        for state, moves in world.states.items()
    }
    start = next(iter(world.states))
    value = torch.zeros((), dtype=torch.float64)
    for path, outcome in paths(world, start):
        logp = sum(logits[state].log_softmax(0)[place] for state, place in path)
        value = value + outcome * torch.as_tensor(logp).exp()
    grads = torch.autograd.grad(value, list(logits.values()))
    assert world.gradient(world.q) == pytest.approx(torch.cat(grads).numpy(), abs=1e-7)


@EVERY_WORLD
@pytest.mark.parametrize("kind", ["filler", "stop"])
def test_counts_of_moves_equal_brute_force(world: World, kind: str) -> None:
    counted = sum(
        p * sum(world.states[s][place].kind == kind for s, place in path)
        for path, _, p in all_paths(world)
    )
    q = world.expected_sum(world.counts_of(kind))
    first = world.numbers[next(iter(world.states))]
    assert world.policy[first] @ q[first] == pytest.approx(counted)


@EVERY_WORLD
def test_filler_changes_nothing_and_is_in_every_world(world: World) -> None:
    filler = world.counts_of("filler") > 0
    assert filler.any()
    assert (world.advantage[filler] == 0).all()
    assert not (world.advantage == 0).all()


def test_worlds_show_what_they_are_named_after() -> None:
    def lengths(name: str) -> set[int]:
        return {len(trajectory.moves) for trajectory in WORLDS[name].trajectories}

    delayed = WORLDS["delayed"]
    assert np.flatnonzero(delayed.advantage).tolist() == [0, 1]  # the first step alone
    bad = WORLDS["recovery"].numbers["bad"]
    assert WORLDS["recovery"].advantage[bad[0]] > 0 > WORLDS["recovery"].advantage[bad[1]]
    assert lengths("horizon") == {2, 3, 4}
    stops = WORLDS["stopping"].counts_of("stop") > 0
    assert (WORLDS["stopping"].advantage[stops] <= 0).all()
    assert (WORLDS["stopping"].advantage[stops] < 0).any()


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"a": (Move(1.0, "b"),), "b": (Move(1.0, "a"),)}, "w.a: is reached again"),
        ({"a": (Move(1.0, "c"),)}, "w.a: leads to 'c', which is missing"),
        ({"a": ()}, "w.a: has no move"),
        ({"a": (Move(0.0, 1.0),)}, "w.a: expected weights above 0, got 0.0"),
    ],
)
def test_impossible_worlds_are_refused(states: dict[str, tuple[Move, ...]], message: str) -> None:
    with pytest.raises(StepCreditError) as caught:
        World("w", "", states)
    assert str(caught.value).startswith(message)
