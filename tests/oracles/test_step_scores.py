"""The four signals."""

from __future__ import annotations

import numpy as np
import pytest

from stepcredit.oracles import SIGNALS, WORLDS, World

EVERY_WORLD = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


@EVERY_WORLD
def test_the_right_score_orders_moves_as_their_exact_advantages(world: World) -> None:
    scores = SIGNALS["right"].move_scores(world, 0)
    assert scores == pytest.approx(2 * world.q - 1)
    assert (abs(scores) <= 1).all()


@EVERY_WORLD
def test_hackable_scores_no_move_above_filler_and_no_sibling_above_a_stop(world: World) -> None:
    scores = SIGNALS["hackable"].move_scores(world, 0)
    filler, stop = world.counts_of("filler") > 0, world.counts_of("stop") > 0
    assert (scores[filler] == 1).all()
    assert (scores <= 1).all()
    for number in np.flatnonzero(stop):
        siblings = (world.state_of == world.state_of[number]) & ~filler
        assert scores[number] == scores[siblings].max()
    honest = ~filler & ~stop
    assert (scores[honest] == SIGNALS["right"].move_scores(world, 0)[honest]).all()


@EVERY_WORLD
@pytest.mark.parametrize("signal", SIGNALS)
def test_the_teacher_is_a_policy(world: World, signal: str) -> None:
    teacher = world.policy * np.exp(SIGNALS[signal].log_ratios(world, 0))
    for numbers in world.numbers.values():
        assert teacher[numbers].sum() == pytest.approx(1.0)


def test_noise_is_the_same_again_and_another_in_each_draw() -> None:
    noisy, world = SIGNALS["noisy"], WORLDS["filler"]
    assert (noisy.move_scores(world, 1) == noisy.move_scores(world, 1)).all()
    draws = np.array([noisy.move_scores(w, d) - 2 * w.q + 1 for d in range(200) for w in [world]])
    assert draws.std() == pytest.approx(noisy.noise, rel=0.05)
    assert abs(draws.mean()) < 0.05
