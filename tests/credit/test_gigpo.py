"""GiGPO beside hand computation: levels, single states, rounding, refusals, what is logged."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from tests.credit.strategies import build, random_rows

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics
from stepcredit.credit.stages import StateGroups
from stepcredit.errors import MethodError, RolloutError

PLAIN = {"gate": False, "norm": "center", "gamma": 1.0, "outcome_in_return": False}
"""Centred scores, one step each: the step part is x - mean of the state."""


def one_step_each(scores: list[float], states: list[Any]) -> sc.Rollouts:
    ends = [[0] for _ in scores]
    return sc.Rollouts(
        [0] * len(scores),
        process=sc.Steps(ends, [[score] for score in scores]),
        step_states=[[state] for state in states],
    )


def step_parts(scores: list[float], states: list[Any], **settings: Any) -> list[float]:
    found: list[float] = (
        sc.GiGPO(**PLAIN, **settings)(one_step_each(scores, states)).packed().tolist()
    )
    return found


FINE_AND_COARSE = [["a", "x"], ["a", "x"], ["b", "x"], ["c", "y"]]


def test_fallback_takes_the_finest_state_that_has_another_member() -> None:
    found = step_parts([1.0, 3.0, 8.0, 5.0], FINE_AND_COARSE)
    assert found == [-1.0, 1.0, 4.0, 0.0]  # 2 is the mean of a, 4 that of x; y has one member


@pytest.mark.parametrize(("alpha", "fine"), [(0.0, 1 / 2), (1.0, 2 / 3), (2.0, 4 / 5)])
def test_weighted_levels_are_those_of_hgpo(alpha: float, fine: float) -> None:
    """w_k = (k + 1)^alpha, k = 0 the coarsest, over the levels with another member."""
    found = step_parts([1.0, 3.0, 8.0, 5.0], FINE_AND_COARSE, combine="weighted", alpha=alpha)
    first = fine * (1 - 2) + (1 - fine) * (1 - 4)
    second = fine * (3 - 2) + (1 - fine) * (3 - 4)
    assert found == pytest.approx([first, second, 8 - 4, 0.0])


def test_one_level_is_the_same_either_way() -> None:
    rollouts = build(random_rows(Random(3), [4, 4], kind="real", states=1))
    fallback, weighted = (sc.GiGPO(combine=how)(rollouts) for how in ("fallback", "weighted"))
    assert torch.equal(fallback.packed(), weighted.packed())


def test_a_state_may_be_met_twice_in_one_response() -> None:
    rollouts = sc.Rollouts(
        [0], process=sc.Steps([[0, 1, 2]], [[1.0, 2.0, 6.0]]), step_states=[["s", "t", "s"]]
    )
    found = sc.GiGPO(**{**PLAIN, "gamma": 0.0})(rollouts).packed().tolist()
    assert found == [-2.5, 0.0, 2.5]


def test_where_every_state_is_met_once_it_is_grpo() -> None:
    rows = random_rows(Random(5), [4, 3], kind="real", outcome="known", states=1)
    for row in rows:
        row["step_states"] = [f"{id(row)} {at}" for at in range(len(row["step_ends"]))]
        row.pop("format", None)
    rollouts, method = build(rows), sc.GiGPO(gate=False)
    assert torch.equal(method(rollouts).packed(), sc.GRPO()(rollouts).packed())
    assert training_metrics(rollouts, method)["single_state_share"] == 1.0
    assert "100.0% of the steps are alone in their state" in str(method.explain(rollouts))


def test_the_share_of_single_states_is_that_of_the_coarsest_level() -> None:
    fine = one_step_each([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "c"])
    both = one_step_each([1.0, 2.0, 3.0, 4.0], FINE_AND_COARSE)
    assert StateGroups.of(fine).alone_share == 0.5
    assert training_metrics(both, sc.GiGPO())["single_state_share"] == 0.25
    plain = fine.replaced(step_states=None)
    assert "single_state_share" not in training_metrics(plain, sc.PASS())


def test_equal_keys_of_two_groups_are_two_states() -> None:
    steps = sc.Steps([[0]] * 4, [[1.0], [3.0], [10.0], [30.0]])
    rollouts = sc.Rollouts([0, 0, 1, 1], process=steps, step_states=[["s"]] * 4)
    assert sc.GiGPO(**PLAIN)(rollouts).packed().tolist() == [-1.0, 1.0, -10.0, 10.0]


@pytest.mark.parametrize("norm", ["std", "center"])
def test_returns_that_cancel_are_zero_and_not_rounding(norm: str) -> None:
    """0.1 + 0.2 - 0.3 is not 0 in floats; beside a return of exactly 0 it would be all there is."""
    rollouts = sc.Rollouts(
        [0, 0],
        process=sc.Steps([[0, 1, 2], [0]], [[0.1, 0.2, -0.3], [0.0]]),
        step_states=[["s", "t", "u"], ["s"]],
    )
    found = sc.GiGPO(norm=norm, gamma=1.0)(rollouts)
    assert found.packed().tolist() == [0.0] * 4


def test_an_unknown_outcome_adds_nothing() -> None:
    rows = random_rows(Random(1), [4], kind="real", states=1, gate=False)
    known = [row | {"outcome": 0.0} for row in rows]
    unknown = [row | {"outcome": None} for row in rows]
    first, second = (sc.GiGPO()(build(each)).packed() for each in (known, unknown))
    assert torch.equal(first, second)


def test_explain_shows_the_stages() -> None:
    rollouts = build(random_rows(Random(2), [3], states=3))
    stages = list(sc.GiGPO().explain(rollouts).stages)
    assert stages == [
        *("return", "members 0", "members 1", "members 2", "N(return)"),
        *("N(outcome)", "N(format)"),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"weights": {"outcome": 1.0}}, "weights: expected one process stream beside outcome"),
        ({"weights": {"a": 1.0, "b": 1.0}}, "weights: expected one process stream beside outcome"),
        ({"gamma": 1.5}, "gamma: expected a number of at least 0 and at most 1, got 1.5"),
        ({"norm": "masked_norm"}, "norm: expected one of std, center, got 'masked_norm'"),
        ({"combine": "mean"}, "combine: expected one of fallback, weighted, got 'mean'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(MethodError) as caught:
        sc.GiGPO(**settings)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("process", "reason"),
    [
        (sc.Tokens([[1.0, 2.0], [1.0]]), "row 0: process: a score per token: gigpo reads one per"),
        (sc.Steps([[1], [0]], [[1.0], [1.0]]), "row 0: process: scores of other steps than those"),
        (sc.Steps([[], [0]], [[], [1.0]]), None),
    ],
)
def test_scores_must_be_of_the_steps_that_have_states(process: Any, reason: str | None) -> None:
    rollouts = sc.Rollouts(
        [0, 0], [2, 1], process, step_ends=[[0, 1], [0]], step_states=[["s", "t"], ["s"]]
    )
    if reason is None:
        assert sc.GiGPO()(rollouts).lengths.tolist() == [2, 1]
        return
    with pytest.raises(RolloutError) as caught:
        sc.GiGPO()(rollouts)
    assert str(caught.value).startswith(reason)


def test_a_stream_of_another_name_needs_its_weight() -> None:
    rows = random_rows(Random(4), [3], states=1)
    plain = build(rows)
    named = plain.with_streams({"prm": plain.streams["process"]})
    weights = {"prm": 1.0, "outcome": 1.0, "format": 1.0}
    assert torch.equal(sc.GiGPO(weights=weights)(named).packed(), sc.GiGPO()(plain).packed())
    with pytest.raises(MethodError) as caught:
        sc.GiGPO()(named)
    assert "no stream is named 'process'" in str(caught.value)
