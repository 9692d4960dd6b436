"""Q-alignment: figures are scipy's and plain loops'; a signal against the values is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.audit.lab_rows import lab_rows

import stepcredit as sc
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.checks.q_alignment import check_q_alignment
from stepcredit.audit.finding import CheckResult
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.value_alignment import SMALLEST_CHANGE, ValueChanges, alignment


def rows_of(sign: float, still_size: float = 0.0, groups: int = 12) -> list[dict[str, Any]]:
    """Four steps a response, one of which changes nothing; scores follow `sign` x the changes."""
    generator, rows = np.random.default_rng(0), []
    for group in range(groups):
        for _ in range(4):
            changes = 0.25 * generator.permutation([1.0, -1.0, 0.0, 0.5])
            scores = sign * changes + 0.02 * generator.standard_normal(4)
            scores[changes == 0] += still_size * generator.choice([-1.0, 1.0])
            values = np.concatenate([[0.5], 0.5 + changes.cumsum()])
            rows.append(
                {
                    "group": group,
                    "length": 4,
                    "step_ends": [0, 1, 2, 3],
                    "step_scores": scores.tolist(),
                    "step_values": values.tolist(),
                    "outcome": float(generator.random() < 0.5),
                }
            )
    return rows


def audited(rows: list[dict[str, Any]], **methods: sc.Estimator) -> CheckResult:
    return check_q_alignment(AuditInput.of(LoggedBatch.of(rows), methods))


def value(result: CheckResult, start: str, method: str = "") -> float | None:
    found = (f for f in result.figures if f.name.startswith(start) and f.method == method)
    return next(found).value


def test_figures_of_a_signal_are_those_of_plain_loops() -> None:
    rows = rows_of(0.3)
    result = audited(rows)
    ranks, signs, leaks = [], [], []
    for group in range(12):
        own = [row for row in rows if row["group"] == group]
        scores = np.concatenate([row["step_scores"] for row in own])
        changes = np.concatenate([np.diff(row["step_values"]) for row in own])
        ranks.append(spearmanr(scores, changes).statistic)
        off = scores - scores.mean()
        moved = np.abs(changes) > SMALLEST_CHANGE
        signs.append(np.mean(np.sign(off[moved]) == np.sign(changes[moved])))
        leaks.append(np.abs(off[~moved]).mean() / np.abs(off).mean())
    assert value(result, "rank correlation") == pytest.approx(np.mean(ranks))
    assert value(result, "share of steps with the sign") == pytest.approx(np.mean(signs))
    assert value(result, "size on steps that change nothing") == pytest.approx(np.mean(leaks))
    assert not result.findings


def test_credit_of_a_method_is_read_without_centring() -> None:
    rows = rows_of(1.0)
    result = audited(rows, grpo=sc.GRPO())
    advantages = sc.GRPO()(LoggedBatch.of(rows).rollouts).ragged()
    signs: dict[int, list[float]] = {}
    for row, own in zip(rows, advantages, strict=True):
        for change, advantage in zip(np.diff(row["step_values"]), own.tolist(), strict=True):
            if abs(change) > SMALLEST_CHANGE:
                hit = 0.5 + 0.5 * np.sign(change) * np.sign(advantage)
                signs.setdefault(row["group"], []).append(hit)
    expected = np.mean([np.mean(each) for each in signs.values()])
    assert value(result, "share of steps with the sign", "grpo") == pytest.approx(expected)


def test_a_signal_against_the_values_is_found() -> None:
    found = audited(rows_of(-1.0)).findings
    assert [each.severity for each in found] == ["warn"]
    assert "The signal process orders steps against" in found[0].sentence
    rows = rows_of(-1.0)
    place = found[0].places[0]
    assert np.diff(rows[place.row]["step_values"])[place.step] != 0


def test_advice_on_credit_in_the_wrong_order_says_whether_the_scores_are() -> None:
    """With a negative weight the credit of PASS is turned round, and the signal is not."""
    rows = rows_of(1.0)
    turned = audited(rows, mine=sc.PASS(weights={"process": -1.0, "outcome": 0.0}))
    (finding,) = turned.findings
    assert "The credit of mine orders steps against" in finding.sentence
    assert "The scores of process (rank correlation +" in finding.advice
    assert "this comes from the method" in finding.advice
    signal, credit = audited(rows_of(-1.0), mine=sc.PASS(weights=(1, 0, 0))).findings
    assert signal.advice == credit.advice
    assert "turned round, or shifted" in signal.advice


def test_leakage_to_steps_that_change_nothing_is_found() -> None:
    rows = rows_of(0.3, still_size=0.9)
    found = audited(rows).findings
    assert [each.severity for each in found] == ["note"]
    for place in found[0].places:
        change = np.diff(rows[place.row]["step_values"])[place.step]
        assert abs(change) <= SMALLEST_CHANGE


def test_step_truth_stands_in_for_values() -> None:
    result = audited(lab_rows("exact", prompts=12), **{"pass": sc.PASS(), "grpo": sc.GRPO()})
    assert value(result, "rank correlation with what steps change (step_labels)") == 1.0
    better, worse = (value(result, "rank correlation", method) for method in ("pass", "grpo"))
    assert better > worse
    assert not result.findings


@pytest.mark.parametrize(
    ("fields", "lacks"),
    [
        ({"length": 2}, ["step_ends"]),
        ({"step_ends": [0, 1], "step_scores": [0.5, 0.5]}, ["step_values"]),
        ({"step_ends": [0, 1], "step_scores": [0.5, 0.5], "step_values": [0.5, 0.5, 0.5]}, []),
        ({"step_ends": [0, 1], "step_scores": [0.0, 1.0], "step_values": [None] * 3}, []),
        ({"step_ends": [1], "step_scores": [0.0], "step_values": [0.0, 1.0]}, []),
        ({"step_ends": [0, 1], "step_values": [0.0, 1.0, 0.0]}, []),
    ],
)
def test_degenerate_rows(fields: dict[str, Any], lacks: list[str]) -> None:
    rows = [{"group": 1, "outcome": 1.0} | fields]
    result = audited(rows, grpo=sc.GRPO())
    assert [gap.field for gap in result.unchecked] == lacks
    assert not result.findings
    numbers = [x for f in result.figures for x in (f.value, f.low, f.high) if x is not None]
    assert np.isfinite(numbers).all()


def test_alignment_of_nothing() -> None:
    empty, none = np.zeros(0), np.zeros(0, np.int64)
    found = alignment(empty, empty, none, centred=False)
    assert found.spearman.mean is found.sign_accuracy.mean is found.leakage.mean is None
    assert ValueChanges.of(LoggedBatch.of([{"group": 1, "length": 1}])) is None
