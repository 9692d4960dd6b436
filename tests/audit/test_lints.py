"""Lints of a log: a planted fault of a known size is found, clean rows are not accused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepcredit as sc
from stepcredit.audit.check_registry import AuditInput, audit_checks
from stepcredit.audit.checks.lints import check_gate, check_groups, check_known_outcomes
from stepcredit.audit.checks.repeated_responses import check_repeated
from stepcredit.audit.checks.shifted_scores import check_shifted
from stepcredit.audit.checks.signal_lints import check_values, check_variance
from stepcredit.audit.checks.stored_lints import check_masked, check_stored
from stepcredit.audit.finding import CheckResult, Finding
from stepcredit.audit.logged_batch import LoggedBatch

Rows = list[dict[str, Any]]
LINTS = [
    check_groups,
    check_known_outcomes,
    check_gate,
    check_repeated,
    check_shifted,
    check_values,
    check_variance,
    check_masked,
    check_stored,
]


def clean_log(seed: int = 0, groups: int = 12, size: int = 6) -> Rows:
    """Rows with texts, step scores that follow the truth, outcomes, and stored advantages."""
    rng, rows = np.random.default_rng(seed), []
    for group in range(groups):
        for at in range(size):
            right = (rng.random(5) < 0.6).astype(int)
            outcome = float(at % 2) if at < 2 else float(rng.random() < 0.5)
            row = {
                "group": group,
                "prompt": f"question {group}",
                "text": f"answer {rng.integers(1e12)} of some length",
                "step_ends": [1, 3, 6, 8, 9],
                "step_scores": (0.3 + 0.4 * right + rng.normal(0, 0.1, 5)).tolist(),
                "step_labels": right.tolist(),
                "outcome": outcome,
                "format_ok": True,
            }
            rows.append(row)
    values = sc.PASS()(LoggedBatch.of(rows).rollouts).ragged()
    return [row | {"advantages": a.tolist()} for row, a in zip(rows, values, strict=True)]


def given(rows: Rows) -> AuditInput:
    return AuditInput.of(LoggedBatch.of(rows, "log"), {"pass": sc.PASS(), "grpo": sc.GRPO()})


def found(check: Any, rows: Rows) -> Finding:
    """The one finding of a check."""
    (finding,) = check(given(rows)).findings
    assert finding.advice
    return finding


@pytest.mark.parametrize("check", LINTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_clean_log_is_not_accused(check: Any, seed: int) -> None:
    assert check(given(clean_log(seed))).findings == ()


@pytest.mark.parametrize("check", LINTS)
def test_degenerate_logs_have_a_result(check: Any) -> None:
    scored = {"group": 0, "length": 1, "step_ends": [0], "step_scores": [0.5], "text": ""}
    several: list[Rows] = [
        [{"group": 0, "length": 1}],
        [scored],
        [scored, scored | {"advantages": [0.0], "outcome": 1.0}],
        [scored | {"step_scores": [0.0], "step_labels": [1]}] * 40,
        [{"group": 0, "loss_mask": [0, 1], "advantages": [0.0, 0.0], "outcome": 1.0}] * 2,
        [{"group": 0, "token_scores": [0.1, 0.2]}, {"group": 0, "length": 3}],
    ]
    for rows in several:
        result = check(given(rows))
        assert isinstance(result, CheckResult)
        numbers = [each.value for each in result.figures if each.value is not None]
        assert np.isfinite(numbers).all()


def test_the_lints_are_registered() -> None:
    assert set(LINTS) <= set(audit_checks().values())


def test_groups_torn_apart() -> None:
    rows = clean_log()
    for at in range(36):  # half of the 72 responses: 6 of 12 groups become 36
        rows[at]["group"] = f"alone {at}"
    finding = found(check_groups, rows)
    assert finding.severity == "fault"
    assert "36 of 42 groups hold one response only" in finding.sentence
    assert "6 prompts stand in more than one group" in finding.sentence
    assert finding.evidence[0].value == pytest.approx(36 / 42)
    for row in rows:
        del row["prompt"]
    assert found(check_groups, rows).severity == "warn"
    assert found(check_groups, [rows[0]]).sentence.startswith("The only group holds")


def test_incomplete_groups() -> None:
    rows = [row for at, row in enumerate(clean_log()) if at not in (3, 4, 40)]
    finding = found(check_groups, rows)
    assert "2 groups of 12 have fewer than the 6 responses" in finding.sentence
    assert finding.places[0].row == 0
    last = found(check_groups, clean_log()[:-2])
    assert (last.severity, last.sentence[:18]) == ("note", "The last group has")
    sizes = [row for at, row in enumerate(clean_log()) if at % 6 < 2 + at // 6 % 5]
    assert check_groups(given(sizes)).findings == ()


def test_outcomes_that_are_missing() -> None:
    rows = clean_log()
    for row in rows[:12]:
        row["outcome"] = None
    finding = found(check_known_outcomes, rows)
    assert (finding.severity, finding.share) == ("note", pytest.approx(12 / 72))
    assert "2 of 12 groups" in finding.sentence
    rows[0]["outcome"] = 1.0
    assert found(check_known_outcomes, rows).severity == "fault"
    for row in rows:
        del row["outcome"]
    result = check_known_outcomes(given(rows))
    assert ([each.field for each in result.unchecked], result.findings) == (["outcome"], ())


@pytest.mark.parametrize(("broken", "severity"), [(72, "fault"), (70, "warn")])
def test_a_run_that_fails_the_gate(broken: int, severity: str) -> None:
    rows = clean_log()
    for row in rows[:broken]:
        row["format_ok"] = False
    finding = found(check_gate, rows)
    assert (finding.severity, finding.share) == (severity, pytest.approx(broken / 72))
    assert "no format reward teaches them" in finding.sentence
    half = [row | {"format_ok": at > 30} for at, row in enumerate(rows)]
    assert check_gate(given(half)).findings == ()


def test_responses_logged_twice() -> None:
    rows = clean_log()
    again = [row | {"group": f"again {row['group']}"} for row in rows[:18]]
    finding = found(check_repeated, rows + again)
    assert "3 groups hold the same responses" in finding.sentence
    same = [row | {"text": f"the same answer in group {row['group']}"} for row in rows]
    repeated = found(check_repeated, same)
    assert repeated.share == pytest.approx(60 / 72)  # all but the first of each of 12 groups


@pytest.mark.parametrize("side", ["later", "earlier"])
def test_scores_shifted_within_responses(side: str) -> None:
    rows = clean_log(4, groups=20)
    for row in rows:
        s = row["step_scores"]
        row["step_scores"] = [s[0], *s[:-1]] if side == "later" else [*s[1:], s[-1]]
    finding = found(check_shifted, rows)
    assert f"one step {side} than they should" in finding.sentence
    pairs = 20 * 6 * 4
    assert finding.evidence[0].count == pairs
    label = [row["step_labels"] for row in rows]
    move = 1 if side == "later" else -1
    at = range(4) if side == "later" else range(1, 5)
    own = [(r["step_scores"][j], t[j]) for r, t in zip(rows, label, strict=True) for j in at]
    on = [(r["step_scores"][j + move], t[j]) for r, t in zip(rows, label, strict=True) for j in at]
    lead = np.corrcoef(np.array(on).T)[0, 1] - np.corrcoef(np.array(own).T)[0, 1]
    assert finding.evidence[0].value == pytest.approx(lead)


def test_scores_shifted_through_the_file() -> None:
    rows = clean_log(5, groups=20)
    for row in rows:
        del row["step_labels"]
        row["step_scores"][-1] = 0.9 * row["outcome"] + row["step_scores"][-1] / 10
    assert check_shifted(given(rows)).findings == ()
    flat = [x for row in rows for x in row["step_scores"]]
    for at, row in enumerate(rows):
        row["step_scores"] = [flat[5 * at + j - 1] for j in range(5)]
    assert "the outcome of the row before" in found(check_shifted, rows).sentence


@pytest.mark.parametrize(
    ("scores", "severity", "words"),
    [
        ([0.5] * 5, "warn", "are 0.5"),
        ([0.5, 0.501, 0.5, 0.502, 0.5], "warn", "almost constant"),
        ([0.0, 0.0, 1.0, 0.5, 0.5], "note", "3 different values"),
    ],
)
def test_signals_that_hold_little(scores: list[float], severity: str, words: str) -> None:
    rows = [row | {"step_scores": scores} for row in clean_log()]
    finding = found(check_values, rows)
    assert finding.severity == severity
    assert words in finding.sentence


def test_a_saturated_signal() -> None:
    rng = np.random.default_rng(0)
    rows = [row | {"step_scores": [1.0, 1.0, 1.0, 1.0, 1.0]} for row in clean_log()]
    for row in rows[::4]:
        row["step_scores"] = [*rng.uniform(0, 0.9, 1).tolist(), 1.0, 1.0, 1.0, 1.0]
    finding = found(check_values, rows)
    assert "95% of the scores of 'process' stand at 1" in finding.sentence  # 18 of 360 do not


def test_groups_without_variance() -> None:
    rows = clean_log()
    for row in rows:
        if row["group"] < 9:
            row["outcome"] = 1.0
    finding = found(check_variance, rows)
    assert "In 9 of 12 groups all values of 'outcome' are equal" in finding.sentence
    assert finding.share == 0.75


def test_stored_advantages() -> None:
    rows = clean_log()
    for row in rows[:30]:
        row["advantages"] = [-x for x in row["advantages"]]
    finding = found(check_stored, rows)
    assert "gives those of 58% of 72 responses" in finding.sentence  # 42 of 72
    for row in rows:
        row["loss_mask"] = [1, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    masked = found(check_masked, rows)
    assert (masked.evidence[0].count, masked.share) == (144, 1.0)


def test_few_groups_are_said() -> None:
    for groups, said in ((7, ["group"]), (8, [])):
        rows = [{"group": at % groups, "length": 1} for at in range(2 * groups)]
        given = AuditInput.of(LoggedBatch.of(rows), {})
        assert [item.field for item in audit_checks()["groups"](given).unchecked] == said
