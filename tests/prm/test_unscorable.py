"""Responses longer than the reward model's context: refused, left unknown, or cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.prm.cases import BY_NAME, CASES, Case, responses

import stepcredit as sc
from stepcredit.errors import RolloutError, SettingError
from stepcredit.prm import LocalPRM
from stepcredit.signals.cache import Cached
from stepcredit.signals.combine import Affine, Weighted
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import splitter
from stepcredit.signals.unscorable import scored_ends

LONG = 3
"""The row of `responses` with the most steps, five of them."""


def limit_of(signal: LocalPRM, steps: int) -> int:
    """A number of tokens within which so many steps of the long response are read."""
    row = responses()[LONG]
    return signal.protocol_used.model_input(signal.tokenizer_used, row).positions[steps - 1] + 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.protocol)
def test_the_steps_that_fit_score_as_if_all_did(case: Case, tmp_path: Path) -> None:
    folder = case.checkpoint(tmp_path)
    whole = case.signal(folder)
    cut = case.signal(folder, unscorable="cut", max_tokens_per_batch=limit_of(whole, 3))
    (scores,) = cut.scores([responses()[LONG]])
    assert scores == pytest.approx(whole.scores([responses()[LONG]])[0][:3], abs=1e-5)


@pytest.mark.parametrize("policy", ["refuse", "unknown", "cut"])
def test_one_long_response_among_others(tmp_path: Path, policy: str) -> None:
    case = BY_NAME["qwen2.5-math-prm"]
    folder = case.checkpoint(tmp_path)
    whole = case.signal(folder)
    rows = [responses()[1], responses()[LONG], responses()[1]]
    limit = limit_of(whole, 2)
    short = whole.scores([rows[0]])[0]
    signal = case.signal(folder, unscorable=policy, max_tokens_per_batch=limit)
    if policy == "refuse":
        with pytest.raises(RolloutError, match=f"max_tokens_per_batch is {limit}$") as refused:
            signal.scores(rows)
        assert refused.value.place == "row 1"
        return
    found = signal.scores(rows)
    assert [len(row) for row in found] == [1, 0 if policy == "unknown" else 2, 1]
    assert found[0] == pytest.approx(short, abs=1e-5)
    assert found[2] == pytest.approx(short, abs=1e-5)


def test_the_context_of_the_model_is_a_limit_too(tmp_path: Path) -> None:
    case = BY_NAME["qwen2.5-math-prm"]
    whole = case.signal(case.checkpoint(tmp_path))
    whole.scorer.config.get_text_config().max_position_embeddings = limit_of(whole, 2)
    with pytest.raises(RolloutError, match="but the model's context is"):
        whole.scores([responses()[LONG]])
    lenient = replace(
        whole, model=whole.scorer, tokenizer=whole.tokenizer_used, unscorable="unknown"
    )
    assert lenient.scores([responses()[LONG]]) == [[]]


def test_no_step_within_the_limit_is_no_score(tmp_path: Path) -> None:
    case = BY_NAME["pure"]
    folder = case.checkpoint(tmp_path)
    cut = case.signal(folder, unscorable="cut", max_tokens_per_batch=2)
    assert cut.scores([responses()[LONG]]) == [[]]


def test_an_empty_response_is_unscorable_unless_it_may_be_scored(tmp_path: Path) -> None:
    case = BY_NAME["token-classifier"]
    folder = case.checkpoint(tmp_path)
    empty = splitter("blank-line").split(Response.of_text("?", " \n"))
    with pytest.raises(RolloutError, match="is empty"):
        case.signal(folder).scores([empty])
    assert case.signal(folder, unscorable="unknown").scores([empty]) == [[]]
    lenient = case.signal(folder, unscorable="unknown", empty="score")
    assert [len(row) for row in lenient.scores([empty])] == [1]


def test_the_stream_s_last_step_has_the_rest(tmp_path: Path) -> None:
    case = BY_NAME["qwen2.5-math-prm"]
    folder = case.checkpoint(tmp_path)
    limit = limit_of(case.signal(folder), 2)
    signal = case.signal(folder, unscorable="cut", max_tokens_per_batch=limit)
    rows = [responses()[1], responses()[LONG]]
    steps = signal(rows)
    ends = rows[1].step_ends
    assert steps.counts.tolist() == [1, 2]
    assert steps.ends.tolist() == [*rows[0].step_ends, ends[0], ends[-1]]
    lengths = [row.num_tokens for row in rows]
    sc.PASS()(sc.Rollouts([0, 0], lengths=lengths, process=steps, outcome=[1.0, 0.0]))


def test_an_unknown_response_learns_from_the_outcome_alone() -> None:
    steps = sc.Steps([[0, 1], None], [[0.5, 0.25], None])
    rollouts = sc.Rollouts([0, 0], lengths=[2, 2], process=steps, outcome=[1.0, 0.0])
    outcome = sc.PASS(weights={"outcome": 1.0})(rollouts).ragged()[1]
    assert sc.PASS()(rollouts).ragged()[1].tolist() == outcome.tolist()


def test_signals_made_of_it_leave_out_the_same(tmp_path: Path) -> None:
    case = BY_NAME["qwen2.5-math-prm"]
    folder = case.checkpoint(tmp_path)
    whole = case.signal(folder)
    cut = case.signal(folder, unscorable="cut", max_tokens_per_batch=limit_of(whole, 2))
    row = responses()[LONG]
    once = cut.scores([row])[0]
    assert len(Affine(cut, scale=2.0).scores([row])[0]) == 2
    both = Weighted((whole, cut), weights=(1.0, 1.0)).scores([row])[0]
    assert both == pytest.approx([2 * score for score in once], abs=1e-5)
    kept = Cached(cut, tmp_path / "scores.sqlite")
    assert kept.scores([row]) == kept.scores([row]) == [once]
    assert len(Cached(whole, tmp_path / "scores.sqlite").scores([row])[0]) == 5
    assert [part.may_leave_out for part in (whole, cut, kept, Affine(cut))] == [
        False,
        True,
        True,
        True,
    ]


def test_ends_of_scored_steps() -> None:
    assert [scored_ends([0, 4, 7], count) for count in range(4)] == [[], [7], [0, 7], [0, 4, 7]]


def test_judging_needs_all_scores(tmp_path: Path) -> None:
    from stepcredit.prm.judging.evaluation import step_scores

    signal = BY_NAME["pure"].signal(tmp_path, unscorable="unknown")
    with pytest.raises(SettingError, match="unscorable: each labelled step needs a score"):
        step_scores(signal, [])
