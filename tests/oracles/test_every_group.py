"""Groups and their probabilities, and the rollouts made of them."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from stepcredit.oracles import SIGNALS, WORLDS, SignalledGroups, WorldGroups
from stepcredit.oracles.every_group import GROUP_SIZE, groups_of


@pytest.mark.parametrize("name", ["delayed", "horizon"])
def test_groups_are_all_ordered_groups_counted_together(name: str) -> None:
    trajectories = WORLDS[name].trajectories
    chances: Counter[tuple[int, ...]] = Counter()
    for members in itertools.product(range(len(trajectories)), repeat=3):
        product = np.prod([trajectories[member].probability for member in members])
        chances[tuple(sorted(members))] += product
    assert dict(groups_of(trajectories, 3)) == pytest.approx(dict(chances))


@pytest.mark.parametrize("name", WORLDS)
def test_probabilities_add_up_and_give_the_expected_outcome(name: str) -> None:
    groups = WorldGroups(WORLDS[name])
    outcomes = np.array([t.outcome for t in groups.world.trajectories])[groups.members]
    means = outcomes.reshape(-1, GROUP_SIZE).mean(1)
    assert groups.chances.sum() == pytest.approx(1.0)
    assert groups.chances @ means == pytest.approx(groups.world.expected_outcome)


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
def test_rollouts_hold_what_each_trajectory_has(signal: object) -> None:
    parts = (WorldGroups(WORLDS["filler"], 2), WorldGroups(WORLDS["stopping"], 2))
    batch = SignalledGroups(parts, signal)  # type: ignore[arg-type]
    rollouts = batch.rollouts
    row = step = 0
    for part in parts:
        scores = batch.signal.move_scores(part.world, 0)
        ratios = batch.signal.log_ratios(part.world, 0)
        for member in part.members:
            trajectory = part.world.trajectories[member]
            moves, size = list(trajectory.moves), len(trajectory.moves)
            steps = slice(step, step + size)
            assert rollouts.outcome[row] == trajectory.outcome
            assert rollouts.group_index[row] == row // 2
            wanted = scores[moves], ratios[moves]
            if batch.signal.name == "shifted":
                wanted = tuple(np.append(0.0, values[:-1]) for values in wanted)
            assert rollouts.streams["process"].values[steps].numpy() == pytest.approx(wanted[0])
            logprobs = {name: s.values[steps].numpy() for name, s in rollouts.logprobs.items()}
            assert logprobs["student"] == pytest.approx(np.log(part.world.policy[moves]))
            assert logprobs["teacher"] - logprobs["student"] == pytest.approx(wanted[1])
            assert batch.advantage[steps] == pytest.approx(part.world.advantage[moves])
            row, step = row + 1, step + size
    assert rollouts.num_rollouts == row
    assert batch.chance.shape == (step,)
