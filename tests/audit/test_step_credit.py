"""Chunks, steps and credit of rollouts, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stepcredit as sc
from stepcredit.audit.step_credit import (
    chunk_ends_of,
    chunk_sizes,
    credited_places,
    on_tokens,
    read_streams,
    step_credit,
)
from stepcredit.data.streams import Tokens


def mixed() -> sc.Rollouts:
    """Groups that are interleaved, and one response without scores."""
    steps = sc.Steps([[1, 2, 4], [0, 3], [], [2]], [[0.9, 0.9, 0.1], [0.2, 0.6], [], [0.4]])
    return sc.Rollouts(["a", "b", "b", "a"], [5, 4, 2, 3], steps, outcome=[1.0, 0.0, 1.0, 0.0])


def test_chunks_are_given_in_the_order_of_the_batch() -> None:
    ends = chunk_ends_of(sc.PASS(), mixed())
    assert ends.counts.tolist() == [3, 2, 1, 1]
    assert ends.values.tolist() == [1, 2, 4, 0, 3, 1, 2]
    assert chunk_sizes(ends).tolist() == [2, 1, 2, 1, 3, 2, 3]
    assert chunk_ends_of(sc.GRPO(), mixed()).values.tolist() == [4, 3, 1, 2]


@pytest.mark.parametrize("chunks", ["tokens", "group_runs", "runs", "sign_runs"])
def test_chunks_cover_every_token(chunks: str) -> None:
    scores = [[0.0, 0.0, 1.0, 1.0], [2.0, 2.0], [3.0, 1.0, 1.0]]
    r = sc.Rollouts([0, 1, 0], [4, 2, 3], Tokens(scores), outcome=[1.0, 0.0, 0.0])
    method = sc.PASS(chunks=chunks)
    ends = chunk_ends_of(method, r)
    explained = method.explain(r)
    assert ends.values.tolist() == explained.last.tolist()
    assert ends.counts.tolist() == torch.bincount(explained.rollout, minlength=3).tolist()
    assert int(chunk_sizes(ends).sum()) == 9


def test_credit_stands_on_the_last_token_of_each_step() -> None:
    r = mixed()
    advantages, places = sc.PASS()(r), credited_places(r)
    rows = advantages.ragged()
    ends = [[1, 2, 4], [0, 3], [], [2]]
    expected = [float(rows[i][end]) for i, row in enumerate(ends) for end in row]
    np.testing.assert_array_equal(step_credit(advantages, places), expected)


def test_without_steps_every_token_is_a_place() -> None:
    r = sc.Rollouts([0, 0], [3, 1], outcome=[1.0, 0.0])
    assert credited_places(r).values.tolist() == [0, 1, 2, 0]
    expected = np.concatenate([row.numpy() for row in sc.GRPO()(r).ragged()])
    np.testing.assert_array_equal(step_credit(sc.GRPO()(r), credited_places(r)), expected)


def test_scores_spread_over_their_tokens() -> None:
    expected = [0.9, 0.9, 0.9, 0.1, 0.1, 0.2, 0.6, 0.6, 0.6, 0, 0, 0.4, 0.4, 0.4]
    np.testing.assert_allclose(on_tokens(mixed().streams["process"], mixed()), expected)


def test_streams_that_a_method_reads() -> None:
    both = {"prm": Tokens([[1.0], [0.0]]), "process": Tokens([[1.0], [0.0]])}
    r = sc.Rollouts([0, 0], [1, 1], both, outcome=[1.0, 0.0])
    assert list(read_streams(sc.PASS(weights={"prm": 1.0}), r)) == ["prm"]
    assert list(read_streams(sc.PURE(), r)) == ["process"]
    assert read_streams(sc.GRPO(), r) == {}
