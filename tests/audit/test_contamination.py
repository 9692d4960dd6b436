"""Channel contamination: planted outcomes that drown a signal, and clean data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tests.audit.made_rollouts import audited, clean_rows

import stepcredit as sc
from stepcredit.audit.channel_shares import (
    contamination_of,
    order_agreement,
    pooled_weights,
    variance_shares,
)
from stepcredit.audit.checks.contamination import check_contamination
from stepcredit.credit import blocks
from stepcredit.credit.metrics.token_sums import TokenSums
from stepcredit.data.streams import Tokens


def quiet_rows(factor: float) -> list[dict]:
    """Clean rows whose step scores are all closer to 0.5."""
    rows = clean_rows()
    for row in rows:
        row["step_scores"] = [0.5 + factor * (x - 0.5) for x in row["step_scores"]]
    return rows


@pytest.mark.parametrize("factor", [0.05, 0.5, 1.0])
def test_pooled_weights_against_plain_numpy(factor: float) -> None:
    rows = quiet_rows(factor)
    rollouts = audited(rows).batch.rollouts
    process, outcome = [], []
    for group in range(20):
        members = [row for row in rows if row["group"] == group]
        scores = np.concatenate([row["step_scores"] for row in members])
        sums = np.concatenate([np.add(row["step_scores"], row["outcome"]) for row in members])
        results = np.array([row["outcome"] for row in members])
        if scores.std() and results.std():
            process.append(scores.std() / sums.std())
            outcome.append(results.std() / sums.std())
    found = pooled_weights(rollouts, rollouts.streams["process"])
    assert found is not None
    assert found.groups == len(process)
    assert found.process == pytest.approx(np.mean(process))
    assert found.outcome == pytest.approx(np.mean(outcome))


def test_order_agreement_against_scipy() -> None:
    rng = np.random.default_rng(1)
    counts = np.array([5, 1, 0, 7, 3])
    first, second = rng.integers(0, 4, (2, 16)).astype(float)
    first[13:] = 2.0  # the last response has equal credit
    found = order_agreement(first, second, counts)
    starts = np.cumsum(counts) - counts
    expected = {
        row: spearmanr(first[at : at + n], second[at : at + n]).statistic
        for row, (at, n) in enumerate(zip(starts, counts, strict=True))
        if n > 1 and np.ptp(first[at : at + n]) and np.ptp(second[at : at + n])
    }
    assert found.rows.tolist() == list(expected)
    np.testing.assert_allclose(found.correlations, list(expected.values()))
    assert order_agreement(np.zeros(0), np.zeros(0), np.array([0])).rows.size == 0


def test_variance_shares_of_nothing_are_empty() -> None:

    still = TokenSums.of(torch.zeros(3))
    assert variance_shares({"process": still}) == {}


def test_the_outcome_of_scope_process_keeps_the_order_of_steps() -> None:
    rollouts = audited(clean_rows()).batch.rollouts
    assert (contamination_of(sc.PASS(scope="process"), rollouts).order.correlations == 1).all()
    loud = contamination_of(sc.ProcessGRPO(pooling="sum", weights=(0.01, 1, 1)), rollouts)
    assert loud.shares["process"] < 0.01
    assert np.mean(loud.order.correlations) < 0.8


def test_a_planted_quiet_signal_is_found_and_sized() -> None:
    methods = {"mine": sc.ProcessGRPO(), "pass": sc.PASS()}
    result = check_contamination(audited(quiet_rows(0.05), **methods))
    pooled = [f for f in result.findings if "standardized together" in f.sentence]
    assert [f.severity for f in pooled] == ["warn"]
    assert "as in mine." in pooled[0].sentence
    assert 0 < len(pooled[0].places) <= 5
    mine = [f for f in result.findings if f.sentence.startswith("Under mine")]
    assert "use the method `pass`" in mine[0].advice
    assert not [f for f in result.findings if f.sentence.startswith("Under pass")]
    shares = {f.stream: f.value for f in result.figures if f.method == "mine" and f.stream}
    assert sum(shares.values()) == pytest.approx(1)
    without = check_contamination(audited(quiet_rows(0.05), passes=sc.PASS()))
    assert [f.severity for f in without.findings] == ["note"]


def test_the_parts_of_pass_add_up_to_its_advantages() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {"group": i // 4, "token_scores": rng.normal(size=9).tolist(), "outcome": float(i % 2)}
        for i in range(8)
    ]
    rollouts = audited(rows).batch.rollouts
    method = sc.PASS(k=0.7)
    whole = method(rollouts).packed().double().numpy()
    process = method(rollouts.replaced(outcomes=sc.Rollouts([0] * 8, [1] * 8).outcomes))
    process = process.packed().double().numpy()
    parts = process.var(), (whole - process).var()
    found = contamination_of(method, rollouts).shares
    assert found["process"] == pytest.approx(parts[0] / sum(parts), rel=1e-5)


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_every_group_of_a_file_of_many_blocks_is_measured(
    monkeypatch: pytest.MonkeyPatch, is_interleaved: bool
) -> None:
    rows = quiet_rows(0.05)
    rows = rows[::2] + rows[1::2] if is_interleaved else rows
    methods = {"mine": sc.ProcessGRPO(), "pass": sc.PASS(), "pure": sc.PURE(), "min": sc.PASSMin()}
    whole = check_contamination(audited(rows, **methods))
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", 100)
    cut = check_contamination(audited(rows, **methods))
    tokens = sum(row["step_ends"][-1] + 1 for row in rows)
    assert {f.count for f in cut.figures if f.of == "tokens"} == {tokens}
    assert [f.sentence for f in cut.findings] == [f.sentence for f in whole.findings]
    assert [f.places for f in cut.findings] == [f.places for f in whole.findings]
    one, other = ([f.value for f in result.figures] for result in (cut, whole))
    assert one == pytest.approx(other, rel=1e-6)


def test_known_advantages_are_used_and_a_clip_is_left_out() -> None:
    rollouts = audited(clean_rows()).batch.rollouts
    free = contamination_of(sc.PASS(), rollouts)
    given = contamination_of(sc.PASS(), rollouts, sc.PASS()(rollouts))
    clipped = sc.PASS(clip=0.1)
    found = contamination_of(clipped, rollouts, clipped(rollouts))
    for each in (given, found):
        assert each.shares == pytest.approx(free.shares, rel=1e-6)
        np.testing.assert_allclose(each.order.correlations, free.order.correlations)


def test_clean_data_is_not_accused() -> None:
    for seed in range(20):
        methods = {"pass": sc.PASS(), "sum": sc.ProcessGRPO(), "min": sc.PASSMin()}
        assert check_contamination(audited(clean_rows(seed), **methods)).findings == ()


def test_a_long_token_signal_is_drowned_by_the_outcome_below_k_1() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"group": i // 4, "token_scores": rng.normal(size=800).tolist(), "outcome": float(i % 2)}
        for i in range(32)
    ]
    found = check_contamination(audited(rows, mine=sc.PASS())).findings
    assert [f for f in found if "--set scope=process" in f.advice]
    fixed = check_contamination(audited(rows, mine=sc.PASS(scope="process"))).findings
    assert not [f for f in fixed if f.sentence.startswith("Under mine")]


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([{"group": 0, "length": 2, "outcome": 1.0}], "step_scores"),
        ([{"group": 0, "step_ends": [1], "step_scores": [0.5]}], "outcome"),
    ],
)
def test_what_is_missing_is_named(rows: list[dict], field: str) -> None:
    assert [u.field for u in check_contamination(audited(rows)).unchecked] == [field]


@pytest.mark.parametrize("score", [[0.5], [0.5, 0.5]])
def test_degenerate_data_gives_no_finding(score: list[float]) -> None:
    row = {"step_ends": list(range(len(score))), "step_scores": score, "outcome": 1.0}
    rows = [{"group": 0, **row}, {"group": 0, **row}]
    for few in (rows, rows[:1]):
        result = check_contamination(audited(few, mine=sc.PASS(), sum=sc.ProcessGRPO()))
        assert result.findings == ()
        assert all(f.value is None or np.isfinite(f.value) for f in result.figures)


def test_unscored_responses_have_no_part_in_the_pool() -> None:
    stream = Tokens([[1.0, 0.0], [], [0.0]])
    r = sc.Rollouts([0, 0, 0], [2, 1, 1], stream, outcome=[1.0, 1.0, 0.0])
    found = pooled_weights(r, stream)
    assert found is not None
    assert found.outcome == pytest.approx(0.5 / np.std([2.0, 1.0, 0.0]))
