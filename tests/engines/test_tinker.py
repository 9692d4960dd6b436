"""The Tinker example: each sampled token has its advantage, at its place among the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.loading import module_of

pytest.importorskip("tinker_cookbook", reason="tinker-cookbook is not installed: not tested")

import tinker
from tinker_cookbook.completers import TokensWithLogprobs
from tinker_cookbook.rl.data_processing import assemble_training_data, compute_advantages
from tinker_cookbook.rl.types import Trajectory, TrajectoryGroup, Transition

import stepcredit as sc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/tinker_advantages.py"


@pytest.fixture(scope="module")
def example() -> Any:
    return module_of(EXAMPLE)


def turn(seen: list[int], said: list[int], reward: float = 0.0, **metrics: Any) -> Transition:
    chunks = [tinker.EncodedTextChunk(tokens=seen)] if seen else []
    action = TokensWithLogprobs(tokens=said, maybe_logprobs=[-0.5] * len(said))
    return Transition(tinker.ModelInput(chunks=chunks), action, reward, False, metrics)


def group(*trajectories: list[Transition], final: list[float] | None = None) -> TrajectoryGroup:
    ending = tinker.ModelInput(chunks=[])
    found = [Trajectory(turns, ending) for turns in trajectories]
    return TrajectoryGroup(found, final or [0.0] * len(found), [{}] * len(found))


CONTINUED = [turn([1, 2], [3, 4], score=0.9), turn([1, 2, 3, 4, 5], [6], 1.0, score=0.4)]
"""One datum: the second observation continues the first turn."""
CUT = [turn([1, 2], [7, 8, 9], score=0.2), turn([50, 51], [10, 11], score=0.6)]
"""Two data: the second observation is another text."""


def advantages(datum: tinker.Datum) -> list[float]:
    return datum.loss_fn_inputs["advantages"].to_torch().tolist()


def by_token(data: list[tinker.Datum]) -> dict[int, float]:
    """The advantage of each target token; a token that stands twice must have one."""
    found: dict[int, float] = {}
    for datum in data:
        targets = datum.loss_fn_inputs["target_tokens"].to_torch().tolist()
        for token, value in zip(targets, advantages(datum), strict=True):
            assert found.setdefault(token, value) == value
    return found


def test_turns_are_steps_and_a_cut_trajectory_is_one_response(example: Any) -> None:
    credit = example.StepCreditData(sc.PASS(k=1.0), turn_score=lambda t: t.metrics["score"])
    data, places = credit([group(CONTINUED, CUT)])
    assert places == [
        {"group_idx": 0, "traj_idx": 0},
        {"group_idx": 0, "traj_idx": 1},
        {"group_idx": 0, "traj_idx": 1},
    ]
    scores = torch.tensor([0.9, 0.4, 0.2, 0.6]).double()
    z = ((scores - scores.mean()) / (scores.std() + 1e-6)).tolist()
    out = 0.5 / (0.5**0.5 + 1e-6)  # outcomes 1 and 0
    expected = {
        **dict.fromkeys((3, 4), (z[0] + z[1]) / 2 + out),
        6: z[1] + out,
        **dict.fromkeys((7, 8, 9), (z[2] + z[3]) / 2 - out),
        **dict.fromkeys((10, 11), z[3] - out),
        **dict.fromkeys((2, 5, 51), 0.0),
    }
    found = by_token(data)
    assert found.keys() == expected.keys()
    for token, value in expected.items():
        assert found[token] == pytest.approx(value, abs=1e-5)


def test_without_scores_a_centered_outcome_is_the_cookbooks_own(example: Any) -> None:
    groups = [group(CONTINUED, CUT, CUT[:1]), group(CUT, CONTINUED[:1], final=[2.0, 1.0])]
    own, own_places = assemble_training_data(groups, compute_advantages(groups))
    data, places = example.StepCreditData(sc.DrGRPO())(groups)
    assert places == own_places
    for datum, theirs in zip(data, own, strict=True):
        assert advantages(datum) == pytest.approx(advantages(theirs), abs=1e-6)
        for name in ("target_tokens", "logprobs", "mask"):
            mine = datum.loss_fn_inputs[name].to_torch()
            assert torch.equal(mine, theirs.loss_fn_inputs[name].to_torch())


def test_masked_turns_and_empty_trajectories_have_no_credit(example: Any) -> None:
    masked = [CONTINUED[0], turn([1, 2, 3, 4, 5], [6], score=9.0, parse_error_masked=1.0)]
    empty = [turn([], [])]
    credit = example.StepCreditData(turn_score=lambda t: t.metrics["score"])
    with_both, places = credit([group(masked, CUT, empty)])
    without, _ = credit([group([CONTINUED[0]], CUT)])
    assert [place["traj_idx"] for place in places] == [0, 1, 1]
    found = by_token(with_both)
    assert found[6] == 0.0
    assert {token: found[token] for token in by_token(without)} == by_token(without)
    assert credit([group(empty)]) == ([], [])


def test_states_reach_the_method(example: Any) -> None:
    first = [turn([1], [3], score=1.0, state="a"), turn([1, 3, 4], [5], score=0.0, state="b")]
    second = [turn([1], [6], score=0.0, state="a"), turn([1, 6, 4], [7], score=0.0, state="c")]
    method = sc.GiGPO(weights=(1.0, 0.0, 0.0), gamma=1.0)
    settings = {
        "turn_score": lambda t: t.metrics["score"],
        "turn_state": lambda t: t.metrics["state"],
    }
    found = by_token(example.StepCreditData(method, **settings)([group(first, second)])[0])
    assert found[3] == pytest.approx(-found[6])
    assert found[3] > 0.5
    assert (found[5], found[7]) == (0.0, 0.0)
