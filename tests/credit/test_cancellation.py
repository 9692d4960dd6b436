"""Streams that cancel leave no rounding noise that row order could move."""

from __future__ import annotations

from random import Random

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
