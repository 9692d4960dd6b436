"""The audit counts a trajectory of several rows as one response."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tests import reference
from tests.credit.strategies import random_rows
from tests.credit.trajectory_parts import split

import stepcredit as sc
from stepcredit.audit.audit_report import audit
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.stored_advantages import StoredAdvantages
from stepcredit.credit.metrics.response_patterns import truncated_responses
from stepcredit.errors import RowError

Row = dict[str, Any]


def plain(row: Row) -> Row:
    """A row as a file holds it."""
    return {name: value for name, value in row.items() if name != "part_ends"}


@pytest.mark.parametrize("signal", ["steps", "tokens", "streams"])
def test_methods_credit_whole_trajectories(signal: str) -> None:
    rows = random_rows(Random(4), [3, 4], signal, "real", outcome="known", states=1)
    found = split(rows, Random(5))
    batch = LoggedBatch.of(found.parts)
    first = [found.of_part.index(response) for response in range(len(rows))]
    order = sorted(range(len(rows)), key=first.__getitem__)
    assert [row.line - 1 for row in batch.rows] == sorted(first)
    params = {"weights": {"process": 1.0, "judge": 0.5, "outcome": 1.0}, "chunks": "runs"}
    want = reference.advantages("pass", params, found.whole)
    for at, values in zip(order, sc.PASS(**params)(batch.rollouts).ragged(), strict=True):
        assert values.tolist() == pytest.approx(want[at], abs=1e-5)
    assert batch.rollouts.step_states is not None


def test_a_report_counts_trajectories_once() -> None:
    rows = random_rows(Random(6), [4] * 6, "steps", "real", outcome="known")
    found = split(rows, Random(7))
    parts = audit(LoggedBatch.of(found.parts), {"pass": sc.PASS(), "grpo": sc.GRPO()})
    whole = audit(LoggedBatch.of([plain(row) for row in found.whole]), dict(parts.given.methods))
    assert parts.as_json()["counts"] == whole.as_json()["counts"]


def test_what_rows_hold_is_put_together_by_hand() -> None:
    common: Row = {"group": 1, "trajectory": "t", "advantage": 0.5}
    rows = [
        common | {"text": "so", "tokens": ["s", "o"], "loss_mask": [1, 0], "step_ends": [1]},
        common | {"text": "on", "tokens": ["on"], "step_ends": [0], "outcome": 1.0},
    ]
    rows[0] |= {"step_labels": ["right"], "step_values": [0.5, 0.75]}
    rows[1] |= {"step_labels": ["wrong"], "step_values": [0.75, 0.25]}
    batch = LoggedBatch.of(rows)
    assert batch.texts == ["so\non"]
    assert batch.steps == [["s", "on"]]
    assert batch.step_labels == [["right", "wrong"]]
    assert batch.step_values == [[0.5, 0.75, 0.25]]
    stored = StoredAdvantages.of(batch)
    assert stored is not None
    assert stored.values.tolist() == [0.5, 0.5, 0.5]
    assert stored.trained.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("first", "last", "want"),
    [
        ({"truncated": False}, {"truncated": True}, [True]),
        ({"truncated": False}, {"truncated": False}, [False]),
        ({}, {"truncated": True}, [True]),
        ({"finish_reason": "length"}, {"finish_reason": "stop"}, [True]),
        ({"finish_reason": "stop"}, {"finish_reason": "length"}, [True]),
        ({"finish_reason": "stop"}, {}, [False]),
        ({}, {}, None),
    ],
)
def test_a_trajectory_is_truncated_where_one_of_its_parts_is(
    first: Row, last: Row, want: list[bool] | None
) -> None:
    common: Row = {"group": 1, "trajectory": "t", "length": 2}
    batch = LoggedBatch.of([common | first, common | last | {"outcome": 0.0}])
    found = truncated_responses([row.fields for row in batch.rows])
    assert (None if found is None else found.tolist()) == want


def test_parts_that_disagree_are_refused_by_line() -> None:
    rows = [{"group": 1, "trajectory": 1, "length": 1, "outcome": value} for value in (1.0, 0.0)]
    with pytest.raises(RowError) as caught:
        LoggedBatch.of(rows, "log.jsonl")
    want = "log.jsonl:2: outcome: is 0.0, but line 1 of its trajectory has 1.0"
    assert str(caught.value) == want
