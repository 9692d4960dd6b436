"""Bounds on metrics: how they are read, and what a watch says from step to step."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest

from stepcredit.engines.watch import (
    Bound,
    CostStreams,
    Watch,
    check_watched,
    checked_bounds,
    every_stream,
)
from stepcredit.errors import EngineError

LENGTH = "stepcredit/length"


def lines(bound: Bound, *values: float | None) -> list[tuple[int, str]]:
    """What a watch says, by step."""
    watch, said = Watch([bound]), []
    for step, value in enumerate(values, start=1):
        given = {} if value is None else {bound.metric: value}
        verdict = watch.check(given, step)
        said += [(step, line) for line in (*verdict.warnings, *([verdict.stop or ""]))]
    return [(step, line) for step, line in said if line]


def test_values_outside_must_follow_each_other() -> None:
    bound = Bound(LENGTH, high=8.0, values=3, stops=True)
    said = lines(bound, 9.0, 9.0, 8.0, 9.0, 9.0, 10.0)
    assert said == [
        (6, "watch: step 6: stepcredit/length is 10, above its max of 8, for 3 values in a row")
    ]


def test_a_warning_comes_once_until_the_value_is_inside_again() -> None:
    said = lines(Bound(LENGTH, low=2.0), 1.0, 0.5, 3.0, 1.5)
    assert said == [
        (1, "watch: step 1: stepcredit/length is 1, below its min of 2"),
        (4, "watch: step 4: stepcredit/length is 1.5, below its min of 2"),
    ]


def test_each_bound_on_a_metric_counts_its_own_values() -> None:
    given = {"length": [{"max": 800, "for": 2}, {"max": 1000, "for": 3, "then": "stop"}]}
    watch = Watch(checked_bounds(given, "watch"))
    verdicts = [watch.check({LENGTH: v}, step) for step, v in enumerate((900, 1100, 1100, 1100))]
    assert [len(verdict.warnings) for verdict in verdicts] == [0, 1, 0, 0]
    assert [verdict.stop is not None for verdict in verdicts] == [False, False, False, True]
    assert verdicts[3].stop is not None
    assert verdicts[3].stop.endswith("above its max of 1000, for 3 values in a row")


def test_a_name_with_and_without_its_prefix_has_two_bounds() -> None:
    given = {"length": {"max": 800}, LENGTH: {"max": 400, "for": 2, "then": "stop"}}
    watch = Watch(checked_bounds(given, "watch"))
    verdicts = [watch.check({LENGTH: 500.0}, step) for step in (1, 2)]
    assert [verdict.stop is not None for verdict in verdicts] == [False, True]


def test_metrics_that_never_had_a_value_are_known() -> None:
    watch = Watch([Bound("kl", high=1.0), Bound("loss", high=1.0), Bound("loss", high=2.0)])
    watch.check({"kl": 0.5, "loss": nan}, 1)
    assert [line.split()[1] for line in watch.unchecked] == ["loss"]


def test_a_missing_value_and_nan_are_said_once_and_end_no_row() -> None:
    said = lines(Bound(LENGTH, high=8.0, values=2, stops=True), 9.0, nan, None, 9.0)
    assert said == [
        (2, "watch: step 2: stepcredit/length is NaN; its bound is not checked in such steps"),
        (4, "watch: step 4: stepcredit/length is 9, above its max of 8, for 2 values in a row"),
    ]


def test_a_missing_metric_is_said_with_what_is_there() -> None:
    verdict = Watch([Bound("actor/entorpy", high=1.0)]).check({"actor/entropy": 0.5}, 1)
    assert verdict.stop is None
    assert verdict.warnings == (
        "watch: step 1: actor/entorpy has no value (did you mean actor/entropy?); its bound is not "
        "checked in such steps",
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"length": {}}, "watch.length: expected min, max or both"),
        ({"length": 8}, "watch.length: expected keys among min, max, for, then, got 8"),
        ({"length": {"mx": 8}}, "watch.length.mx: no such key, did you mean 'max'?"),
        ({"length": {"max": "8"}}, "watch.length.max: expected a finite number, got '8'"),
        ({"length": {"min": 9, "max": 8}}, "watch.length: min 9 is above max 8"),
        (
            {"length": {"max": 8, "for": 0}},
            "watch.length.for: expected a whole number of at least 1, got 0",
        ),
        (
            {"length": {"max": 8, "then": "end"}},
            "watch.length.then: expected warn or stop, got 'end'",
        ),
        (
            {"length": [{"max": 8}, {"mx": 9}]},
            "watch.length[1].mx: no such key, did you mean 'max'?",
        ),
        ({"length": []}, "watch.length: expected a bound or a list of bounds, got an empty list"),
    ],
)
def test_a_bound_of_another_form_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        checked_bounds(given, "watch")
    assert str(caught.value) == reason


def test_names_are_those_of_the_engine_and_the_streams() -> None:
    known = every_stream(["prm"])

    def refused(name: str, streams: Any = known) -> bool:
        try:
            check_watched(
                checked_bounds({name: {"max": 1}}, "watch"), "watch", "trl", streams, ["kl"]
            )
        except EngineError:
            return True
        return False

    allowed = ("length", LENGTH, "share/prm", "agreement/prm", "raw_mean/teacher_logprobs", "kl")
    assert not any(map(refused, allowed))
    assert all(map(refused, ("agreement/judge", "lenght", "stepcredit/kl", "reward")))
    assert not refused("agreement/judge", None)  # a callable may give it
    assert refused("agrement/judge", None)


COSTS = CostStreams(scored=["prm", "judge", "cheap"], judged=["judge", "cheap"], priced=["judge"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pass@4", "is of an evaluation, but a watch compares the values of training"),
        ("share/STREAM", "write the name of a stream in place of STREAM"),
        ("scoring_seconds/format", "no signal scores this stream"),
        ("scoring_step_share/outcome", "no signal scores this stream"),
        ("judge_answers/prm", "no signal of this stream has a judge"),
        ("judge_cost/cheap", "judge_prices has no prices for this stream"),
    ],
)
@pytest.mark.parametrize("streams", [["prm", "judge", "cheap", "outcome", "format"], None])
def test_a_bound_that_no_value_of_training_can_break_is_refused(
    name: str, reason: str, streams: Any
) -> None:
    bounds = checked_bounds({name: {"max": 1}}, "watch")
    with pytest.raises(EngineError) as caught:
        check_watched(bounds, "watch", "trl", streams, costs=COSTS)
    assert str(caught.value) == f"watch.stepcredit/{name}: {reason}"


@pytest.mark.parametrize("streams", [["prm", "judge", "cheap"], None])
def test_bounds_on_costs_that_are_logged_are_taken(streams: Any) -> None:
    names = ("scoring_seconds/prm", "judge_tokens_read/cheap", "judge_cost/judge", "share/prm")
    bounds = checked_bounds({name: {"max": 1} for name in names}, "watch")
    check_watched(bounds, "watch", "trl", streams, costs=COSTS)


def test_a_name_with_number_in_it_is_refused() -> None:
    bounds = checked_bounds({"stepcredit/pass@NUMBER": {"max": 1}}, "watch")
    with pytest.raises(EngineError, match=r"pass@NUMBER: no such metric"):
        check_watched(bounds, "watch", "trl", None)
