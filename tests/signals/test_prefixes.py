"""The shared-prefix signal against a loop over the group, and what the core makes of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stepcredit as sc
from stepcredit.errors import RolloutError
from stepcredit.signals.programs.prefixes import SharedPrefix
from stepcredit.signals.responses import Response
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import BlankLine

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=6)
GROUPS = st.lists(st.tuples(IDS, st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=6)


def response(ids, outcome, group="g", *, every=1, name=""):
    """One character a token; a step ends after every `every` tokens and at the end."""
    size = len(ids)
    steps = tuple(sorted({*range(every, size, every), size}))
    return Response(
        prompt="?",
        text="x" * size,
        spans=tuple((index, index + 1) for index in range(size)),
        steps=steps,
        name=name,
        token_ids=tuple(ids),
        facts={"group": group, "outcome": outcome},
    )


def slow_values(rows, own):
    """V_t by comparing whole prefixes with every member of the group."""
    values = []
    for length in range(1, len(own) + 1):
        shared = [outcome for ids, outcome in rows if ids[:length] == own[:length]]
        values.append(sum(shared) / len(shared))
    return values


@given(rows=GROUPS, other=GROUPS)
def test_every_token_has_the_mean_outcome_of_those_who_share_its_prefix(rows, other):
    responses = [response(ids, outcome, group=1) for ids, outcome in rows]
    neighbours = [response(ids, outcome, group=2) for ids, outcome in other]
    mixed = [*neighbours, *responses]
    found = SharedPrefix(per="tokens").scores(mixed)[len(neighbours) :]
    assert found == [pytest.approx(slow_values(rows, ids)) for ids, _ in rows]


@given(rows=GROUPS, every=st.integers(1, 3))
def test_steps_read_the_value_at_their_last_token(rows, every):
    found = SharedPrefix().scores([response(*row, every=every) for row in rows])
    for (ids, _), scores in zip(rows, found, strict=True):
        ends = sorted({*range(every, len(ids), every), len(ids)})
        values = slow_values(rows, ids)
        assert scores == pytest.approx([values[end - 1] for end in ends])


@given(rows=GROUPS)
def test_progress_adds_up_to_the_last_value_less_the_mean_outcome(rows):
    responses = [response(*row) for row in rows]
    mean = sum(outcome for _, outcome in rows) / len(rows)
    for per in ("steps", "tokens"):
        found = SharedPrefix(score="progress", per=per).scores(responses)
        for (ids, _), scores in zip(rows, found, strict=True):
            assert sum(scores) == pytest.approx(slow_values(rows, ids)[-1] - mean)


def test_three_and_three_as_text_are_one_group():
    rows = [response([1, 2], 1.0, group=3), response([1, 3], 0.0, group="3")]
    assert SharedPrefix().scores(rows) == [[0.5, 1.0], [0.5, 0.0]]


def tree():
    """Eight responses that part step by step, the outcome decided at the second step."""
    rows = []
    for path in product([0, 1], repeat=3):
        ids = [token for step in path for token in (step, 9)]
        rows.append(response(ids, float(path[0] == path[1]), every=2))
    return rows


@pytest.mark.parametrize("estimator", [sc.PASS(), sc.PURE(), sc.PASS(weights=(1, 0, 0))])
@pytest.mark.parametrize("score", ["value", "progress"])
def test_sparse_outcomes_alone_feed_the_estimators(estimator, score):
    rows = tree()
    outcomes = [row.facts["outcome"] for row in rows]
    process = SharedPrefix(score=score)(rows)
    advantages = estimator(sc.Rollouts(["g"] * 8, process=process, outcome=outcomes))
    table = torch.stack(advantages.ragged())
    assert torch.isfinite(table).all()
    assert table.std() > 0.1
    assert torch.equal(table[:, 0::2], table[:, 1::2])
    right = torch.tensor(outcomes) == 1
    assert table[right, 2].min() > table[~right, 2].max()


def test_progress_credits_the_step_that_decides():
    scores = torch.tensor(SharedPrefix(score="progress").scores(tree()))
    assert torch.equal(scores[:, [0, 2]], torch.zeros(8, 2))
    assert scores[:, 1].abs().tolist() == [0.5] * 8


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ({"outcome": 1.0}, "r:1: group: missing: this signal needs it"),
        ({"group": 1}, "r:1: outcome: missing: this signal needs it"),
        (
            {"group": 1, "outcome": float("nan")},
            "r:1: outcome: expected a finite number, got nan",
        ),
        ({"group": 1, "outcome": "1"}, "r:1: outcome: expected a finite number, got '1'"),
    ],
)
def test_a_row_without_its_facts_is_named(broken, line):
    row = Response("?", "x", ((0, 1),), (1,), name="r:1", token_ids=(5,), facts=broken)
    with pytest.raises(RolloutError) as caught:
        SharedPrefix().scores([row])
    assert str(caught.value) == line


def test_tokens_without_ids_are_compared_by_their_texts():
    """As the words are that rows without a tokenizer have."""
    texts = [("So 3\n\nit is 3", 1.0), ("So 3\n\nit is 4", 0.0), ("So 33\n\nit is 3", 0.0)]
    rows = [Response.of_text("?", t, facts={"group": 1, "outcome": o}) for t, o in texts]
    found = SharedPrefix().scores(BlankLine()(rows))
    assert found == [[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]]


def test_a_row_without_the_token_ids_that_its_group_has_is_named():
    rows = [response([5], 1.0, name="r:1"), replace(response([5], 0.0, name="r:2"), token_ids=None)]
    with pytest.raises(RolloutError) as caught:
        SharedPrefix().scores(rows)
    assert str(caught.value) == "r:2: token_ids: missing: others of its group have it"


def test_group_statistics_are_never_cached():
    assert not signal("shared-prefix").cacheable
