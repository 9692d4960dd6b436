"""Hack detectors: each pattern is planted at a known size and found; clean files are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.audit.lab_rows import lab_rows

import stepcredit as sc
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.checks.hack_detectors import check_hack_detectors, hack_patterns
from stepcredit.audit.finding import CheckResult
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.metrics.response_patterns import truncated_responses, unsolved_thinking

GROUPS, ANSWERS = 20, 6
STEPS = ["3+4=7 ", "7*2=4 ", "4-1=3 "]


def clean(seed: int = 0) -> list[dict[str, Any]]:
    """Three steps a response; right answers score 0.8, wrong ones 0.4, with noise."""
    generator, rows = np.random.default_rng(seed), []
    for group in range(GROUPS):
        for answer in range(ANSWERS):
            right = answer % 2 == 0
            scores = (0.8 if right else 0.4) + 0.1 * generator.standard_normal(3)
            rows.append(
                {
                    "group": group,
                    "tokens": list(STEPS),
                    "text": "".join(STEPS),
                    "step_ends": [0, 1, 2],
                    "step_scores": scores.tolist(),
                    "outcome": float(right),
                    "truncated": False,
                }
            )
    return rows


def audited(rows: list[dict[str, Any]], method: sc.Estimator | None = None) -> CheckResult:
    methods = {"own": method or sc.PASS(k=1.0)}
    return check_hack_detectors(AuditInput.of(LoggedBatch.of(rows), methods))


def sentences(result: CheckResult) -> list[str]:
    return [found.sentence for found in result.findings]


def value(result: CheckResult, name: str) -> float | None:
    return next(figure.value for figure in result.figures if figure.name == name)


def plant(rows: list[dict[str, Any]], **fields: Any) -> list[int]:
    """Put fields into the first wrong response of each group; gives the rows' numbers."""
    planted = [group * ANSWERS + 1 for group in range(GROUPS)]
    for row in planted:
        rows[row].update(fields)
    return planted


PLANTS: dict[str, dict[str, Any]] = {
    "responses without content": {
        "text": "... --- ...",
        "tokens": ["... ", "--- ", "..."],
        "step_scores": [0.99] * 3,
        "outcome": 1.0,
    },
    "responses that think and give no answer": {
        "text": "<think>3+4=7 7*2=4 wait",
        "tokens": ["<think>3+4=7 ", "7*2=4 ", "wait"],
        "step_scores": [0.99] * 3,
        "outcome": 1.0,
    },
    "responses of one giant step": {
        "step_ends": [2],
        "step_scores": [0.99],
        "outcome": 1.0,
    },
    "responses that were cut off": {
        "truncated": True,
        "step_scores": [0.99] * 3,
        "outcome": 1.0,
    },
    "wrong responses that score like right ones": {"step_scores": [0.99] * 3},
}


@pytest.mark.parametrize("words", PLANTS)
def test_a_planted_pattern_that_is_paid_is_found_and_sized(words: str) -> None:
    rows = clean()
    planted = plant(rows, **PLANTS[words])
    result = audited(rows, sc.PASS(k=1.0, weights=(1.0, 0.3, 0.0)))
    named = [found for found in result.findings if f" {words} " in found.sentence]
    assert [found.severity for found in named] == ["warn"]
    assert {place.row for place in named[0].places} <= set(planted)
    of = 3 * GROUPS if words.startswith("wrong") else len(rows)
    assert value(result, f"share of {words}") == pytest.approx(GROUPS / of)


def test_the_pay_of_a_pattern_is_that_of_plain_loops() -> None:
    rows = clean()
    planted = plant(rows, truncated=True)
    result = audited(rows)
    advantages = sc.PASS(k=1.0)(LoggedBatch.of(rows).rollouts).ragged()
    expected = np.mean([advantages[row].mean().item() for row in planted])
    found = value(result, "mean advantage of responses that were cut off")
    assert found == pytest.approx(expected, abs=1e-6)
    assert not result.findings  # they are wrong, and not paid


