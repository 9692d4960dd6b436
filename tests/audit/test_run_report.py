"""The audit over the steps of a run: the same figures, findings by step, and only new steps."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from tests.audit.made_runs import lab_run, step_rows, verl_rows, write_lines

import stepcredit as sc
from stepcredit.audit.audit_report import REPORT_SCHEMA, audit
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.logged_step import StepName
from stepcredit.audit.run_curves import Curve, StepAudit, curves_of, spread_steps
from stepcredit.audit.run_log import run_log
from stepcredit.audit.run_report import RunFollower, RunReport
from stepcredit.errors import FileError

METHODS = {"pass": sc.PASS(), "grpo": sc.GRPO()}


def mean_outcome(given: AuditInput) -> CheckResult:
    """A check that is quick: the mean outcome, and a warning where it is below a half."""
    outcome = given.batch.rollouts.outcome
    mean = float(outcome.mean())
    figure = AuditFigure("mean outcome", mean, len(outcome), "responses", worse="lower")
    warning = Finding("outcome", "warn", f"The mean is {mean}.", (figure,), "-", topic="low mean")
    return CheckResult((figure,), (warning,) if mean < 0.5 else ())


QUICK = {"outcome": mean_outcome}


def follower_of(path: Path, **checks: Any) -> RunFollower:
    log = run_log(path)
    assert log is not None
    return RunFollower(log, METHODS, checks or QUICK)


def followed(follower: RunFollower) -> RunReport:
    for step in follower.due():
        follower.follow(step)
    return follower.report()


def rows_of_outcomes(step: int, outcomes: Sequence[float]) -> list[dict[str, Any]]:
    return [{"group": step, "step": step, "length": 2, "outcome": x} for x in outcomes]


def test_a_step_has_the_figures_and_findings_of_its_rows_alone(tmp_path: Path) -> None:
    log = run_log(lab_run(tmp_path, (1, 20)))
    assert log is not None
    report = followed(RunFollower(log, METHODS))
    for step, number in zip(report.steps, (1, 20), strict=True):
        alone = audit(LoggedBatch.of(step_rows(number)), METHODS)
        assert step.counts == alone.counts
        assert step.figures == {name: result.figures for name, result in alone.results.items()}
        assert [f["sentence"] for f in step.findings] == [f.sentence for f in alone.findings]
    check_schema(report.as_json())


def test_the_last_step_stays_whole(tmp_path: Path) -> None:
    report = followed(follower_of(lab_run(tmp_path, (1, 20), ("pass", "grpo"))))
    assert report.policies == ["pass", "grpo"]
    assert [str(step.name) for step in report.steps] == ["pass 1", "pass 20", "grpo 1", "grpo 20"]
    assert [row.line for row in report.last.given.batch.rows] == list(range(49, 65))
    assert report.as_json()["counts"] == report.steps[-1].counts


def test_figures_and_findings_over_the_steps(tmp_path: Path) -> None:
    means = {1: [1.0, 1.0], 2: [0.0, 0.0], 3: [0.0, 1.0], 10: [0.0, 0.0]}
    rows = [row for step, outcomes in means.items() for row in rows_of_outcomes(step, outcomes)]
    report = followed(follower_of(write_lines(tmp_path / "rollouts.jsonl", rows).parent))
    [curve] = report.curves
    assert [figure.value for figure in curve.points.values()] == [1.0, 0.0, 0.5, 0.0]
    assert curve.worst == StepName(2)
    [span] = report.spans
    assert (span.title, [step.number for step in span.severities]) == ("low mean", [2, 10])
    assert report.curves_behind(span) == [curve]
    assert report.worst.name == StepName(2)
    assert report.is_at_least("warn")
    assert not report.is_at_least("fault")
    found = report.as_json()["run"]
    assert found["curves"][0]["points"][2] == {
        **{"at": 2, "value": 0.5, "low": None, "high": None, "count": 2}
    }
    assert found["findings"][0]["steps"] == {"1": "warn", "3": "warn"}


def test_a_step_that_cannot_be_read_is_named_and_the_others_stay(tmp_path: Path) -> None:
    write_lines(tmp_path / "1.jsonl", verl_rows(1))
    write_lines(tmp_path / "2.jsonl", [{"nothing": 1}])
    write_lines(tmp_path / "3.jsonl", verl_rows(3))
    report = followed(follower_of(tmp_path))
    assert [step.name.number for step in report.steps] == [1, 3]
    [unread] = report.unread
    assert unread.name.number == 2
    assert unread.reason.endswith("2.jsonl: none of its responses can be used")
    assert any("2.jsonl:1: input: missing" in note for note in report.notes)
    assert report.as_json()["run"]["unread"][0]["step"] == 2
    check_schema(report.as_json())


def test_a_run_none_of_whose_steps_can_be_read_is_refused(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_lines(tmp_path / f"{step}.jsonl", [])
    with pytest.raises(FileError, match=r"1\.jsonl: holds no response \(and 2 more steps\)"):
        followed(follower_of(tmp_path))


def test_only_new_and_changed_steps_are_audited(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rollouts.jsonl", step_rows(1) + step_rows(2))
    follower = follower_of(tmp_path)
    followed(follower)
    assert follower.due() == []
    write_lines(path, step_rows(1) + step_rows(2)[:8] + step_rows(3))
    due = follower.due()
    assert [step.name.number for step in due] == [2, 3]
    report = followed(follower)
    assert [step.counts["responses"] for step in report.steps] == [16, 8, 16]
    assert len(report.last.given.batch.rows) == 16


def test_a_step_is_waited_for_until_it_rests_and_is_whole(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rollouts.jsonl", step_rows(1) + step_rows(2)[:8])
    follower = follower_of(tmp_path)

    def due() -> list[int]:
        steps = follower.due(waits=True)
        for step in steps:
            follower.follow(step)
        return [step.name.number for step in steps]

    assert due() == [1]
    write_lines(path, step_rows(1) + step_rows(2), '{"group": 7, "upda')
    assert due() == []
    assert due() == []
    [unread] = follower.report().unread
    assert unread.reason.endswith("its last line is half-written: not audited yet")
    write_lines(path, step_rows(1) + step_rows(2))
    assert due() == []
    assert due() == [2]
    assert follower.report().unread == ()


def test_a_step_with_the_texts_of_the_step_before_is_noted(tmp_path: Path) -> None:
    rows = step_rows(1, seed=4) + step_rows(2, seed=4) + step_rows(3, seed=5)
    report = followed(follower_of(write_lines(tmp_path / "rollouts.jsonl", rows).parent))
    [note] = report.notes
    assert note.endswith("lines 17 to 32: the same responses as in the step before")


def test_many_steps_with_the_same_note_have_one_line(tmp_path: Path) -> None:
    rows = [row for step in range(1, 8) for row in step_rows(step, seed=min(step, 3))]
    log = write_lines(tmp_path / "rollouts.jsonl", rows)
    report = followed(follower_of(log.parent))
    assert report.notes == (f"{tmp_path}: the same responses as in the step before: in 4 to 7",)


def curve(*ends: tuple[float, float, float], worse: Any = "higher", groups: int = 8) -> Curve:
    points = {
        StepName(at): AuditFigure("pay", value, 8, "steps", low, high, worse=worse)
        for at, (value, low, high) in enumerate(ends)
    }
    return Curve("payment", "pay", "pass", "", "", worse, points, dict.fromkeys(points, groups))


def test_the_trend_of_a_curve_stands_on_intervals_that_lie_apart() -> None:
    low, high, wide = (0.1, 0.0, 0.2), (0.9, 0.8, 1.0), (0.5, 0.1, 0.9)
    assert curve(low, wide, high).trend == "worse"
    assert curve(high, low).trend == "better"
    assert curve(low, high, worse="lower").trend == "better"
    assert curve(low, wide).trend == curve(low).trend == curve(low, high, worse="").trend == ""
    assert curve(low, high, groups=7).trend == ""
    assert curve(low, (0.9, 0.9, 0.9)).trend == ""


def test_the_worst_step_of_a_curve_is_that_of_its_direction() -> None:
    ends = (0.5, 0.4, 0.6), (0.9, 0.8, 1.0), (0.1, 0.0, 0.2)
    assert curve(*ends).worst == StepName(1)
    assert curve(*ends, worse="lower").worst == StepName(2)
    assert curve(*ends, worse="").worst is None


def test_names_that_hold_numbers_are_one_curve() -> None:
    steps = [
        StepAudit(
            StepName(at),
            "",
            {"groups": 8},
            {"length": (AuditFigure(f"rise by one ({at}.5)", 0.5, 8, "s"),)},
            (),
        )
        for at in (1, 2)
    ]
    [found] = curves_of(steps)
    assert found.name == "rise by one (…)"
    assert len(found.points) == 2


def test_steps_that_are_shown_hold_the_first_and_the_last() -> None:
    steps = [StepName(at) for at in range(1000)]
    shown = spread_steps(steps, 12)
    assert (len(set(shown)), shown[0], shown[-1]) == (12, steps[0], steps[-1])
    assert spread_steps(steps[:3], 12) == steps[:3]


def test_findings_of_the_checks_have_a_topic_that_no_number_changes(tmp_path: Path) -> None:
    rows = [*step_rows(1), *step_rows(2)]
    for row in rows:
        row["step_scores"] = [1.0 for _ in row["step_scores"]]
        row["advantages"] = [0.5 for _ in row["tokens"]]
        row["format_ok"] = False
    findings = audit(LoggedBatch.of([*rows, {**rows[0], "group": "alone"}]), METHODS).findings
    assert len(findings) > 3
    for finding in findings:
        assert finding.topic
        assert not re.search(r"\d", finding.topic)


def check_schema(found: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(
        json.loads(json.dumps(found, allow_nan=False)), json.loads(REPORT_SCHEMA.read_text())
    )


@pytest.mark.timeout(120)
def test_a_real_run_of_the_lab_is_followed(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from rich.console import Console
    from tests.lab.micro import MICRO_WARM

    from stepcredit.lab import comparison
    from stepcredit.lab.lab_settings import LabSettings

    warm = replace(MICRO_WARM, check_from=8, check_every=8)
    settings = LabSettings(
        **{"updates": 3, "prompts": 2, "group_size": 2, "record_every": 2, "compare": None},
        **{"evaluate_every": 3, "checkpoint_every": 3, "max_new_tokens": 12},
        **{"evaluation_problems": 2, "evaluation_samples": 1, "warm": warm, "teacher": warm},
    )
    run = comparison.train(
        settings, tmp_path / "runs", "tiny", tmp_path, Console(file=io.StringIO())
    )
    report = followed(follower_of(run))
    assert [str(step.name) for step in report.steps] == ["1", "2", "3"]
    assert all(step.counts["responses"] == 4 for step in report.steps)
    assert report.unread == ()
