"""What credit pays: planted padding is found and sized; clean rollouts are not accused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.audit.lab_rows import lab_rows

import stepcredit as sc
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.checks.payment import check_payment, padding_gaps, payment_by_kind
from stepcredit.audit.finding import AuditFigure, CheckResult
from stepcredit.audit.group_means import group_gap, group_mean
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.step_credit import step_credit
from stepcredit.credit.metrics.step_kinds import StepKinds

METHODS = {
    "grpo": sc.GRPO(),
    "pass": sc.PASS(),
    "return-to-go": sc.PASS(k=0.0, scope="process"),
    "pass-min": sc.PASSMin(),
    "pure": sc.PURE(),
}


def planted(filler: float, groups: int = 12, answers: int = 6, seed: int = 0) -> list[dict]:
    """Three steps a response: a right one, a wrong one, and dots with a score of `filler`."""
    generator, rows = np.random.default_rng(seed), []
    for group in range(groups):
        for _ in range(answers):
            scores = np.array([0.8, 0.2, filler]) + 0.05 * generator.standard_normal(3)
            order = generator.permutation(3)
            rows.append(
                {
                    "group": group,
                    "tokens": [["3+4=7 ", "3+4=8 ", "... "][at] for at in order],
                    "step_ends": [0, 1, 2],
                    "step_scores": scores[order].tolist(),
                    "step_labels": [["right", "wrong", "filler"][at] for at in order],
                    "outcome": float(generator.random() < 0.5),
                }
            )
    return rows


def audited(rows: list[dict], **methods: sc.Estimator) -> CheckResult:
    return check_payment(AuditInput.of(LoggedBatch.of(rows), methods or METHODS))


def figure(result: CheckResult, name: str, method: str) -> AuditFigure:
    return next(f for f in result.figures if (f.name, f.method) == (name, method))


def told(result: CheckResult) -> str:
    return " ".join(found.sentence for found in result.findings)


@pytest.mark.parametrize("method", ["pass", "pure"])
def test_means_and_gaps_are_those_of_plain_loops(method: str) -> None:
    rows = planted(0.6)
    result = audited(rows)
    advantages = METHODS[method](LoggedBatch.of(rows).rollouts).ragged()
    by_group: dict[int, dict[str, list[float]]] = {}
    for row, values in zip(rows, advantages, strict=True):
        for label, value in zip(row["step_labels"], values.tolist(), strict=True):
            by_group.setdefault(row["group"], {}).setdefault(label, []).append(value)
    means = [{k: sum(v) / len(v) for k, v in each.items()} for each in by_group.values()]
    for kind in ("right", "wrong", "filler"):
        found = figure(result, f"mean advantage of {kind} steps", method)
        assert found.value == pytest.approx(np.mean([each[kind] for each in means]), abs=1e-6)
        assert found.count == len(rows)
    gaps = np.array([each["filler"] - each["right"] for each in means])
    half = 2.200985 * gaps.std(ddof=1) / np.sqrt(len(gaps))  # Student's t, 11 degrees, 97.5 %
    found = figure(result, "advantage of filler steps minus that of right steps", method)
    assert found.value == pytest.approx(gaps.mean(), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half))


def test_filler_above_right_steps_is_found() -> None:
    result = audited(planted(0.99, groups=60), own=sc.PASS(k=0.0, weights=(1.0, 0.0, 0.0)))
    assert [found.severity for found in result.findings] == ["warn"]
    assert "With own, filler steps are paid more than right steps" in told(result)
    rows = planted(0.99, groups=60)
    assert all(rows[p.row]["step_labels"][p.step] == "filler" for p in result.findings[0].places)


def test_filler_below_right_steps_is_not_accused() -> None:
    assert not audited(planted(0.2)).findings


def test_a_repeated_step_that_is_paid_is_found_without_truth() -> None:
    rows = planted(0.0)
    for row in rows:
        del row["step_labels"]
        row["tokens"] = ["3+4=7 ", "so 8 ", "3+4=7 "]
        row["step_scores"] = [0.3, 0.2, 0.9]
    result = audited(rows, own=sc.PASS(k=1.0, weights=(1.0, 0.0, 0.0)))
    assert "repeated steps are paid more than the other steps" in told(result)
    assert [gap.field for gap in result.unchecked] == ["step_labels"]


def test_repeated_steps_are_not_compared_with_first_steps() -> None:
    """Under a return-to-go places differ, which says nothing of repetition."""
    generator = np.random.default_rng(0)
    rows = [
        {
            "group": at // 6,
            "tokens": ["so "] * 4,
            "step_ends": [0, 1, 2, 3],
            "step_scores": generator.random(4).tolist(),
            "outcome": float(at % 2),
        }
        for at in range(240)
    ]
    result = audited(rows)
    assert not result.findings
    assert not [f for f in result.figures if "repeated steps minus" in f.name]


def test_the_embedded_task_ranks_what_collapses_before_training() -> None:
    """In training `hackable` filled up under the return-to-go, crept under pass, and under
    pass-min and pure it did not; on `noisy` nothing did."""
    hackable, noisy = (audited(lab_rows(signal, prompts=96)) for signal in ("hackable", "noisy"))
    name = "advantage of filler steps minus that of right steps"
    gaps = {method: figure(hackable, name, method).value for method in METHODS}
    assert max(gaps, key=lambda method: gaps[method] or 0.0) == "return-to-go"
    mean = "mean advantage of filler steps"
    paid = {method: figure(hackable, mean, method).value or 0.0 for method in METHODS}
    assert paid["return-to-go"] > paid["pass"] > 3 * max(paid["pass-min"], paid["pure"])
    assert {each.method for found in hackable.findings for each in found.evidence} == {
        "pass",
        "return-to-go",
    }
    assert not noisy.findings


@pytest.mark.parametrize("seed", range(5))
def test_honest_signals_of_the_embedded_task_are_not_accused(seed: int) -> None:
    assert not audited(lab_rows("exact", prompts=24, seed=seed)).findings


@pytest.mark.parametrize("fields", [{}, {"step_ends": [1]}, {"step_scores": [0.5]}])
def test_one_response(fields: dict[str, Any]) -> None:
    row = {"group": 1, "tokens": ["a", "b"], "outcome": 1.0} | fields
    row |= {"step_ends": [1]} if "step_scores" in fields else {}
    result = audited([row])
    assert not result.findings
    assert all(f.value is not None and np.isfinite(f.value) for f in result.figures)
    assert all(f.low is None for f in result.figures)
    lacks = [gap.field for gap in result.unchecked]
    assert lacks == (["step_ends"] if not fields else ["step_labels"])


def test_a_constant_signal_without_outcomes_pays_nothing() -> None:
    rows = planted(0.5)
    for row in rows:
        row["step_scores"], row["outcome"] = [0.5] * 3, None
    result = audited(rows, own=sc.PASS())
    assert not result.findings
    assert {f.value for f in result.figures} == {0.0}


def test_measures_of_nothing() -> None:
    values, nothing, group = np.array([1.0, 2.0]), np.zeros(2, bool), np.array([0, 1])
    assert group_mean(values, nothing, group).mean is None
    assert group_gap(values, nothing, ~nothing, group).mean is None
    empty = np.zeros(0)
    assert group_mean(empty, empty.astype(bool), empty.astype(np.int64)).count == 0
    assert group_gap(values, group == 0, group == 1, group).count == 0


def test_kinds_without_texts_are_those_of_the_truth() -> None:
    row = {"group": 1, "step_ends": [0, 2], "step_labels": ["right", "filler"], "outcome": 1.0}
    batch = LoggedBatch.of([row, row])
    kinds = StepKinds.of(batch.rollouts, batch.steps, batch.step_labels)
    assert kinds is not None
    assert "repeated" not in kinds.flags
    credit = step_credit(sc.GRPO()(batch.rollouts), kinds.ends).numpy()
    assert payment_by_kind(credit, kinds)["filler"].count == 2
    assert padding_gaps(credit, kinds)["filler"].mean == 0.0
