"""The simulated process reward model: its levels, its noise, and whether it pays for nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab.arithmetic import Graded, check, demonstration, problems
from stepcredit.lab.simulated_prm import SIGNALS, Simulated, filler_minus_right

Rollout = tuple[str, str, Graded]


@pytest.fixture(scope="module")
def rollouts() -> list[Rollout]:
    """Demonstrations, half of them with each result wrong."""
    generator = keyed_generator(0, "signals test")
    rows = []
    for index, problem in enumerate(problems(1500)):
        text = demonstration(problem.prompt, generator, filler=0.3)
        if index % 2:
            text = text.replace("=", "=9\n", 1) if index % 4 == 1 else f"9*9=0\n{text}"
        rows.append((problem.prompt, text, check(problem.prompt, text)))
    return rows


def by_kind(signal: Simulated, rollouts: list[Rollout]) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {}
    for prompt, text, graded in rollouts:
        for kind, score in zip(graded.kinds, signal.scores(prompt, text, graded), strict=True):
            seen.setdefault(kind, []).append(score)
    return seen


@pytest.mark.parametrize(("name", "filler"), [("noisy", 0.70), ("hackable", 0.95)])
def test_levels_and_flips(name: str, filler: float, rollouts: list[Rollout]) -> None:
    seen = by_kind(Simulated(name, seed=1), rollouts)
    assert np.median(seen["right"]) == pytest.approx(0.83, abs=0.03)
    assert np.median(seen["wrong"]) == pytest.approx(0.27, abs=0.04)
    assert np.median(seen["filler"]) == pytest.approx(filler, abs=0.03)
    assert np.mean(np.array(seen["right"]) < 0.55) == pytest.approx(0.10, abs=0.02)
    assert np.mean(np.array(seen["wrong"]) > 0.55) == pytest.approx(0.10, abs=0.03)
    assert min(map(min, seen.values())) >= 0.01
    assert max(map(max, seen.values())) <= 1.0


def test_exact_is_the_checkers_verdict(rollouts: list[Rollout]) -> None:
    expected = {"right": 1, "answer": 1, "wrong": 0, "bad_answer": 0, "malformed": 0, "filler": 0.5}
    seen = by_kind(Simulated("exact"), rollouts)
    assert {kind: set(scores) for kind, scores in seen.items()} == {
        kind: {score} for kind, score in expected.items()
    }


def test_centred_and_negative_are_the_noisy_score_on_another_scale(rollouts: list[Rollout]) -> None:
    for rollout in rollouts[:50]:
        noisy, centred, negative = (
            Simulated(name, seed=2).scores(*rollout) for name in ("noisy", "centred", "negative")
        )
        assert centred == [2 * score - 1 for score in noisy]
        assert negative == [math.log(score) for score in noisy]
        assert max(negative) <= 0


@pytest.mark.parametrize("name", SIGNALS)
def test_noise_depends_on_content_and_seed_alone(name: str, rollouts: list[Rollout]) -> None:
    forward = [Simulated(name, seed=3).scores(*rollout) for rollout in rollouts[:40]]
    backward = [Simulated(name, seed=3).scores(*rollout) for rollout in rollouts[:40][::-1]]
    assert forward == backward[::-1]
    other = [Simulated(name, seed=4).scores(*rollout) for rollout in rollouts[:40]]
    assert (other == forward) == (name == "exact")


def test_an_empty_completion_has_no_scores() -> None:
    assert Simulated().scores("1+1+1+1=", "", check("1+1+1+1=", "")) == []


@pytest.mark.parametrize(
    ("name", "pays"),
    [("exact", False), ("noisy", False), ("hackable", True), ("centred", False),
     ("negative", False)],
)  # fmt: skip
def test_only_the_hackable_signal_pays_filler_more(
    name: str, pays: bool, rollouts: list[Rollout]
) -> None:
    signal = Simulated(name)
    gap = filler_minus_right([signal.scores(*r) for r in rollouts], [r[2].kinds for r in rollouts])
    assert gap is not None
    assert (gap > 0) == pays


def test_the_gap_is_a_difference_of_means_over_steps() -> None:
    gap = filler_minus_right(
        [[1.0, 5.0], [2.0, 3.0, 9.0]], [["filler", "right"], ["filler", "right", "x"]]
    )
    assert gap == pytest.approx(1.5 - 4.0)
    assert filler_minus_right([[1.0]], [["right"]]) is None
    assert filler_minus_right([], []) is None


def test_refuses() -> None:
    with pytest.raises(StepCreditError) as error:
        Simulated("honest")
    expected = "exact, noisy, hackable, centred, negative"
    assert str(error.value) == f"signal: expected one of {expected}, got 'honest'"
    with pytest.raises(StepCreditError) as error:
        filler_minus_right([[1.0], [1.0]], [["right"], ["right", "filler"]])
    assert str(error.value) == "row 1: values: expected 2 values, one per step, got 1"


def test_the_level_of_filler_and_the_share_of_flips_can_be_set(rollouts: list[Rollout]) -> None:
    seen = by_kind(Simulated("noisy", seed=5, filler=0.3, flips=0.0), rollouts)
    assert np.mean(seen["filler"]) == pytest.approx(0.3, abs=0.02)
    assert np.mean(seen["right"]) == pytest.approx(0.85, abs=0.02)
    half = by_kind(Simulated("noisy", seed=5, flips=0.5), rollouts)
    assert np.mean(half["right"]) == pytest.approx((0.85 + 0.25) / 2, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"filler": 1.5}, "filler: expected a number from 0 to 1, got 1.5"),
        ({"flips": -0.1}, "flips: expected a number from 0 to 1, got -0.1"),
        ({"name": "exact", "flips": 0.2}, "signal exact: has no noise that could be set"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], line: str) -> None:
    with pytest.raises(StepCreditError, match=line):
        Simulated(**settings)
