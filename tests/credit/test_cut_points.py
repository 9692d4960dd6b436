"""The chunker of low-probability tokens: by hand, and what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import pytest
import torch

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics
from stepcredit.errors import MethodError, RolloutError

PROBABILITIES = [0.95, 0.5, 0.99, 0.2, 0.89, 0.9, 0.3]


def rollouts(*rows: Sequence[float], **more: Any) -> sc.Rollouts:
    scores = [[float(t) for t in range(len(row))] for row in rows]
    student = [[log(p) for p in row] for row in rows]
    return sc.Rollouts([0] * len(rows), process=sc.Tokens(scores), logprobs={"student": student})


def chunk_ends(rule: Any, *rows: Sequence[float]) -> list[int]:
    explained = sc.PASS(chunks=rule, weights=(1, 0, 0)).explain(rollouts(*rows))
    return [row["last"] for row in explained.rows if row["rollout"] == 0]


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({"per_chunk": 1}, [1, 3, 4, 6]),
        ({"per_chunk": 2}, [3, 6]),
        ({"per_chunk": 3}, [4, 6]),
        ({"per_chunk": 4}, [6]),
        ({"below": 0.5, "per_chunk": 1}, [3, 6]),
        ({"below": 1.0, "per_chunk": 1}, [0, 1, 2, 3, 4, 5, 6]),
        ({"below": 0.1}, [6]),
        ({}, [6]),
    ],
)
def test_chunks_end_with_every_mth_improbable_token(
    options: dict[str, Any], ends: list[int]
) -> None:
    """A probability of the threshold itself is not below it."""
    assert chunk_ends({"cut_points": options}, PROBABILITIES, [0.5]) == ends


def test_it_cuts_responses_with_a_step_signal_too() -> None:
    given = rollouts(PROBABILITIES, [0.5])
    steps = sc.Steps([[2, 6], [0]], [[1.0, 0.0], [0.5]])
    explained = sc.PASS(chunks={"cut_points": {"per_chunk": 2}}).explain(
        given.with_streams({"process": steps})
    )
    assert [row["last"] for row in explained.rows] == [3, 6, 0]


def test_missing_log_probs_are_refused_by_row() -> None:
    tokens = sc.Tokens([[1.0], [0.0], [1.0]])
    for chunks in ("cut_points", {"cut_points": {"below": 0.5}}):
        for method in (sc.PASS(chunks=chunks), sc.ProcessGRPO(chunks=chunks)):
            for logprobs, row in ((None, 0), ({"student": [[-1.0], [], [-1.0]]}, 1)):
                bare = sc.Rollouts([0, 0, 1], process=tokens, logprobs=logprobs)
                with pytest.raises(RolloutError) as refused:
                    method(bare)
                name = method.name
                line = f"row {row}: student_logprobs: missing: {name} needs it"
                assert str(refused.value) == line
    with pytest.raises(MethodError) as unfit:
        sc.PASS(chunks="cut_points").credit(sc.Rollouts([0], process=sc.Tokens([[1.0]])))
    assert str(unfit.value) == "chunks: 'cut_points' needs rollouts with student_logprobs"


def test_metrics_without_log_probs_are_of_one_chunk() -> None:
    """What the absence of a stream changes is measured per stream, log-probs among them."""
    given = rollouts([0.5] * 6, [0.5, 0.99, 0.5])
    method = sc.PASS(chunks={"cut_points": {"per_chunk": 1}}, weights=(1, 0, 0))
    certain = given.replaced(logprobs={"student": given.logprobs["student"].zeroed()})
    assert len(method.explain(certain).rows) == 2
    both = method.credits([given, certain])
    alone = [method.credit(version) for version in (given, certain)]
    for found, wanted in zip(both, alone, strict=True):
        assert torch.equal(found.in_order().advantage, wanted.in_order().advantage)
    assert training_metrics(given, method)["share/logprobs"] > 0.1
