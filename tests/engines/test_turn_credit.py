"""Turns of trajectories: advantages by turn and token, and the rLLM example on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engines.turn_values import SCORES, expected
from tests.loading import module_of

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages
from stepcredit.errors import EngineError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/rllm_advantages.py"


def test_turns_are_steps_and_turns_without_tokens_are_left_out() -> None:
    pair = [
        TurnTrajectory("a", [2, 0, 1], 1.0, scores=[0.9, 99.0, 0.4]),
        TurnTrajectory("a", [3, 2], 0.0, scores=SCORES[1]),
        TurnTrajectory("a", [0], 5.0, scores=[1.0]),
    ]
    found = turn_advantages(pair, sc.PASS(k=0.7))
    assert [[len(turn) for turn in one] for one in found] == [[2, 0, 1], [3, 2], [0]]
    (first, last), (third, fourth) = expected(0.7)
    assert found[0][0] == pytest.approx([first] * 2, abs=1e-5)
    assert found[0][2] == pytest.approx([last], abs=1e-5)
    assert found[1] == [
        pytest.approx([third] * 3, abs=1e-5),
        pytest.approx([fourth] * 2, abs=1e-5),
    ]


def test_groups_need_not_be_neighbours_and_states_are_compared() -> None:
    rows = [
        TurnTrajectory("a", [1], 1.0, states=["x"], scores=[1.0]),
        TurnTrajectory("b", [1], 1.0, states=["x"], scores=[5.0]),
        TurnTrajectory("a", [1, 1], 0.0, states=["x", "y"], scores=[0.0, 0.0]),
    ]
    method = sc.GiGPO(weights=(1.0, 0.0, 0.0), gamma=1.0, outcome_in_return=False)
    [[a]], [[b]], [[c], [d]] = turn_advantages(rows, method)
    assert a == pytest.approx(-c)
    assert a == pytest.approx(0.7071, abs=1e-3)
    assert (b, d) == (0.0, 0.0)
    assert turn_advantages([TurnTrajectory("a", [0, 0])]) == [[[], []]]


@pytest.mark.parametrize(
    ("trajectories", "line"),
    [
        ([TurnTrajectory("a", [1, 2], scores=[0.5])], "row 0: scores: 1 values for 2 turns"),
        ([TurnTrajectory("a", [1], states=["x", "y"])], "row 0: states: 2 values for 1 turn"),
        (
            [TurnTrajectory("a", [1], scores=[0.5]), TurnTrajectory("a", [1])],
            "row 1: scores: missing: other trajectories have scores",
        ),
    ],
)
def test_turns_that_do_not_fit_are_refused(trajectories: Any, line: str) -> None:
    with pytest.raises(EngineError) as error:
        turn_advantages(trajectories)
    assert str(error.value) == line


def test_rllm_gets_a_list_of_the_length_of_each_steps_tokens() -> None:
    example = module_of(EXAMPLE)

    def one(reward: float, sizes: list[int], scores: list[float]) -> Any:
        steps = [
            SimpleNamespace(response_ids=[7] * size, reward=score, advantage=None)
            for size, score in zip(sizes, scores, strict=True)
        ]
        return SimpleNamespace(steps=steps, reward=reward)

    group = SimpleNamespace(trajectories=[one(1.0, [2, 1], SCORES[0]), one(0.0, [3, 2], SCORES[1])])
    seen = []
    collect = example.with_credit(
        lambda groups, config: seen.append((groups, config)) or {},
        sc.PASS(k=1.0),
        step_score=lambda step: step.reward,
    )
    assert collect([group], "config") == {}
    assert seen == [([group], "config")]
    for trajectory, values in zip(group.trajectories, expected(), strict=True):
        for step, value in zip(trajectory.steps, values, strict=True):
            assert step.advantage == pytest.approx([value] * len(step.response_ids), abs=1e-5)
