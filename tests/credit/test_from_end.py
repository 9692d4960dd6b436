"""PASS of long rows, which are counted from the response's end: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics
from stepcredit.data.forest import ROW_COPY_ABOVE

WIDE = (
    {},
    {"k": 0.0},
    {"k": 1.0, "scope": "process"},
    {"weights": (1.0, 0.5, 0.3), "clip": 0.5},
    {"chunks": "tokens", "read": "mean"},
)


def wide_rollouts(step_scored: bool) -> sc.Rollouts:
    """Responses with many slots: some gated, one group without variance."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(ROW_COPY_ABOVE + 1, ROW_COPY_ABOVE + 200, 12)
    lengths[[0, 3]] = 1, 2
    scores = [rng.standard_normal(length) for length in lengths]
    scores[8:] = [np.zeros(length) for length in lengths[8:]]
    process = sc.Tokens([row.tolist() for row in scores])
    if step_scored:
        process = sc.Steps([list(range(n)) for n in lengths], [row.tolist() for row in scores])
    outcome = [*rng.integers(0, 2, 8).astype(float).tolist(), 1.0, 1.0, 1.0, 1.0]
    ready = sc.TokenAdvantages([[0.25] * int(length) for length in lengths])
    return sc.Rollouts(
        group=np.repeat([0, 1, 2], 4).tolist(),
        lengths=lengths.tolist(),
        process={"process": process, "ready": ready},
        outcome=outcome,
        format=rng.random(12).tolist(),
        format_ok=[row != 2 for row in range(12)],
    )


@pytest.mark.parametrize("step_scored", [False, True])
@pytest.mark.parametrize("ready", [0.0, 2.0])
@pytest.mark.parametrize("fields", WIDE)
def test_rows_counted_from_the_end_give_the_same_bits(
    fields: dict[str, Any], ready: float, step_scored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = wide_rollouts(step_scored)
    if ready:
        process, outcome, format_ = fields.get("weights", (1.0, 1.0, 1.0))
        weights = {"process": process, "outcome": outcome, "format": format_, "ready": ready}
        fields = {**fields, "weights": weights}
    else:
        rollouts = rollouts.replaced(streams={"process": rollouts.streams["process"]})
    if not step_scored:
        fields = {"chunks": "tokens", **fields}
    method = sc.PASS(**fields)
    assert method.credit(rollouts).from_end == (ready == 0)
    fast, stages = method(rollouts), method.explain(rollouts)
    metrics = training_metrics(rollouts, method)
    monkeypatch.setattr("stepcredit.credit.methods.pass_.copies_rows", lambda table: False)
    assert not method.credit(rollouts).from_end
    plain, explained = method(rollouts), method.explain(rollouts)
    assert torch.equal(fast.packed(), plain.packed())
    assert stages.rows == explained.rows
    assert metrics == training_metrics(rollouts, method)


def test_terms_that_cancel_are_found_in_rows_counted_from_the_end() -> None:
    """The outcome takes back what every token gives, but for rounding."""
    width = ROW_COPY_ABOVE + 10
    tokens = sc.Tokens([[0.1] * width, [0.3] * width])
    rollouts = sc.Rollouts([0, 0], process=tokens, outcome=[0.3, 0.1])
    method = sc.PASS(weights=(1.0, 1.0, 0.0), operator="center", k=1.0, chunks="tokens")
    credit = method.credit(rollouts)
    assert credit.from_end
    assert bool((credit.advantage != 0).any())
    assert not bool(method(rollouts).packed().any())
