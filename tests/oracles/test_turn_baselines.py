"""Baselines of turn returns: the scale of each turn's gradient, from a binomial distribution."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

import stepcredit as sc
from stepcredit.oracles import (
    SIGNALS,
    TURN_BASELINES,
    WORLDS,
    MeanGradient,
    SignalledGroups,
    TurnBaselineRow,
    WorldGroups,
    credit_of,
    turn_baseline_table,
)

SIZE = 3
UNBIASED = [name for name in TURN_BASELINES if "turn-return" in name or name.endswith("turn: 0")]
ROWS = {
    (row.world, row.baseline): row for row in turn_baseline_table(tuple(WORLDS), group_size=SIZE)
}


def reach(name: str, turn: int) -> float:
    """The probability that a response has that turn, from 0."""
    return sum(t.probability for t in WORLDS[name].trajectories if len(t.moves) > turn)


def others(name: str, turn: int) -> list[float]:
    """The probability that 0, 1, ... of the other responses of the group have that turn."""
    p = reach(name, turn)
    return [comb(SIZE - 1, m) * p**m * (1 - p) ** (SIZE - 1 - m) for m in range(SIZE)]


def turns_with_a_gradient(row: TurnBaselineRow) -> list[tuple[int, float]]:
    return [(turn, scale) for turn, scale in enumerate(row.scales) if scale is not None]


def test_there_are_unbiased_and_biased_baselines() -> None:
    assert len(UNBIASED) == 4
    assert len(TURN_BASELINES) == 9


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("baseline", UNBIASED)
def test_a_baseline_of_the_others_changes_no_turn(name: str, baseline: str) -> None:
    row = ROWS[name, baseline]
    assert row.error == pytest.approx(0.0, abs=1e-6)
    for _, scale in turns_with_a_gradient(row):
        assert scale == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_a_turns_own_mean_scales_it_by_one_less_a_share(name: str) -> None:
    """E[1 - 1/n], n = 1 + the others that reach the turn."""
    row = ROWS[name, "all at the turn, itself counted"]
    for turn, scale in turns_with_a_gradient(row):
        expected = sum(p * (1 - 1 / (m + 1)) for m, p in enumerate(others(name, turn)))
        assert scale == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_a_lone_turn_without_credit_scales_by_the_chance_of_company(name: str) -> None:
    row = ROWS[name, "others at the turn, a lone turn: no credit"]
    for turn, scale in turns_with_a_gradient(row):
        assert scale == pytest.approx(1 - others(name, turn)[0], abs=1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_the_mean_of_all_responses_makes_every_turn_smaller_alike(name: str) -> None:
    row = ROWS[name, "all trajectories, itself counted"]
    assert row.error == pytest.approx(0.0, abs=1e-6)
    for _, scale in turns_with_a_gradient(row):
        assert scale == pytest.approx(1 - 1 / SIZE, abs=1e-9)


@pytest.mark.parametrize("name", ["recovery", "horizon"])
def test_where_turns_differ_in_number_the_direction_is_wrong(name: str) -> None:
    for baseline in TURN_BASELINES:
        biased = baseline not in (*UNBIASED, "all trajectories, itself counted")
        assert (ROWS[name, baseline].error > 1e-3) == biased, baseline


def test_the_sum_of_the_turns_is_the_whole_gradient() -> None:
    """The mean gradient of `turn-return` on several turns, beside a loop over all groups."""
    groups = WorldGroups(WORLDS["recovery"], 2)
    world, batch = groups.world, SignalledGroups((groups,), SIGNALS["right"])
    credit = credit_of(sc.TurnReturn(process_weight=0.0), batch)
    mean, step = np.zeros(len(world.moves)), 0
    for group, chance in enumerate(groups.chances):
        pair = [world.trajectories[m] for m in groups.members[2 * group : 2 * group + 2]]
        for own, other in (pair, pair[::-1]):
            for move in own.moves:
                wanted = own.outcome - other.outcome
                assert credit[step] == pytest.approx(wanted, abs=1e-6)
                mean += chance * credit[step] * world.score_function[move] / 2
                step += 1
    assert MeanGradient.of(groups, credit).mean == pytest.approx(mean, abs=1e-12)
    assert mean == pytest.approx(world.gradient(world.q), abs=1e-6)
