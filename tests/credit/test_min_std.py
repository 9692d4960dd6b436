"""`min_std` of PASS: the least std that a stream is divided by."""

from __future__ import annotations

import pytest
import torch

import stepcredit as sc
from stepcredit.errors import MethodError

ENDS = [[0, 1], [1], [0, 1], [1]]
NEAR = [[0.980, 0.987], [0.973], [0.1, 0.9], [0.4]]
"""Scores of two groups: in the first the std is 0.007, in the second 0.4."""


def rollouts(scores: list[list[float]] = NEAR) -> sc.Rollouts:
    steps = sc.Steps(ENDS, scores)
    return sc.Rollouts([0, 0, 1, 1], process=steps, outcome=[1.0, 0.0, 1.0, 0.0])


def process_alone(**settings: object) -> torch.Tensor:
    weights = {"process": 1.0}
    return sc.PASS(weights=weights, eps=0.0, **settings)(rollouts()).packed()  # type: ignore[arg-type]


def test_a_group_below_the_limit_is_divided_by_it_and_others_by_their_std() -> None:
    limited, plain = process_alone(min_std=0.1), process_alone()
    centred = process_alone(operator="center")
    assert limited[:4].tolist() == pytest.approx((centred[:4] / 0.1).tolist(), rel=1e-5)
    assert limited[4:].tolist() == plain[4:].tolist()
    assert float(plain[0]) > 10 * float(limited[0]) > 0


def test_a_limit_by_name_leaves_the_other_streams_alone() -> None:
    by_name = sc.PASS(min_std={"process": 0.1})(rollouts()).packed()
    outcome = sc.PASS(weights={"outcome": 1.0})(rollouts()).packed()
    without = sc.PASS(min_std={"process": 1e9})(rollouts()).packed()
    assert sc.PASS(min_std=1e9)(rollouts()).packed().abs().max() < 1e-8
    gap = (without[4:] - sc.PASS(weights={"outcome": 1.0}, k=0.7)(rollouts()).packed()[4:]).abs()
    assert torch.allclose(without[2:4], outcome[2:4])  # one chunk: nothing but the outcome is left
    assert gap[2:].max() < 1e-8
    assert not torch.equal(by_name, without)


def test_off_is_the_default_and_changes_no_bit() -> None:
    assert sc.PASS().min_std == 0
    plain = sc.PASS()(rollouts()).packed()
    for least in (0, 0.0, {}, {"process": 0.0}, {"outcome": 0.1}):
        assert torch.equal(sc.PASS(min_std=least)(rollouts()).packed(), plain)


def test_equal_scores_stay_zero() -> None:
    equal = [[0.5, 0.5], [0.5], [0.5, 0.5], [0.5]]
    method = sc.PASS(weights={"process": 1.0}, min_std=0.1)
    assert method(rollouts(equal)).packed().tolist() == [0.0] * 8


def test_a_stream_that_loses_its_weight_loses_its_limit() -> None:
    method = sc.PASS(weights={"process": 1.0, "outcome": 1.0}, min_std={"process": 0.1})
    assert method.with_weights({"outcome": 1.0}).min_std == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (-1, "min_std: expected a number of at least 0, got -1"),
        ({"process": True}, "min_std: expected a number of at least 0 for 'process', got True"),
        ({"prm": 0.1}, "min_std: 'prm' has no weight"),
    ],
)
def test_what_is_refused(value: object, line: str) -> None:
    with pytest.raises(MethodError) as refused:
        sc.PASS(min_std=value)  # type: ignore[arg-type]
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("settings", "stream", "operator"),
    [
        ({"operator": "center", "min_std": 0.1}, "process", "center"),
        ({"outcome_operator": "center", "min_std": {"outcome": 0.1}}, "outcome", "center"),
        (
            {"operator": {"process": "abs_max"}, "min_std": {"outcome": 0.1, "process": 0.1}},
            "process",
            "abs_max",
        ),
    ],
)
def test_a_limit_that_no_operator_reads_is_refused(
    settings: dict[str, object], stream: str, operator: str
) -> None:
    with pytest.raises(MethodError) as caught:
        sc.PASS(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"min_std: has no effect on {stream!r}, whose operator is {operator!r}: only "
        "'masked_norm' divides by a std"
    )


def test_one_limit_for_all_streams_needs_one_stream_that_it_acts_on() -> None:
    mixed = sc.PASS(operator={"process": "center"}, min_std=0.1)
    assert mixed.min_std == 0.1
    assert sc.PASS(operator="center", min_std={"process": 0.0}).operator == "center"
