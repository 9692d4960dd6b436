"""Responses that a signal scores not at all, or in part: what stands in the extras and the log."""

from __future__ import annotations

from dataclasses import replace

import pytest

import stepcredit as sc
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.extras import CUT, has_scores_of, reported_streams, score_extras
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer

PRM = sc.signal("prm", model="a-folder", protocol="pure", unscorable="cut")
ENDS = [1, 4, 9]


def test_the_extras_of_a_cut_and_of_an_unscored_response() -> None:
    cut = score_extras({"process": PRM}, {"process": [0.5, 0.25]}, ENDS)
    assert cut == {CUT: {"process": True}, "step_ends": [1, 9], "step_scores": [0.5, 0.25]}
    none = score_extras({"process": PRM}, {"process": []}, ENDS)
    assert none == {CUT: {"process": False}, "step_ends": [], "step_scores": []}
    whole = score_extras({"process": PRM}, {"process": [0.5, 0.25, 0.0]}, ENDS)
    assert (whole["step_ends"], whole[CUT]) == (ENDS, {"process": False})
    failed = score_extras({"process": PRM}, {}, None)
    assert failed == {CUT: {"process": False}, "step_ends": None, "step_scores": None}
    other = score_extras({"mine": PRM}, {"mine": [0.5]}, ENDS)
    assert other["signals"] == {"mine": {"scores": [0.5], "ends": [9]}}
    streams = reported_streams([cut, none, whole])
    assert streams["process"].counts.tolist() == [2, 0, 3]
    assert has_scores_of(none, "process")
    assert not has_scores_of({}, "process")


def credit_of(made, extras, **changes) -> BatchCredit:
    fields, keys, tags = made.queue(extras, **made.MARKED)
    settings = VerlSettings.of({"algorithm": {"stepcredit": {"process_signal": "equations"}}})
    settings = replace(settings, signals={"process": PRM}, **changes)
    return BatchCredit(QueuedBatch.of(fields, keys, tags), settings, build_tokenizer())


def test_the_log_counts_both(made) -> None:
    extras = [{**row, CUT: {"process": False}} for row in made.step_extras()]
    extras[0][CUT] = {"process": True}
    extras[1] |= {"step_ends": [], "step_scores": []}
    metrics = credit_of(made, extras).metrics()
    assert metrics["stepcredit/cut_share/process"] == pytest.approx(1 / 6)
    assert metrics["stepcredit/unscored_share/process"] == pytest.approx(1 / 6)


def test_a_batch_without_any_score_goes_on_with_the_outcome(made) -> None:
    empty = {"step_ends": [], "step_scores": [], CUT: {"process": False}}
    extras = [{**row, **empty} for row in made.step_extras()]
    assert credit_of(made, extras).rollouts.streams == {}
    bare = [
        {name: value for name, value in row.items() if not name.startswith("step_")}
        for row in made.step_extras()
    ]
    with pytest.raises(EngineError, match="no response has its scores"):
        credit_of(made, bare).rollouts  # noqa: B018


def test_a_stream_that_the_reward_function_returns_needs_a_weight(made) -> None:
    extras = [
        {**row, "signals": {"mine": {"scores": [0.5], "ends": [len(m) - 1]}}}
        for row, m in zip(made.step_extras(), made.MASKS, strict=True)
    ]
    with pytest.raises(EngineError, match="the stream 'mine' has no weight"):
        credit_of(made, extras).rollouts  # noqa: B018


def test_right_is_above_the_key(made) -> None:
    metrics = credit_of(made, made.step_extras(), right_above=2.0).metrics()
    assert (metrics["stepcredit/right_share"], metrics["stepcredit/right_above"]) == (0.0, 2.0)
