"""Two audits side by side: pairs, changes of pay against plain arithmetic, findings, responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.audit.made_runs import Row, step_rows

import stepcredit as sc
from stepcredit.audit.audit_report import audit
from stepcredit.audit.batch_pairs import BatchPairs
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.diff_report import DIFF_SCHEMA, DiffReport
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.pay_changes import PayChange
from stepcredit.evals.intervals import difference_interval, mean_interval

METHODS = {"pass": sc.PASS(), "rloo": sc.RLOO()}


def low_mean(given: AuditInput) -> CheckResult:
    """A warning where the mean outcome is below a half, a note above it."""
    mean = float(given.batch.rollouts.outcome.mean())
    figure = AuditFigure(
        "mean outcome", mean, 8, "responses", mean - 0.1, mean + 0.1, worse="lower"
    )
    severity: Any = "warn" if mean < 0.5 else "note"
    finding = Finding(
        "outcome", severity, f"Mean {mean}.", (figure,), "-", topic=f"{severity} mean"
    )
    return CheckResult((figure,), (finding,))


def diff_of(first: list[Row], second: list[Row], **methods: Any) -> DiffReport:
    checks = {"outcome": low_mean}
    chosen = methods or METHODS
    return DiffReport(
        *(audit(LoggedBatch.of(rows), chosen, checks=checks) for rows in (first, second))
    )


def changed(report: DiffReport, what: str, whose: str) -> PayChange:
    [found] = [c for c in report.changes if c.what == what and whose in (c.method, c.stream)]
    return found


def outcome_rows(prompts: str, values: list[float], text: str = "x") -> list[Row]:
    """Two responses per prompt: the first with the value as outcome, the second with 0."""
    return [
        {
            "group": f"g{at}",
            "prompt": prompt,
            "text": f"{text}{answer}",
            "length": 2,
            "outcome": value,
        }
        for at, (prompt, own) in enumerate(zip(prompts, values, strict=True))
        for answer, value in enumerate((own, 0.0))
    ]


def test_the_same_responses_are_pairs_wherever_they_stand() -> None:
    rows = step_rows(1)
    pairs = BatchPairs.of(LoggedBatch.of(rows), LoggedBatch.of(rows[8:] + rows[:8]))
    assert pairs.by == "responses"
    assert pairs.shared == 8
    assert pairs.rows[0].tolist() == [*range(8, 16), *range(8)]
    assert pairs.rows[1].tolist() == list(range(16))


def test_equal_responses_to_one_prompt_are_each_paired_once() -> None:
    rows = outcome_rows("ab", [1.0, 1.0])
    for row in rows:
        row["text"] = "same"
    pairs = BatchPairs.of(LoggedBatch.of(rows), LoggedBatch.of(rows))
    assert sorted(pairs.rows[0].tolist()) == pairs.rows[1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["id", "uid"])
def test_ids_pair_responses_only_where_their_texts_are_the_same(name: str) -> None:
    first = [{**row, name: f"r{at}"} for at, row in enumerate(step_rows(1))]
    turned = first[::-1]
    assert BatchPairs.of(LoggedBatch.of(first), LoggedBatch.of(turned)).rows[0].tolist() == [
        *range(15, -1, -1)
    ]
    others = [{**row, "text": row["text"] + "!"} for row in first]
    assert BatchPairs.of(LoggedBatch.of(first), LoggedBatch.of(others)).by == "prompts"


def test_rows_without_texts_are_paired_by_their_group_and_length() -> None:
    rows = [{"group": at // 2, "length": 2 + at % 2, "outcome": float(at % 2)} for at in range(6)]
    again = [{**row, "outcome": 0.0} for row in rows]
    assert BatchPairs.of(LoggedBatch.of(rows), LoggedBatch.of(again)).by == "responses"
    others = [{**row, "length": 9} for row in rows]
    assert BatchPairs.of(LoggedBatch.of(rows), LoggedBatch.of(others)).by == ""


def test_prompts_are_pairs_where_half_of_them_are_shared() -> None:
    first = outcome_rows("abcd", [1.0] * 4)
    pairs = BatchPairs.of(
        LoggedBatch.of(first), LoggedBatch.of(outcome_rows("cdxy", [1.0] * 4, "y"))
    )
    assert (pairs.by, pairs.shared) == ("prompts", 2)
    assert pairs.kept[0].tolist() == [False] * 4 + [True] * 4
    assert pairs.kept[1].tolist() == [True] * 4 + [False] * 4
    alone = BatchPairs.of(
        LoggedBatch.of(first), LoggedBatch.of(outcome_rows("dxyz", [1.0] * 4, "y"))
    )
    assert alone.by == ""


def test_a_paired_change_is_the_mean_of_the_differences_of_prompts() -> None:
    first, second = [1.0, 2.0, 4.0, 8.0], [2.0, 4.0, 5.0, 7.0]
    report = diff_of(outcome_rows("abcd", first), outcome_rows("abcd", second, "y"))
    found = changed(report, "advantage of right responses", "rloo")
    expected = mean_interval([b - a for a, b in zip(first, second, strict=True)])
    assert found.units == (4,)
    assert (found.first, found.second) == (3.75, 4.5)
    assert (found.change, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert found.direction == ""


def test_a_change_without_pairs_is_the_difference_of_the_means() -> None:
    stats = pytest.importorskip("scipy.stats")
    first = [1.0, 2.0, 4.0, 8.0, 2.0, 3.0, 1.0, 5.0, 2.0]
    second = [12.0, 14.0, 15.0, 11.0, 15.0, 13.0, 12.0, 19.0]
    report = diff_of(outcome_rows("abcdefghi", first), outcome_rows("stuvwxyz", second))
    found = changed(report, "advantage of right responses", "rloo")
    expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval()
    assert found.units == (9, 8)
    assert (found.change, found.low, found.high) == pytest.approx(
        (np.mean(second) - np.mean(first), expected.low, expected.high)
    )
    assert found.direction == "up"
    assert changed(report, "advantage of wrong responses", "rloo").direction == "down"
    few = diff_of(outcome_rows("abcdefghi", first), outcome_rows("tuvwxyz", second[1:]))
    assert {change.direction for change in few.changes} == {""}


def test_kinds_of_steps_and_signals_are_compared() -> None:
    first = step_rows(1)
    second = [
        {**row, "step_scores": [row["step_scores"][0] + 2.0, *row["step_scores"][1:]]}
        for row in first
    ]
    report = diff_of(first, second)
    score = changed(report, "score of first steps", "process")
    assert (score.change, score.units, score.direction) == (pytest.approx(2.0), (8,), "up")
    assert changed(report, "score of last steps", "process").change == pytest.approx(0.0)
    assert changed(report, "advantage of first steps", "pass").change > 0
    kinds = {"right", "wrong", "filler", "first", "last"}
    assert {f"advantage of {kind} steps" for kind in kinds} <= {c.what for c in report.changes}


def test_the_same_file_twice_has_no_change() -> None:
    rows = step_rows(1)
    report = diff_of(rows, rows)
    assert {c.change for c in report.changes} == {0.0}
    assert {c.direction for c in report.changes} == {""}
    assert (report.appeared, report.vanished, report.rows) == ([], [], [])


def test_findings_that_appeared_and_vanished() -> None:
    high, low = (outcome_rows("abcdefgh", [x] * 8) for x in (9.0, 0.1))
    report = diff_of(high, low)
    assert [(each.title, each.second) for each in report.appeared] == [("warn mean", "warn")]
    assert [(each.title, each.first) for each in report.vanished] == [("note mean", "note")]
    assert report.is_at_least("warn")
    assert not diff_of(low, high).is_at_least("warn")
    [curve] = report.curves
    assert curve.trend == "worse"


def test_responses_whose_credit_changed_most_come_first() -> None:
    first = step_rows(1)
    second = [dict(row) for row in first]
    second[6] = {**first[6], "outcome": 1.0 - first[6]["outcome"]}
    report = diff_of(first, second[::-1], rloo=sc.RLOO())
    top, other = sorted(report.rows, key=lambda row: row.lines)
    assert (top.lines, other.lines) == ((7, 10), (8, 9))
    assert abs(top.second - top.first) == pytest.approx(1.0)
    assert "".join(text for text, _, _ in top.steps) == first[6]["text"]
    assert [a for _, a, _ in top.steps] == pytest.approx([top.first] * len(top.steps))
    assert {row.group for row in report.rows} == {first[6]["group"]}


@pytest.mark.parametrize("other", [step_rows(1), step_rows(2), outcome_rows("ab", [1.0, 0.0])])
def test_json_keeps_to_its_schema(other: list[Row]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    changed = [
        {**row, "step_scores": [1.0 - x for x in row["step_scores"]]} for row in step_rows(1)
    ]
    found = diff_of(changed, other).as_json()
    text = json.dumps(found, allow_nan=False)
    jsonschema.validate(json.loads(text), json.loads(DIFF_SCHEMA.read_text()))


def test_welchs_interval_of_equal_values_is_a_point() -> None:
    found = difference_interval([1.0, 1.0], [3.0, 3.0, 3.0])
    assert (found.low, found.mean, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    "draw", [lambda rng: rng.normal(0, 1, 8), lambda rng: rng.exponential(1, 8)]
)
def test_equal_files_of_other_prompts_seldom_differ(draw: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    apart = 0
    for _ in range(200):
        found = difference_interval(draw(rng), draw(rng))
        apart += not found.low <= 0 <= found.high
    assert apart <= 20  # 5 % of 200, and 3 standard deviations
