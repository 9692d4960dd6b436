"""Settings of estimators: what is refused, in which words, and that none changes later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import stepcredit as sc
from stepcredit.errors import MethodError, RolloutError

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("pass", {"k": -1}, "k: expected a number of at least 0, got -1"),
    ("pass", {"k": True}, "k: expected a number of at least 0, got True"),
    ("pass", {"k": float("nan")}, "k: expected a number of at least 0, got nan"),
    ("pass", {"clip": 0}, "clip: expected a number above 0 or null, got 0"),
    ("pass", {"ddof": 2}, "ddof: expected one of 0, 1, got 2"),
    ("pass", {"scope": "all"}, "scope: expected one of fused, process, got 'all'"),
    (
        "pass",
        {"operator": "norm"},
        "operator: unknown operator 'norm': expected masked_norm, center, leave_one_out, abs_max",
    ),
    (
        "pass",
        {"outcome_operator": "norm"},
        "outcome_operator: unknown operator 'norm': "
        "expected masked_norm, center, leave_one_out, abs_max",
    ),
    ("pass", {"operator": {"proces": "center"}}, "operator: 'proces' has no weight"),
    (
        "pass",
        {"chunks_from": "outcome"},
        "chunks_from: 'outcome' is no process stream with a weight",
    ),
    (
        "pass",
        {"chunks": {"change_points": {"penalty": "a"}}},
        "chunks: penalty of 'change_points': expected a number above 0, got 'a'",
    ),
    (
        "pass",
        {"chunks": {"change_points": {"cost": "huber"}}},
        "chunks: cost of 'change_points': expected one of squared, absolute, got 'huber'",
    ),
    (
        "pass",
        {"chunks": {"change_points": {"min_tokens": 0}}},
        "chunks: min_tokens of 'change_points': expected a whole number of at least 1, got 0",
    ),
    (
        "pass",
        {"chunks": {"windows": {"size": 0}}},
        "chunks: size of 'windows': expected a whole number of at least 1, got 0",
    ),
    (
        "pass",
        {"chunks": {"runs": {"eta": float("nan")}}},
        "chunks: eta of 'runs': expected a number of at least 0, got nan",
    ),
    (
        "pass",
        {"chunks": {"cut_points": {"below": 0}}},
        "chunks: below of 'cut_points': expected a number above 0 and at most 1, got 0",
    ),
    (
        "pass",
        {"chunks": {"cut_points": {"per_chunk": 0}}},
        "chunks: per_chunk of 'cut_points': expected a whole number of at least 1, got 0",
    ),
    ("pass", {"chunks": {"steps": {"size": 1}}}, "chunks: 'steps' has no option 'size'"),
    (
        "gdpo",
        {"weights": {"process": 1}},
        "weights: gdpo takes outcome and format alone, not 'process'",
    ),
    (
        "grpo-process",
        {"pooling": "process", "weights": (2, 0, 0)},
        "weights: pooling='process' has no weights",
    ),
    (
        "grpo-process",
        {"pooling": "process", "weights": {"prm": 1}},
        "weights: pooling='process' has no weights",
    ),
    (
        "pure",
        {"form": "future_min"},
        "baseline: form='future_min' needs rollout or per_slot, got 'per_token'",
    ),
    (
        "turn-return",
        {"gamma": -0.1},
        "gamma: expected a number of at least 0 and at most 1, got -0.1",
    ),
    ("grpo-process", {"gamma": 2}, "gamma: expected a number of at least 0 and at most 1, got 2"),
    ("pass", {"gamma": 1.1}, "gamma: expected a number of at least 0 and at most 1, got 1.1"),
    ("pass", {"read": "first"}, "read: expected one of last, mean, sum, ends, got 'first'"),
    ("pure", {"form": "min"}, "form: expected one of softmin, future_min, sum, got 'min'"),
    ("pass-min", {"outcome_in_min": -1}, "outcome_in_min: expected a number of at least 0, got -1"),
    ("gdpo", {"eps": -1}, "eps: expected a number of at least 0 or null, got -1"),
    ("prime", {"norm": "z"}, "norm: expected one of none, batch, got 'z'"),
    ("pure", {"baseline": "per_slot"}, "max_length: baseline='per_slot' needs it"),
    ("pass", {"kk": 1}, "kk: pass has no such field, did you mean 'k'?"),
    ("grop", {}, "unknown method 'grop', did you mean 'grpo'?"),
]


@pytest.mark.parametrize(("method", "settings", "line"), REFUSED)
def test_refused_in_one_line(method: str, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(MethodError) as refused:
        sc.estimator(method, **settings)
    assert str(refused.value) == line


def test_settings_stay_what_was_checked() -> None:
    weights = {"process": 1.0, "outcome": 0.5}
    made = sc.PASS(weights=weights)
    weights["outcome"] = 7.0
    assert made.weights == {"process": 1.0, "outcome": 0.5}
    assert isinstance(made.weights, Mapping)
    with pytest.raises(TypeError):
        made.weights["outcome"] = 7.0  # type: ignore[index]


@pytest.mark.parametrize("method", sorted(sc.methods()))
def test_equal_estimators_hash_alike(method: str) -> None:
    assert hash(sc.estimator(method)) == hash(sc.estimator(method))


def test_the_pooling_without_weights_takes_the_default_and_reads_the_only_stream() -> None:
    named = sc.ProcessGRPO(pooling="process", weights=(1, 1.0, 1))
    plain = sc.ProcessGRPO(pooling="process")
    assert (named, plain.weights) == (plain, None)
    assert sc.ProcessGRPO().weights == (1.0, 1.0, 1.0)
    rows = [[1.0, 0.0], [0.0]]
    found = [
        plain(sc.Rollouts([0, 0], process={name: sc.Tokens(rows)})).packed().tolist()
        for name in ("process", "prm")
    ]
    assert found[0] == found[1]
    both = {"prm": sc.Tokens(rows), "judge": sc.Tokens(rows)}
    with pytest.raises(MethodError) as refused:
        plain(sc.Rollouts([0, 0], process=both))
    assert str(refused.value) == "reads one process stream, named 'process'; there are prm, judge"


def test_missing_text_names_the_callers_row() -> None:
    rollouts = sc.Rollouts(
        group=[0, 1, 0, 1],
        process=sc.Tokens([[1.0]] * 4),
        tokens=[["a"], [], ["c"], ["d"]],
    )
    with pytest.raises(RolloutError) as refused:
        sc.PASS(chunks="sentences")(rollouts)
    assert str(refused.value) == "row 1: tokens: missing: pass needs it"


def test_ready_made_advantages_join_pass_min_as_pass() -> None:
    ready = sc.TokenAdvantages([[1.0, 2.0], [3.0]])
    steps = sc.Steps([[0, 1], [0]], [[1.0, 0.0], [0.5]])
    weights = {"process": 1.0, "outcome": 1.0, "format": 1.0, "gae": 2.0}
    facts: dict[str, Any] = {"group": [0, 0], "outcome": [1.0, 0.0], "format": [1.0, 0.0]}
    gate = [True, False]
    whole = sc.Rollouts(process={"process": steps, "gae": ready}, format_ok=gate, **facts)
    alone = sc.Rollouts(process=steps, format_ok=gate, **facts)
    for kind in (sc.PASS, sc.PASSMin):
        gained = kind(weights=weights)(whole).packed() - kind(weights=weights)(alone).packed()
        assert gained.tolist() == pytest.approx([2.0, 4.0, 0.0], abs=1e-6)


def test_an_outcome_in_the_minimum_is_not_called_ignored() -> None:
    steps = sc.Steps([[0, 1], [0]], [[1.0, 0.0], [0.5]])
    rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
    ignored = "stream 'outcome' has no weight: it is ignored"
    assert sc.PASSMin(weights={"process": 1.0}).notes(rollouts) == []
    assert sc.PASSMin(weights={"process": 1.0}, outcome_in_min=0).notes(rollouts) == [ignored]


def test_explain_shows_what_the_outcome_adds_to_the_returns() -> None:
    """By hand: z = 2^0.5 / 2 x (1, -1), c N(r_out) = 2 z; the strict minimum of each response."""
    rollouts = sc.Rollouts([0, 0], process=sc.Steps([[0], [0]], [[1.0], [0.0]]), outcome=[0.0, 1.0])
    stages = sc.PASSMin(temperature=0, eps=0).explain(rollouts).stages
    half = 0.5**0.5
    assert stages["N(process)"].tolist() == pytest.approx([half, -half])
    assert stages["min(process)"].tolist() == pytest.approx([0.0, -half])
    assert stages["min(process), outcome"].tolist() == pytest.approx([-2 * half, 0.0])
    assert stages["return(process)"].tolist() == pytest.approx([-2 * half, -half])
    assert "min(process), outcome" not in sc.PASSMin(outcome_in_min=0).explain(rollouts).stages


def test_ready_made_advantages_cannot_lead_the_chunks() -> None:
    rollouts = sc.Rollouts(
        group=[0],
        process={"process": sc.Tokens([[1.0]]), "gae": sc.TokenAdvantages([[1.0]])},
    )
    with pytest.raises(MethodError) as refused:
        sc.PASS(weights={"process": 1.0, "gae": 1.0}, chunks_from="gae")(rollouts)
    assert str(refused.value) == "chunks_from: 'gae' is ready-made: chunks follow a signal"


def test_contributed_rule_takes_groups_without_a_process_stream() -> None:
    mixed = sc.Rollouts(
        group=[0, 1], process=sc.Steps([[0], None], [[1.0], None]), lengths=[1, 2], outcome=[1, 0]
    )
    for method in sorted(sc.methods()):
        estimator = sc.estimator(method)
        if method in ("pass", "pass-min", "pure", "grpo"):
            assert estimator(mixed).packed().isfinite().all()
