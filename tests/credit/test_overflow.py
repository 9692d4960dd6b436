"""Advantages beyond float32 are refused by row: never an infinity, never a zero in its place."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.credit.stages.groups import Group, weighted_std
from stepcredit.data.advantages import from_ragged
from stepcredit.errors import RolloutError

HUGE = 3e38
LARGE = r"row [13]: advantages: the method gives -?[0-9.e+]+, which is too large to normalize"
GROUP = ["b", "a", "b", "a"]  # out of order, so that rows are not the estimator's own


def rollouts(scores: list[float]) -> sc.Rollouts:
    probs = [[0.0]] * 4
    return sc.Rollouts(
        GROUP,
        process=sc.Steps([[0]] * 4, [[score] for score in scores]),
        outcome=scores,
        format=[0.0] * 4,
        logprobs={"student": [[s] for s in scores]}
        | dict.fromkeys(("teacher", "base"), probs)
        | {"prm": [[s] for s in scores], "ref": probs},
    )


BEYOND: dict[str, sc.Estimator] = {
    "pass": sc.PASS(weights=(10.0, 0.0, 0.0), operator="center"),
    "pass-process-scope": sc.PASS(weights=(10.0, 0.0, 0.0), operator="center", scope="process"),
    "pass-float64": sc.PASS(weights=(1e300, 1e300, 0.0), operator="center"),
    "pass-min": sc.PASSMin(weights=(1e39, 0.0, 0.0)),
    "pure": sc.PURE(process_weight=10.0, temperature=0),
    "rloo": sc.RLOO(),
    "opd": sc.OPD(coefficient=10.0),
    "g-opd": sc.GOPD(coefficient=10.0),
    "adca": sc.ADCA(alpha=1e39),
    "turn-return": sc.TurnReturn(process_weight=1e39),
    "grpo-process": sc.ProcessGRPO(weights=(1e300, 1e300, 0.0)),
    "prime": sc.PRIME(whiten_batch=False, process_weight=1e3),
}
NORMALIZED: dict[str, sc.Estimator] = {
    "gdpo": sc.GDPO(weights={"outcome": 1e200}),
    "gdpo-token": sc.GDPO(weights={"outcome": 1e200}, batch_norm="token"),
    "pure-whitened": sc.PURE(process_weight=1e160, whiten_batch=True, temperature=0),
    "prime": sc.PRIME(process_weight=1e160),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_float32_cannot_hold_is_refused_by_row(name: str) -> None:
    batch = rollouts([0.0, HUGE, 0.0, -HUGE])
    for call in (BEYOND[name], BEYOND[name].explain):
        with pytest.raises(RolloutError) as refused:
            call(batch)
        assert refused.value.row in (1, 3)
        assert refused.value.field == "advantages"
        assert refused.value.reason in (
            "the method gives inf, which is not a finite number",
            "the method gives -inf, which is not a finite number",
            "the method gives nan, which is not a finite number",
        )


@pytest.mark.parametrize("name", NORMALIZED)
def test_what_a_batch_cannot_normalize_is_refused_by_row(name: str) -> None:
    batch = rollouts([0.0, HUGE, 0.0, -HUGE])
    for call in (NORMALIZED[name], NORMALIZED[name].explain, NORMALIZED[name].moments):
        with pytest.raises(RolloutError, match=LARGE):
            call(batch)


def test_metrics_refuse_what_the_estimator_refuses() -> None:
    with pytest.raises(RolloutError, match="which is not a finite number"):
        training_metrics(rollouts([0.0, HUGE, 0.0, -HUGE]), BEYOND["pass"])


def test_a_clip_bounds_what_float32_could_not_hold() -> None:
    clipped = sc.PASS(weights=(10.0, 0.0, 0.0), operator="center", clip=2.0)
    assert clipped(rollouts([0.0, HUGE, 0.0, -HUGE])).packed().tolist() == [0.0, 2.0, 0.0, -2.0]


def test_a_sum_beyond_float32_refuses_no_advantage_within_it() -> None:
    found = sc.DrGRPO()(rollouts([0.0, HUGE / 2, 0.0, -HUGE / 2])).packed()
    assert found.tolist() == pytest.approx([0.0, HUGE / 2, 0.0, -HUGE / 2])
    everywhere = sc.Rollouts(list("aabb"), [1] * 4, outcome=[HUGE, -HUGE, HUGE, 0.0])
    assert bool(sc.DrGRPO()(everywhere).packed().isfinite().all())


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0], [2.0, 1e39]],
        [torch.tensor([1.0]), torch.tensor([2.0, 1e39], dtype=torch.float64)],
    ],
)
def test_ragged_rows_beyond_float32_are_refused(rows: Any) -> None:
    with pytest.raises(RolloutError) as refused:
        from_ragged(rows)
    assert str(refused.value) == "row 1: advantages: 1e+39 is too large for float32"


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200])
def test_a_std_is_right_where_squares_are_not(size: float) -> None:
    values = torch.tensor([[1.0, 3.0]], dtype=torch.float64) * size
    one = Group(torch.tensor([0]), 1)
    found = weighted_std(values, torch.ones_like(values), one)
    assert found.item() == pytest.approx(size)


@pytest.mark.parametrize("k", [0.7, 600.0])
def test_match_std_holds_where_the_divided_returns_are_tiny(k: float) -> None:
    """Returns (1, 0), so divided ones (2^-k, 0): matched to the std of the first, 1/2."""
    rows = sc.Rollouts([0], process=sc.Steps([[0, 1]], [[1.0, 0.0]]))
    method = sc.PASS(weights=(1.0, 0.0, 0.0), operator="abs_max", k=k, match_std=True)
    assert method(rows).packed().tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("scores", "k", "want"),
    [
        ([[1.0, 1.0], [1.0]], 1.0, [1.0, 1.0, 1.0]),  # equal where divided
        ([[0.0, 1.0], [1.0]], 1.0, [0.5, 1.0, 1.0]),  # equal returns
        ([[0.0, 0.0], [0.0]], 1.0, [0.0, 0.0, 0.0]),
    ],
)
def test_match_std_rescales_nothing_where_a_std_is_0(
    scores: list[list[float]], k: float, want: list[float]
) -> None:
    rows = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], scores))
    method = sc.PASS(weights=(1.0, 0.0, 0.0), operator="abs_max", k=k, match_std=True)
    assert method(rows).packed().tolist() == want


def test_an_overflow_of_long_rows_is_our_error_even_where_warnings_are_errors() -> None:
    scores = torch.cat([torch.full((300,), 3e38), torch.full((300,), -3e38)])
    rollouts = sc.Rollouts([0, 0], [300, 300], sc.Tokens(scores, [300, 300]))
    method = sc.PASS(k=0, chunks="tokens", operator="center", outcome_operator="center")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RolloutError, match="not a finite number"):
            method(rollouts)
