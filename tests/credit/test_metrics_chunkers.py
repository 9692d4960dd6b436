"""Metrics of PASS with a user's chunker, which may read more than the process streams."""

from __future__ import annotations

import torch

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.credit.stages.chunks import Chunks, LeadStream
from stepcredit.data.slots import every_token, whole_responses


def by_outcome(lead: LeadStream) -> Chunks:
    """Tokens where any outcome of the block is above 0, whole responses elsewhere."""
    lengths = lead.slots.lengths
    above = bool((lead.rollouts.outcome > 0).any())
    return Chunks(every_token(lengths) if above else whole_responses(lengths))


def test_a_chunker_that_reads_the_outcome_is_asked_again_without_it() -> None:
    scores = torch.tensor([0.1, 0.9, 0.4, 0.2, 0.6, 0.3])
    rollouts = sc.Rollouts([0, 0], [3, 3], sc.Tokens(scores, [3, 3]), outcome=[1.0, 0.0])
    method = sc.PASS(chunks=by_outcome)
    quiet = rollouts.replaced(outcomes=sc.Rollouts([0, 0], [3, 3], outcome=[0.0, 0.0]).outcomes)
    change = method(rollouts).packed().double() - method(quiet).packed().double()
    found = training_metrics(rollouts, method)["outcome_std"]
    assert abs(found - float(change.std(correction=0))) < 1e-9


def test_a_method_with_a_call_of_its_own_is_called_for_each_stream() -> None:
    class Small(sc.PASS):
        def __call__(self, rollouts: sc.Rollouts, **options: object) -> sc.Advantages:
            found = super().__call__(rollouts)
            return sc.Advantages(found.values / 4, found.sizes, found.chunks, found.lengths)

    rollouts = sc.Rollouts([0, 0], [3, 3], outcome=[1.0, 0.0])
    whole = training_metrics(rollouts, sc.PASS())["outcome_std"]
    assert training_metrics(rollouts, Small())["outcome_std"] == whole / 4
