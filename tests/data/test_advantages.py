"""`Advantages` of some rollouts, and of several batches."""

from __future__ import annotations

import torch

import stepcredit as sc
from stepcredit.data.advantages import from_ragged

STEPS = sc.Rollouts(
    [0, 0],
    process=sc.Steps([[0, 4], [1]], [[1.0, 0.0], [0.5]]),
    outcome=[1.0, 0.0],
    mask=[[1, 0, 1, 1, 1], [1, 1]],
)
TOKENS = sc.Rollouts([1, 1], process=sc.Tokens([[1.0, 0.5], [0.0]]), outcome=[1.0, 0.0])


def test_rows_are_taken_in_any_order_and_as_often_as_wanted() -> None:
    for rollouts in (STEPS, TOKENS):
        whole = sc.PASS()(rollouts)
        taken = whole.take(torch.tensor([1, 0, 1]))
        for rows, expected in (
            (taken.ragged(), whole.ragged()),
            (taken.on_response(), whole.on_response()),
        ):
            assert [row.tolist() for row in rows] == [expected[i].tolist() for i in (1, 0, 1)]
        width = int(whole.lengths.max()) + 2
        assert torch.equal(taken.padded(width=width), whole.padded(width=width)[[1, 0, 1]])


def test_batches_of_chunks_and_of_tokens_go_one_after_the_other() -> None:
    parts = [sc.PASS()(STEPS), sc.PASS()(TOKENS), from_ragged([[0.25]])]
    for order in ((0, 1, 2), (1, 0), (1, 2), (0,)):
        given = [parts[i] for i in order]
        joined = sc.Advantages.cat(given)
        assert joined.packed().tolist() == [x for part in given for x in part.packed().tolist()]
        assert [row.tolist() for row in joined.on_response()] == [
            row.tolist() for part in given for row in part.on_response()
        ]
        width = int(joined.lengths.max())
        rows = [part.padded(width=width) for part in given]
        assert torch.equal(joined.padded(width=width), torch.cat(rows))
