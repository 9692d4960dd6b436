"""Which batches are warned about, and which are not."""

from __future__ import annotations

from typing import Any

import pytest

import stepcredit as sc
from stepcredit.credit.metrics import credit_warnings, training_metrics
from stepcredit.errors import SettingError

ENDS = [[0, 1], [0, 1], [0, 1], [0, 1]]
CLEAR = [[0.9, 0.8], [0.2, 0.7], [0.1, 0.9], [0.6, 0.3]]


def warned(method: sc.Estimator | None = None, right_above: float = 0.0, **given: Any) -> dict:
    fields = {"process": sc.Steps(ENDS, CLEAR), "outcome": [1.0, 0.0, 1.0, 0.0], **given}
    rollouts = sc.Rollouts(group=[0, 0, 1, 1], **fields)
    figures = training_metrics(rollouts, method or sc.PASS(), right_above=right_above)
    return credit_warnings(rollouts, figures, right_above=right_above)


def test_an_ordinary_batch_has_no_warning() -> None:
    assert warned() == {}
    assert warned(format=[1.0] * 4, format_ok=[True] * 4) == {}
    assert warned(outcome=[1.0] * 4) == {}
    assert warned(outcome=None) == {}


def test_a_gate_that_shuts_for_all() -> None:
    given = {"format": [0.0] * 4, "format_ok": [False] * 4}
    assert warned(**given)["all-gated"] == (
        "all 4 responses broke their format, so none of them learns from its outcome or its steps; "
        "look at the template of the format reward"
    )
    assert warned(sc.PASS(gate=False), **given) == {}
    assert warned(sc.GRPO(), **given) == {}


def test_a_format_reward_of_0_and_minus_1_names_the_gate() -> None:
    found = warned(format=[0.0, -1.0, 0.0, 0.0], format_ok=[False] * 4)
    assert found["all-gated"].endswith("the format reward is at most 0: set format_gate")


def test_a_large_share_of_the_format_names_it() -> None:
    given = {"format": [1.0, 0.0, 1.0, 1.0], "format_ok": [True, False, True, True]}
    line = warned(**given)["format-share"]
    rollouts = sc.Rollouts(
        [0, 0, 1, 1], process=sc.Steps(ENDS, CLEAR), outcome=[1.0, 0.0, 1.0, 0.0], **given
    )
    share = training_metrics(rollouts, sc.PASS())["share/format"]
    assert share > 1 / 3
    assert line == (
        f"the format reward has {share:.0%} of the credit, where 25% of the responses broke their "
        "format: with the gate, these learn it by the sum of all weights; set gate=False, or give "
        "it a smaller weight"
    )
    assert warned(sc.PASS(weights=(1.0, 1.0, 0.01), gate=False), **given) == {}


def test_an_almost_constant_stream() -> None:
    scores = [[0.980, 0.987], [0.973, 0.985], [0.981, 0.99], [0.975, 0.98]]
    steps = sc.Steps(ENDS, scores)
    line = warned(process=steps)["nearly-constant/process"]
    assert line.startswith("the stream 'process' is almost constant (a std of 0.00")
    assert line.endswith("give it a smaller weight, or set pass's min_std")
    assert warned(sc.PASS(min_std={"process": 0.1}), process=steps) == {}
    assert warned(sc.PASS(operator="center"), process=steps) == {}
    assert warned(sc.GRPO(), process=steps) == {}


@pytest.mark.parametrize("method", [sc.PURE(), sc.PASS(operator="center")])
def test_an_almost_constant_stream_alone_is_not_said_to_be_divided(method: sc.Estimator) -> None:
    rollouts = sc.Rollouts([0, 0], process=sc.Steps([[0], [0]], [[0.980], [0.987]]))
    line = credit_warnings(rollouts, training_metrics(rollouts, method))["nearly-constant/process"]
    assert "has 100% of the credit; a method that divides it by its std credits" in line


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_stream_around_zero_is_not_constant_at_any_scale(scale: float) -> None:
    scores = [[(value - 0.5) * scale for value in row] for row in CLEAR]
    assert warned(process=sc.Steps(ENDS, scores)) == {}


def test_outcomes_that_are_all_right_or_all_wrong() -> None:
    partial = [0.2, 0.6, 1.0, 0.4]
    line = "the outcomes go from 0.2 to 1, so all are right at right_above=0: agreement and the "
    line += "figures of right and wrong responses say nothing"
    assert warned(outcome=partial) == {"right-above": line}
    assert (
        "all are wrong at right_above=1:" in warned(right_above=1.0, outcome=partial)["right-above"]
    )
    assert warned(right_above=0.5, outcome=partial) == {}


@pytest.mark.parametrize("wrong", ["0.5", float("nan"), True, None])
def test_right_above_is_a_finite_number(wrong: object) -> None:
    rollouts = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.5])
    with pytest.raises(SettingError, match=r"^right_above: expected a finite number, got "):
        training_metrics(rollouts, sc.GRPO(), right_above=wrong)  # type: ignore[arg-type]
