"""Streams that cancel leave no rounding noise that row order could move."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import build, examples

import stepcredit as sc

CANCEL = {
    "pass": sc.PASS(),
    "pass-center": sc.PASS(operator="center"),
    "pass-leave-one-out": sc.PASS(operator="leave_one_out"),
    "pass-process-scope": sc.PASS(scope="process"),
    "pass-min": sc.PASSMin(),
    "pure-rollout": sc.PURE(baseline="rollout"),
    "adca": sc.ADCA(alpha=1.0),
    "turn-return": sc.TurnReturn(),
    "turn-return-trajectories": sc.TurnReturn(baseline="trajectories"),
}


@pytest.mark.parametrize("name", CANCEL)
@examples(30)
@given(
    scores=st.lists(st.integers(-10, 10), min_size=2, max_size=5), by=st.sampled_from((0.0, 1.0))
)
def test_row_order_moves_no_noise_where_streams_cancel(
    name: str, scores: list[int], by: float
) -> None:
    """Scores in tenths, the outcome their mirror image: nothing is left but rounding."""
    rows = [
        {
            "group": "q",
            "length": 1,
            "step_ends": [0],
            "step_scores": [s / 10],
            "outcome": round(by - s / 10, 1),
        }
        for s in scores
    ]
    order = Random(len(rows)).sample(range(len(rows)), len(rows))
    want = CANCEL[name](build(rows)).packed()[order]
    got = CANCEL[name](build([rows[i] for i in order])).packed()
    assert float((got - want).abs().max()) <= 2.0**-23 * float(want.abs().max())


def lesson(rows: list[dict[str, Any]], method: sc.Estimator) -> list[float]:
    return [row[-1].item() for row in method(build(rows)).ragged()]


def row(score: float, outcome: float, **more: Any) -> dict[str, Any]:
    steps = {"step_ends": [0], "step_scores": [score]}
    return {"group": "q", "length": 1, **steps, "outcome": outcome, **more}


LOUD = 4e10


@pytest.mark.parametrize(
    "method",
    [
        sc.PASS(operator="center"),
        sc.PASS(operator="center", scope="process"),
        sc.PASSMin(operator="center", outcome_in_min=0),
    ],
)
def test_what_gated_responses_scored_hides_no_lesson(method: sc.Estimator) -> None:
    """Two gated responses whose scores balance leave the mean, and the lesson, where they were."""
    rows = [
        row(0.0, 1.0),
        row(0.0, 0.0),
        row(LOUD, 0.0, format_ok=False),
        row(-LOUD, 0.0, format_ok=False),
    ]
    assert lesson(rows, method) == pytest.approx([0.75, -0.25, 0.0, 0.0])


def test_an_outcome_of_a_gated_response_hides_no_lesson() -> None:
    rows = [
        row(1.0, 0.0),
        row(0.0, 0.0),
        row(0.0, LOUD, format_ok=False),
        row(0.0, -LOUD, format_ok=False),
    ]
    found = lesson(rows, sc.PASS(operator="center"))
    assert found == pytest.approx([0.75, -0.25, 0.0, 0.0])


def test_scores_that_no_chunk_reads_hide_no_lesson() -> None:
    """Chunks follow the steps: of the token signal their last tokens alone are read."""
    steps = {"step_ends": [2], "step_scores": [0.0]}
    quiet = {"group": "q", "length": 3, **steps, "signals": {"kl": {"scores": [LOUD, -LOUD, 0.0]}}}
    rows = [quiet | {"outcome": 1.0}, quiet | {"outcome": 0.0}]
    weights = {"process": 1.0, "kl": 1.0, "outcome": 1.0}
    assert lesson(rows, sc.PASS(weights=weights, operator="center")) == pytest.approx([0.5, -0.5])


def test_a_score_divided_away_hides_no_lesson() -> None:
    """The first of a hundred chunks counts a millionth at k = 3."""
    ends, flat = list(range(100)), [0.0] * 99
    rows = [
        {"group": "q", "length": 100, "step_ends": ends, "step_scores": [score, *flat]}
        for score in (LOUD, -LOUD)
    ]
    first = sc.PASS(weights={"process": 1.0}, operator="center", k=6.0)(build(rows)).ragged()[0]
    assert first[0].item() == pytest.approx(LOUD / 100**6)


def test_a_lone_scored_response_hides_no_outcome() -> None:
    """PURE gives it no process part: its own return is its baseline."""
    unscored = {"group": "q", "length": 1, "outcome": 0.0}
    rows = [row(LOUD, 1.0), unscored]
    assert lesson(rows, sc.PURE(temperature=0)) == pytest.approx([1.0, -1.0])


def test_a_response_without_steps_hides_no_sum() -> None:
    unscored = {"group": "q", "length": 1, "outcome": LOUD}
    rows = [row(0.0, 1.0), row(0.0, 0.0), unscored]
    assert lesson(rows, sc.ProcessGRPO(eps=0)) == pytest.approx([0.5**0.5, -(0.5**0.5), 0.0])


@pytest.mark.parametrize("size", [1e-9, 1.0, LOUD])
def test_streams_that_cancel_are_zero_where_others_are_gated(size: float) -> None:
    """The rule itself still holds: rounding of what enters is no lesson."""
    rows = [row(0.1 * size, -0.1 * size), row(0.3 * size, -0.3 * size)]
    rows += [row(0.7 * size, -0.7 * size), row(LOUD, 0.0, format_ok=False) | {"group": "r"}]
    assert lesson(rows, sc.PASS(operator="center"))[:3] == [0.0, 0.0, 0.0]
