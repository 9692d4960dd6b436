"""Length pressure: steps that pay whatever they say, and clean data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.audit.made_rollouts import Row, audited, clean_rows

import stepcredit as sc
from stepcredit.audit.checks.length_pressure_check import check_length_pressure
from stepcredit.audit.one_more_step import StepLevels, step_pressure, with_one_more_step
from stepcredit.audit.path_totals import break_even_values, path_totals, paying_stretches
from stepcredit.credit import blocks
from stepcredit.data.streams import Tokens

SUM = sc.PURE(form="sum", baseline="rollout")


def rewritten(rows: list[Row], at: int, score: float, tokens: int) -> list[Row]:
    """The rows, one of them with one more step."""
    row = dict(rows[at])
    row["step_scores"] = [*row["step_scores"], score]
    row["step_ends"] = [*row["step_ends"], row["step_ends"][-1] + tokens]
    return [*rows[:at], row, *rows[at + 1 :]]


@pytest.mark.parametrize("method", [sc.PASS(), sc.PASS(k=0.0, scope="process"), sc.PURE(), SUM])
def test_changes_are_those_of_rows_rewritten_one_by_one(method: sc.Estimator) -> None:
    rows = clean_rows(groups=3, size=3)
    rollouts = audited(rows).batch.rollouts
    levels = StepLevels.of(rollouts)
    found = step_pressure(method, rollouts, levels)
    scores = np.concatenate([np.float32(row["step_scores"]) for row in rows])
    sizes = np.concatenate([np.diff(row["step_ends"], prepend=-1) for row in rows])
    tokens = int(np.sort(sizes)[(len(sizes) - 1) // 2])
    middle = float(np.sort(scores)[(len(scores) - 1) // 2])
    before = [float(row[0]) for row in method(rollouts).ragged()]
    for level, score in (("worst", scores.min()), ("typical", middle), ("best", scores.max())):
        expected = []
        for at in range(len(rows)):
            longer = audited(rewritten(rows, at, float(score), tokens)).batch.rollouts
            expected.append(float(method(longer).ragged()[at][0]) - before[at])
        np.testing.assert_allclose(found.changes[level], expected, atol=2e-6)


def test_a_step_of_tokens_and_a_missing_signal() -> None:
    r = sc.Rollouts([0, 0, 0], [2, 1, 4], Tokens([[1.0, 2.0], [3.0], []]))
    longer = with_one_more_step(r, torch.tensor([True, False, True]), {"process": 9.0}, 2)
    assert longer.lengths.tolist() == [4, 1, 6]
    assert longer.streams["process"].values.tolist() == [1.0, 2.0, 9.0, 9.0, 3.0]
    assert longer.streams["process"].counts.tolist() == [4, 1, 0]


def test_ready_made_advantages_have_no_level() -> None:
    streams = {"process": Tokens([[1.0], [2.0]]), "critic": sc.TokenAdvantages([[0.5], [0.1]])}
    r = sc.Rollouts([0, 0], [1, 1], {**streams, "none": Tokens([[], []])}, outcome=[1.0, 0.0])
    levels = StepLevels.of(r)
    assert dict(levels.best) == {"process": 2.0}
    longer = with_one_more_step(r, torch.tensor([True, False]), levels.best, 1)
    assert longer.streams["critic"].values.tolist() == [0.5, 0.0, pytest.approx(0.1)]
    assert longer.streams["none"].values.numel() == 0


@pytest.mark.parametrize("scope", ["fused", "process"])
def test_path_totals_are_the_stages_that_explain_shows(scope: str) -> None:
    rollouts = audited(clean_rows(groups=4)).batch.rollouts
    method = sc.PASS(scope=scope, match_std=True, clip=1.0)
    found = path_totals(method, rollouts)
    assert found is not None
    stages = method.explain(rollouts).stages
    values = stages["fused"] if scope == "fused" else stages["N(process)"]
    np.testing.assert_allclose(found.values, values, atol=1e-5)
    for k in (0.0, 0.7, 1.0):
        starts = np.cumsum(found.chunks) - found.chunks
        rows = [found.values[s : s + n] for s, n in zip(starts, found.chunks, strict=True)]
        expected = [row.sum() * ((len(row) + 1) ** k / len(row) ** k - 1) for row in rows]
        np.testing.assert_allclose(break_even_values(found, k), expected, atol=1e-9)
        padded = [
            next(
                (
                    1 + m / len(row)
                    for m in range(1, 20_000)
                    if (row.sum() + m) / (len(row) + m) ** k
                    > row.sum() / len(row) ** k * (1 + 1e-12)
                ),
                np.inf,
            )
            for row in rows
            if row.sum() > 0
        ]
        np.testing.assert_allclose(paying_stretches(found, k, 1.0), padded)


def test_a_discount_has_no_theory() -> None:
    assert path_totals(sc.PASS(gamma=0.9), audited(clean_rows()).batch.rollouts) is None


def test_a_plain_sum_of_positive_scores_pays_every_step() -> None:
    result = check_length_pressure(audited(clean_rows(), sum=SUM))
    traps = [f for f in result.findings if "padding pays" in f.sentence]
    assert [f.severity for f in traps] == ["warn"]
    assert "100%" in traps[0].sentence
    assert len(traps[0].places) == 5


def test_a_plain_sum_of_negative_scores_pays_stopping_early() -> None:
    rows = clean_rows()
    for row in rows:
        row["step_scores"] = [x - 2 for x in row["step_scores"]]
    found = check_length_pressure(audited(rows, sum=SUM)).findings
    assert [f for f in found if "stopping early pays" in f.sentence]
    repaired = check_length_pressure(audited(rows, repaired=sc.PASS())).findings
    assert repaired == ()


def test_scores_far_below_minus_one_under_pure_are_found() -> None:
    rows = clean_rows()
    for row in rows:
        row["step_scores"] = [40 * (x - 1.5) for x in row["step_scores"]]
    found = check_length_pressure(audited(rows, mine=sc.PURE())).findings
    (finding,) = [each for each in found if "padding pays" in each.sentence]
    assert "minimum per token from every token" in finding.sentence
    assert finding.advice == "Take the baseline once per response: `--set baseline=rollout`."
    once = audited(rows, mine=sc.PURE(baseline="rollout"))
    assert check_length_pressure(once).findings == ()
    levels = StepLevels.of(once.batch.rollouts)
    expected = step_pressure(sc.PURE(baseline="rollout"), once.batch.rollouts, levels)
    change = expected.changes["typical"].mean() / expected.spread
    assert f"would change it by {change:+.2f} standard deviations." in finding.sentence
    found = check_length_pressure(audited(rows, mine=sc.PURE(baseline="per_step"))).findings
    assert "minimum per step from every step" in found[0].sentence


def test_scores_far_above_one_under_pure_pay_stopping_early() -> None:
    rows = clean_rows()
    for row in rows:
        row["step_scores"] = [40 * (x + 0.5) for x in row["step_scores"]]
    found = check_length_pressure(audited(rows, mine=sc.PURE())).findings
    (finding,) = [each for each in found if each.severity == "warn"]
    assert "stopping early pays" in finding.sentence
    assert "baseline=rollout" in finding.advice


def test_pass_is_measured_at_other_exponents() -> None:
    result = check_length_pressure(audited(clean_rows(), mine=sc.PASS()))
    names = {figure.method for figure in result.figures} - {""}
    assert names == {"mine", "mine, k = 0", "mine, k = 1"}
    stretch = {f.method: f.value for f in result.figures if f.name.startswith("length, in times")}
    assert stretch["mine, k = 0"] < stretch["mine"]
    assert set(result.series["one_more_step"]) == names


def test_the_break_even_score_lies_where_the_change_is_zero() -> None:
    method = sc.PASS(k=1.0, scope="process", operator="abs_max", weights=(1, 0, 0))
    rows = [{"group": 0, "step_ends": [0, 1], "step_scores": [0.2, 0.6], "outcome": 1.0}]
    rows += [{"group": 0, "step_ends": [0], "step_scores": [1.0], "outcome": 0.0}]
    figures = check_length_pressure(audited(rows, mine=method)).figures
    found = [f for f in figures if f.name.startswith("score of one more") and f.method == "mine"]
    assert found[0].value == pytest.approx((0.4 + 1.0) / 2)  # each response's mean score
    assert found[0].count == 2


def test_a_planted_correlation_with_length_is_found() -> None:
    rows = clean_rows()
    for row in rows:
        row["step_scores"] = [0.1 * len(row["step_ends"])] * len(row["step_ends"])
    result = check_length_pressure(audited(rows, proc=sc.ProcessGRPO(pooling="process")))
    notes = [f.sentence for f in result.findings if f.severity == "note"]
    assert any(
        sentence.startswith("The scores of 'process' are higher in longer") for sentence in notes
    )
    assert any(note.startswith("The advantages of proc") for note in notes)
    lengths = np.array([row["step_ends"][-1] + 1.0 for row in rows])
    scores = np.array([row["step_scores"][0] for row in rows])
    groups = np.array([row["group"] for row in rows])
    x, y = (v - (np.bincount(groups, v) / 8)[groups] for v in (lengths, scores))
    expected = x @ y / np.sqrt((x @ x) * (y @ y))
    found = [f for f in result.figures if f.name.startswith("correlation of the mean score")]
    assert found[0].value == pytest.approx(expected, rel=1e-6)


def test_right_answers_that_are_long_explain_credit_for_length() -> None:
    rows = clean_rows()
    for row in rows:
        row["outcome"] = float(len(row["step_ends"]) > 4)
    assert check_length_pressure(audited(rows, grpo=sc.GRPO())).findings == ()


def test_clean_data_is_not_accused() -> None:
    for seed in range(20):
        methods = {
            "pass": sc.PASS(),
            "flat": sc.PASS(scope="process"),
            "min": sc.PASSMin(),
            "pure": sc.PURE(),
            "sum": sc.ProcessGRPO(),
            "grpo": sc.GRPO(),
        }
        assert check_length_pressure(audited(clean_rows(seed), **methods)).findings == ()


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_every_group_of_a_file_of_many_blocks_is_measured(
    monkeypatch: pytest.MonkeyPatch, is_interleaved: bool
) -> None:
    rows = clean_rows()
    rows = rows[::2] + rows[1::2] if is_interleaved else rows
    methods = {"sum": SUM, "pass": sc.PASS(), "min": sc.PASSMin()}
    methods["white"] = sc.PURE(whiten_batch=True)
    whole = check_length_pressure(audited(rows, **methods))
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", 100)
    cut = check_length_pressure(audited(rows, **methods))
    changes = [f.count for f in cut.figures if f.name.startswith("change of")]
    assert changes == [len(rows)] * 18
    assert [f.places for f in cut.findings] == [f.places for f in whole.findings]
    for name, levels in whole.series["one_more_step"].items():
        for level, expected in levels.items():
            found = cut.series["one_more_step"][name][level]
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_group_may_lack_the_stream_that_others_have() -> None:
    rows = [
        {"group": i // 2, "outcome": float(i % 2), "step_ends": [1, 3]}
        | ({"step_scores": [0.2, 0.1 * i]} if i < 4 else {})
        | {"signals": {"other": {"ends": [3], "scores": [0.3 * i]}}}
        for i in range(8)
    ]
    rollouts = audited(rows).batch.rollouts
    method = sc.PASS()
    found = step_pressure(method, rollouts, StepLevels.of(rollouts))
    assert found.rows.tolist() == [0, 1, 2, 3]


def test_without_a_signal_the_correlations_are_left() -> None:
    rows = [{"group": 0, "length": 2, "outcome": 1.0}, {"group": 0, "length": 3, "outcome": 0.0}]
    result = check_length_pressure(audited(rows, grpo=sc.GRPO()))
    assert [u.field for u in result.unchecked] == ["step_scores"]
    assert [f.value for f in result.figures] == [pytest.approx(-1)] * 2
    assert result.findings == ()


def test_chunks_of_texts_are_left_out() -> None:
    rows = clean_rows(groups=2)
    for row in rows:
        row["tokens"] = ["a."] * (row["step_ends"][-1] + 1)
    result = check_length_pressure(audited(rows, mine=sc.PASS(chunks="sentences")))
    assert {u.field for u in result.unchecked} == {"tokens"}


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5]])
@pytest.mark.parametrize("outcome", [None, 1.0])
def test_degenerate_data_gives_no_finding(scores: list[float], outcome: float | None) -> None:
    rows = [{"group": 0, "token_scores": scores, "outcome": outcome}] * 2
    for few in (rows, rows[:1]):
        result = check_length_pressure(audited(few, mine=sc.PASS(), sum=sc.ProcessGRPO()))
        assert result.findings == ()
        assert all(f.value is None or np.isfinite(f.value) for f in result.figures)


def test_a_method_of_states_is_named_as_not_measured() -> None:
    rows = [row | {"step_states": ["s"] * len(row["step_ends"])} for row in clean_rows()]
    result = check_length_pressure(audited(rows, gigpo=sc.GiGPO(), pure=sc.PURE()))
    assert {(u.field, u.reason) for u in result.unchecked} == {
        ("step_states", "gigpo compares the states of steps, and one more step has none.")
    }
    assert list(result.series["one_more_step"]) == ["pure"]
