"""Every estimator against the loops of tests/reference on random rollouts."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import reference
from tests.credit.cases import CASES, Case
from tests.credit.strategies import SCORES, Rows, batches, build, examples, random_rows

few = examples(25)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
CHUNKERS = {
    "sign_runs": "sign_runs",
    "windows": {"windows": {"size": 3}},
    "cut_points": "cut_points",
    "cut_points-1": {"cut_points": {"below": 0.5, "per_chunk": 1}},
    "cut_points-2": {"cut_points": {"below": 0.7, "per_chunk": 2}},
    "change_points": "change_points",
    "change_points-squared": {
        "change_points": {"penalty": 0.7, "min_tokens": 1, "cost": "squared"}
    },
    "change_points-squared-3": {
        "change_points": {"penalty": 0.7, "min_tokens": 3, "cost": "squared"}
    },
    "change_points-absolute": {
        "change_points": {"penalty": 0.7, "min_tokens": 1, "cost": "absolute"}
    },
    "change_points-absolute-3": {"change_points": {"penalty": 0.4, "min_tokens": 3}},
}


def assert_agrees(case: Case, rows: Rows) -> None:
    """Within float32 of the reference, on the scale of the batch's largest advantage."""
    want = reference.advantages(case.method, case.params, rows)
    got = case.estimator()(build(rows)).ragged()
    scale = max(1e-3, *(abs(v) for row in want for v in row))
    for row, (mine, loops) in enumerate(zip(got, want, strict=True)):
        gap = float((mine.double() - torch.tensor(loops, dtype=torch.float64)).abs().max())
        assert gap <= 1e-6 * scale, f"row {row}: {mine.tolist()}, the loops give {loops}"


@every_case
@few
@given(data=st.data())
def test_agrees_with_the_loops(case: Case, data: st.DataObject) -> None:
    assert_agrees(case, data.draw(batches(signals=case.signals, **case.options)))


@every_case
def test_agrees_with_the_loops_on_large_batches(case: Case) -> None:
    """Twelve groups of up to eight, of forty tokens."""
    rng = Random(20)
    for kind in SCORES:
        signal = rng.choice(case.signals)
        sizes = [rng.randint(1, 8) for _ in range(12)]
        assert_agrees(case, random_rows(rng, sizes, signal, kind, max_length=40, **case.options))


@pytest.mark.parametrize("chunks", CHUNKERS.values(), ids=CHUNKERS.keys())
@few
@given(
    rows=batches(signals=("steps", "tokens"), kinds=("real", "tenths"), gaps=True),
    scope=st.sampled_from(("fused", "process")),
)
def test_chunkers_beyond_the_paper_agree_with_the_loops(
    chunks: object, rows: Rows, scope: str
) -> None:
    assert_agrees(Case("pass", {"chunks": chunks, "scope": scope}), rows)