def test_responses_without_any_step_are_found() -> None:
    rows = clean()
    for row in plant(rows, outcome=1.0):
        del rows[row]["step_scores"]
    result = audited(rows)
    assert any("responses without any scored step are paid" in each for each in sentences(result))


def test_few_answers_without_content_that_are_best_paid_get_a_note() -> None:
    rows = clean()
    rows[1] |= {"text": "...", "step_scores": [1.0] * 3, "outcome": 1.0}
    result = audited(rows)
    assert [found.severity for found in result.findings] == ["note"]
    assert [place.row for place in result.findings[0].places] == [1]


def test_credit_for_the_format_alone_is_found() -> None:
    rows = clean()
    for row in rows:
        row["format"], row["outcome"] = 0.0, 0.0
    rows[2]["outcome"] = 1.0
    planted = plant(rows, format=1.0)
    result = audited(rows, sc.PASS(weights=(0.0, 1.0, 1.0)))
    assert len(result.findings) == 1
    assert "paid for their format alone (20 of 119)" in sentences(result)[0]
    assert {place.row for place in result.findings[0].places} <= set(planted)


@pytest.mark.parametrize("kind", ["filler", "repeated"])
def test_a_signal_that_scores_padding_high_is_found_in_steps_and_in_tokens(kind: str) -> None:
    rows = clean()
    for row in rows:
        row["tokens"] = [STEPS[0], STEPS[1], "... " if kind == "filler" else STEPS[0]]
        row["step_scores"][2] = 0.99
    names = [f"The signal process scores {kind} steps above other steps"]
    found = [each for each in sentences(audited(rows)) if each.startswith(names[0])]
    assert len(found) == 1
    for row in rows:
        row["token_scores"] = row.pop("step_scores")
    assert [each for each in sentences(audited(rows)) if each.startswith(names[0])] == found


@pytest.mark.parametrize("seed", range(20))
def test_clean_responses_are_not_accused(seed: int) -> None:
    result = audited(clean(seed))
    assert not result.findings
    assert not result.unchecked


@pytest.mark.parametrize("signal", ["exact", "noisy"])
def test_honest_signals_of_the_embedded_task_are_not_accused(signal: str) -> None:
    assert not audited(lab_rows(signal, prompts=24), sc.PASS()).findings


@pytest.mark.parametrize(
    "row",
    [
        {"group": 1, "length": 1},
        {"group": 1, "length": 1, "outcome": 0.0, "format": 1.0},
        {"group": 1, "tokens": ["."], "step_ends": [0], "step_scores": [0.0], "outcome": 1.0},
        {"group": 1, "tokens": ["."], "token_scores": [0.0], "format_ok": False},
        {"group": 1, "text": "", "length": 1, "truncated": True},
    ],
)
@pytest.mark.parametrize("copies", [1, 2])
def test_degenerate_rows(row: dict[str, Any], copies: int) -> None:
    result = audited([row] * copies, sc.PASS())
    assert not result.findings
    numbers = [x for f in result.figures for x in (f.value, f.low, f.high) if x is not None]
    assert np.isfinite(numbers).all()


def test_what_fields_lack_is_said() -> None:
    result = audited([{"group": 1, "length": 1}])
    assert [gap.field for gap in result.unchecked] == ["text", "step_ends", "truncated", "outcome"]
    assert hack_patterns(AuditInput.of(LoggedBatch.of([{"group": 1, "length": 1}]), {})) == {}


def test_rules_of_single_patterns() -> None:
    assert truncated_responses([{}]) is None
    assert truncated_responses([{"truncated": "yes"}, {"finish_reason": ["length"]}]).tolist() == [
        False,
        False,
    ]
    assert unsolved_thinking([]).tolist() == []
    assert unsolved_thinking([None, "wait, 3"]).tolist() == [False, False]
