"""The page of a run, and that of a difference."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.audit.made_runs import lab_run, step_rows, write_lines

import stepcredit as sc
from stepcredit.audit.audit_page import audit_page
from stepcredit.audit.audit_report import audit
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.curve_pictures import STEPS_DRAWN, STEPS_IN_TABLE, curve_pictures
from stepcredit.audit.diff_page import diff_page
from stepcredit.audit.diff_report import DiffReport
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.logged_step import StepName
from stepcredit.audit.run_curves import Curve
from stepcredit.audit.run_log import run_log
from stepcredit.audit.run_report import RunFollower, RunReport, UnreadStep

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

EVIL = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>\u202e\x1b[31m"
METHODS = {"pass": sc.PASS(), "grpo": sc.GRPO()}


def evil_check(given: AuditInput) -> CheckResult:
    """A figure with an interval, and a finding, whose texts try to run."""
    mean = float(given.batch.rollouts.outcome.mean())
    figure = AuditFigure(EVIL, mean, 8, EVIL, mean - 0.1, mean + 0.1, EVIL, EVIL, "lower")
    return CheckResult((figure,), (Finding(EVIL, "warn", EVIL, (figure,), EVIL, topic=EVIL),))


def report_of(folder: Path, **checks: Any) -> RunReport:
    log = run_log(folder)
    assert log is not None
    follower = RunFollower(log, METHODS, checks)
    for step in follower.due():
        follower.follow(step)
    return follower.report()


def curve(values: list[float], name: str = "pay", **fields: Any) -> Curve:
    points = {
        StepName(at): AuditFigure(name, value, 8, "steps", value - 0.1, value + 0.1, worse="higher")
        for at, value in enumerate(values)
    }
    made = Curve("payment", name, "pass", "", "", "higher", points)
    return replace(made, **fields)


def test_texts_of_a_run_never_become_markup(tmp_path: Path) -> None:
    rows = [{**row, "method": EVIL} for step in (1, 2) for row in step_rows(step)]
    report = report_of(write_lines(tmp_path / "rollouts.jsonl", rows).parent, **{EVIL: evil_check})
    unread = (UnreadStep(StepName(3, policy=EVIL), EVIL),)
    page = audit_page(replace(report, source=EVIL, unread=unread, notes=(EVIL,)), is_growing=True)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert not {"\u202e", "\x1b"} & set(page)


def test_the_page_of_a_run_has_its_steps_and_the_last_step_whole(tmp_path: Path) -> None:
    report = report_of(lab_run(tmp_path, (1, 20, 40)), check=evil_check)
    page = audit_page(replace(report, unread=(UnreadStep(StepName(60), "it is torn"),)))
    assert 'id="run"' in page
    assert "3 steps of" in page
    assert "<b>60</b>: it is torn" in page
    assert "The last step: 40" in page
    assert "rollouts.jsonl, lines 33 to 48" in page
    assert "All 16 responses are shown" in page
    assert 'id="reload"' not in page
    assert 'id="reload"' in audit_page(report, is_growing=True)
    assert 'id="run"' not in audit_page(report.last)


def test_a_long_run_has_a_strip_per_policy_in_place_of_columns(tmp_path: Path) -> None:
    def odd_steps(given: AuditInput) -> CheckResult:
        odd = int(given.batch.rows[0].fields["update"]) % 2
        policy = given.batch.rows[0].fields["method"]
        found = Finding("odd", "warn", "It is odd.", (), "-") if odd and policy == "two" else None
        return CheckResult((), () if found is None else (found,))

    report = report_of(lab_run(tmp_path, range(1, 21), ("one", "two")), odd=odd_steps)
    page = audit_page(report)
    empty, marked = re.findall(r'<svg class="strip".*?</svg>', page)
    assert 'viewBox="0 0 20 1"' in empty
    assert "<rect" not in empty
    places = [*map(int, re.findall(r'x="(\d+)" y="0" width="1"', marked))]
    assert places == list(range(0, 20, 2))
    assert '<td class="when">two 10 of 20 steps from 1 to 19' in page
    assert 'class="strip"' not in audit_page(report_of(lab_run(tmp_path, (1, 2)), odd=odd_steps))


def test_marks_of_a_curve_say_their_step_and_interval() -> None:
    [picture] = curve_pictures([curve([0.25, 0.5]), curve([0.25, 0.75], method="pure")])
    assert picture.svg.count("<title>step 1, pass: 0.5 (0.4 to 0.6), n = 8 steps</title>") == 1
    assert picture.svg.count('class="mark"') == 4
    assert picture.headings == ("whose", "worst", "step 0", "step 1")
    assert picture.rows[1] == (
        *("pure", "0.75 (0.65 to 0.85), step 1"),
        *("0.25 (0.15 to 0.35)", "0.75 (0.65 to 0.85)"),
    )


def test_a_long_run_is_thinned_and_keeps_its_worst_step() -> None:
    values = [0.0] * 500
    values[123] = 9.0
    [picture] = curve_pictures([curve(values)])
    assert picture.svg.count('class="mark"') == STEPS_DRAWN
    assert len(picture.headings) == 2 + STEPS_IN_TABLE
    assert picture.headings[2] == "step 0"
    assert picture.headings[-1] == "step 499"
    assert picture.rows[0][1] == "9 (8.9 to 9.1), step 123"


def test_policies_have_panels_and_constants_no_picture() -> None:
    both = [curve([0.1, 0.2], policy="pass"), curve([0.3, 0.2], policy="grpo")]
    [picture] = curve_pictures(both)
    assert "trained with pass" in picture.svg
    assert "trained with grpo" in picture.svg
    assert picture.headings[1] == "trained with"
    still = {StepName(at): AuditFigure("x", 0.0, 8, "steps", worse="higher") for at in range(3)}
    assert curve_pictures([curve([], points=still)]) == []
    assert curve_pictures([curve([0.5])]) == []
    assert curve_pictures([curve([0.1, 0.2], worse="")]) == []


@pytest.mark.parametrize("again", [True, False], ids=["same responses", "others"])
def test_texts_of_a_difference_never_become_markup(again: bool) -> None:
    first = [{**row, "prompt": EVIL + row["prompt"]} for row in step_rows(1)]
    for row in first:
        row["signals"] = {EVIL: {"scores": row["step_scores"], "ends": row["step_ends"]}}
        row["tokens"] = [EVIL + row["tokens"][0], *row["tokens"][1:]]
        row["text"] = EVIL + row["text"]
    other = first if again else step_rows(2)
    second = [
        {
            **{**row, "group": EVIL + row["group"], "outcome": 1.0 - row["outcome"]},
            "signals": {EVIL: {"scores": [0.5] * len(row["step_ends"]), "ends": row["step_ends"]}},
        }
        for row in other
    ]
    reports = [
        audit(LoggedBatch.of(rows, EVIL), METHODS, checks={EVIL: evil_check})
        for rows in (first, second)
    ]
    page = diff_page(DiffReport(*reports))
    assert page.count("<script") == page.count("</script>") == 1
    assert "<img" not in page
    assert not {"\u202e", "\x1b"} & set(page)
    assert bool(re.search(r"<h4>Lines \d+ and \d+, group ⟨|<h4>Lines \d+ and \d+, ", page)) is again
    assert ("single ones cannot be compared" in page) is not again
