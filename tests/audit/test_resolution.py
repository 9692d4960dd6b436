"""Resolution mismatch: chunks that do not fit the signal, and clean data."""

from __future__ import annotations

import numpy as np
import pytest
from tests.audit.made_rollouts import Row, audited, clean_rows

import stepcredit as sc
from stepcredit.audit.checks.resolution import check_resolution
from stepcredit.audit.chunk_measures import (
    TokenSignal,
    last_token_says,
    resolution_of,
    standardized_tokens,
    unchanged_credit_share,
    within_chunk_share,
)
from stepcredit.audit.step_credit import chunk_ends_of
from stepcredit.credit.estimator import Estimator


def token_rows(seed: int = 0, groups: int = 4, size: int = 4, length: int = 60) -> list[Row]:
    """Token scores that are all different."""
    rng = np.random.default_rng(seed)
    return [
        {
            "group": group,
            "token_scores": rng.normal(size=length + int(rng.integers(9))).tolist(),
            "outcome": float(i % 2),
        }
        for group in range(groups)
        for i in range(size)
    ]


def figures_of(rows: list[Row], method: Estimator) -> dict[str, float | None]:
    return {f.name: f.value for f in check_resolution(audited(rows, mine=method)).figures}


def test_measures_against_plain_loops() -> None:
    rows = token_rows()
    method = sc.PASS(chunks={"windows": {"size": 7}}, scope="process")
    data = audited(rows, mine=method)
    rollouts = data.batch.rollouts
    signal = TokenSignal.of(rollouts.streams["process"], rollouts)
    assert signal is not None
    found = resolution_of(chunk_ends_of(method, rollouts), signal, method(rollouts))
    z = {}
    for group in range(4):
        pooled = np.concatenate([r["token_scores"] for r in rows if r["group"] == group])
        z[group] = (pooled.mean(), pooled.std())
    inside = total = 0.0
    pairs, sizes = [], []
    for row in rows:
        mean, std = z[row["group"]]
        values = (np.array(row["token_scores"]) - mean) / std
        total += (values**2).sum()
        for at in range(0, len(values), 7):
            chunk = values[at : at + 7]
            inside += ((chunk - chunk.mean()) ** 2).sum()
            sizes.append(len(chunk))
            if len(chunk) > 1:
                pairs.append((chunk[-1], chunk.mean()))
    last, mean = np.array(pairs).T
    assert found.chunks == len(sizes)
    assert found.one_token_share == pytest.approx(np.mean(np.array(sizes) == 1))
    assert found.within_share == pytest.approx(inside / total)
    assert found.last.chunks == len(pairs)
    assert found.last.correlation == pytest.approx(np.corrcoef(last, mean)[0, 1])
    assert found.last.opposite == pytest.approx(np.mean(last * mean < 0))
    assert found.unchanged_share == 0
    assert sum(found.sizes.values()) == len(sizes)


@pytest.mark.parametrize("equal", [0, 3, 5])
def test_planted_equal_neighbours_are_sized(equal: int) -> None:
    scores = np.arange(6.0)
    scores[:equal] = 0.0
    rows = [
        {
            "group": 0,
            "step_ends": [1, 3, 5, 7, 9, 11],
            "step_scores": (scores + i).tolist(),
            "outcome": i,
        }
        for i in (0.0, 1.0)
    ]
    method = sc.PASS()
    credit = [row.double().numpy() for row in method(audited(rows).batch.rollouts).ragged()]
    paid = sum(np.abs(row[2 * j]) for row in credit for j in range(1, equal)) * 2
    total = sum(np.abs(row).sum() for row in credit)
    name = "share of credit on chunks that begin where the signal did not change"
    assert figures_of(rows, method)[name] == pytest.approx(paid / total, rel=1e-5)
    assert figures_of(rows, sc.PASS(chunks="runs"))[name] == 0


def test_single_tokens_are_found() -> None:
    result = check_resolution(audited(token_rows(), mine=sc.PASS(), pure=sc.PURE()))
    assert [f.severity for f in result.findings] == ["warn", "warn"]
    assert "`--set chunks=sign_runs`" in result.findings[0].advice
    assert "`step_scores`" in result.findings[1].advice
    values = {f.name: f.value for f in result.figures if f.method == "mine"}
    assert values["share of chunks of one token"] == pytest.approx(1, abs=0.05)


def test_a_last_token_that_says_little_is_found() -> None:
    windows = {"windows": {"size": 16}}
    found = check_resolution(audited(token_rows(), mine=sc.PASS(chunks=windows))).findings
    assert [(f.severity, "--set read=mean" in f.advice) for f in found] == [("warn", True)]
    mean = sc.PASS(chunks=windows, read="mean")
    assert [f.severity for f in check_resolution(audited(token_rows(), mine=mean)).findings] == [
        "note"
    ]


def test_equal_neighbours_are_found() -> None:
    rows = clean_rows()
    for row in rows:
        row["step_scores"] = [float(row["outcome"])] * len(row["step_scores"])
    found = check_resolution(audited(rows, mine=sc.PASS())).findings
    assert [(f.severity, "--set chunks=runs" in f.advice) for f in found] == [("note", True)]


def test_clean_data_is_not_accused() -> None:
    for seed in range(20):
        methods = {"pass": sc.PASS(), "sum": sc.ProcessGRPO(), "min": sc.PASSMin(), "o": sc.GRPO()}
        result = check_resolution(audited(clean_rows(seed), **methods))
        assert result.findings == ()
        assert {f.method for f in result.figures} == {"pass", "sum", "min"}


def test_without_a_signal_it_says_so() -> None:
    rows = [{"group": 0, "length": 2, "outcome": 1.0}]
    assert [u.field for u in check_resolution(audited(rows, mine=sc.GRPO())).unchecked] == [
        "step_scores"
    ]


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5]])
def test_degenerate_data_gives_no_finding(scores: list[float]) -> None:
    rows = [{"group": 0, "token_scores": scores, "outcome": 1.0}] * 2
    for few in (rows, rows[:1]):
        result = check_resolution(audited(few, mine=sc.PASS()))
        assert result.findings == ()
        assert all(f.value is None or np.isfinite(f.value) for f in result.figures)


def test_responses_without_the_signal_are_left_out() -> None:
    rows = [
        {"group": 0, "step_ends": [1, 3], "step_scores": [0.1, 0.7], "outcome": 1.0},
        {"group": 0, "length": 9, "outcome": 0.0},
    ]
    result = check_resolution(audited(rows, mine=sc.PASS()))
    assert result.figures[0].count == 1
    assert result.figures[1].value == 2


def test_nothing_has_no_value() -> None:
    nothing, none = np.zeros(3), np.array([1, 2])
    assert within_chunk_share(nothing, none) is None
    assert unchanged_credit_share(np.zeros(2), nothing, none, np.array([True, False])) is None
    assert last_token_says(np.ones(2), np.array([1, 1])).correlation is None
    assert last_token_says(np.ones(4), np.array([2, 2])).correlation is None
    assert standardized_tokens(np.ones(2), np.array([0]), np.array([2])).tolist() == [0, 0]
    assert standardized_tokens(np.ones(0), np.zeros(0, int), np.zeros(0, int)).size == 0
