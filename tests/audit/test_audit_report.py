"""`audit`: order of findings, the verdict, what is unchecked, and the JSON with its schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.audit.made_rollouts import small_rows

import stepcredit as sc
from stepcredit.audit.audit_report import (
    REPORT_FORMAT,
    REPORT_SCHEMA,
    REPORT_VERSION,
    AuditReport,
    audit,
)
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Unchecked,
)
from stepcredit.audit.logged_batch import LoggedBatch

ROWS = small_rows(4)


def finding(severity: Any, share: float | None, check: str = "dummy") -> Finding:
    figure = AuditFigure("share of responses", share, 8, "responses", 0.1, 0.9)
    places = (EvidencePlace(0, 1), EvidencePlace(5))
    return Finding(check, severity, f"{severity} {share}.", (figure,), "Set k.", places, share)


def report_of(*results: CheckResult, rows: list[dict[str, Any]] = ROWS) -> AuditReport:
    checks = {f"check {i}": lambda _, r=result: r for i, result in enumerate(results)}
    methods = {"pass": sc.PASS(), "grpo": sc.GRPO()}
    return audit(LoggedBatch.of(rows), methods, checks=checks)


def test_findings_come_by_severity_and_then_by_share() -> None:
    mixed = [("note", 0.9), ("warn", 0.2), ("fault", None), ("warn", 0.7), ("fault", 0.01)]
    report = report_of(CheckResult(findings=tuple(finding(*item) for item in mixed)))
    found = [(item.severity, item.share) for item in report.findings]
    assert found == [
        ("fault", 0.01),
        ("fault", None),
        ("warn", 0.7),
        ("warn", 0.2),
        ("note", 0.9),
    ]


def test_the_verdict_has_at_most_five_findings() -> None:
    many = CheckResult(findings=tuple(finding("warn", i / 10) for i in range(8)))
    report = report_of(many)
    assert [item.share for item in report.verdict] == [0.7, 0.6, 0.5, 0.4, 0.3]
    assert report.as_json()["verdict"] == [0, 1, 2, 3, 4]
    assert len(report.as_json()["findings"]) == 8
    assert report_of(CheckResult()).verdict == ()


def test_severity_of_a_report() -> None:
    report = report_of(CheckResult(findings=(finding("warn", 0.5),)))
    assert [report.is_at_least(x) for x in ("fault", "warn", "note")] == [False, True, True]
    assert not report_of(CheckResult()).is_at_least("note")


def test_what_could_not_be_checked_is_listed_methods_included() -> None:
    rows = [{"group": 0, "length": 2, "outcome": 1.0}]
    lacks = CheckResult(unchecked=(Unchecked("dummy", "step_labels", "No row has it."),))
    report = audit(
        LoggedBatch.of(rows), {"opd": sc.OPD(), "grpo": sc.GRPO()}, checks={"d": lambda _: lacks}
    )
    assert list(report.given.methods) == ["grpo"]
    assert [(item.check, item.field) for item in report.unchecked] == [
        ("dummy", "step_labels"),
        ("methods", "opd"),
    ]
    assert "logprobs" in report.unchecked[1].reason


def test_every_registered_check_runs_and_progress_is_told() -> None:
    seen: list[tuple[str, int, int]] = []
    batch = LoggedBatch.of(ROWS)
    report = audit(batch, {"pass": sc.PASS()}, progress=lambda *step: seen.append(step))
    assert list(report.results) == [name for name, _, _ in seen]
    assert [done for _, done, _ in seen] == list(range(len(seen)))
    check_schema(report.as_json())


def test_a_check_gets_the_methods_that_can_run() -> None:
    def names(given: AuditInput) -> CheckResult:
        figures = [
            AuditFigure("tokens", float(a.packed().numel()), 8, "tokens", method=name)
            for name, a in given.advantages.items()
        ]
        return CheckResult(tuple(figures))

    report = audit(LoggedBatch.of(ROWS), {"pass": sc.PASS()}, checks={"names": names})
    assert report.as_json()["checks"]["names"]["figures"][0]["value"] == 32.0


def test_json_keeps_to_its_schema() -> None:
    empty = AuditFigure("mean of nothing", None, 0, "steps")
    odd = AuditFigure("not a number", float("nan"), 0, "steps", float("-inf"), float("inf"))
    series = {"curve": {"x": [1, 2], "y": [0.5, float("nan")]}}
    result = CheckResult((empty, odd), (finding("fault", 0.5),), (), series)
    found = report_of(result).as_json()
    check_schema(found)
    assert (found["format"], found["version"]) == (REPORT_FORMAT, REPORT_VERSION)
    assert found["counts"] == {"responses": 8, "groups": 2, "tokens": 32}
    assert found["findings"][0]["places"] == [
        {"row": 0, "line": 1, "group": "a", "step": 1},
        {"row": 5, "line": 6, "group": "b", "step": None},
    ]
    check = found["checks"]["check 0"]
    assert check["figures"][1] | {} == {
        **{"name": "not a number", "value": None, "count": 0, "of": "steps"},
        **{"low": None, "high": None, "method": "", "stream": "", "worse": ""},
    }
    assert check["series"]["curve"]["y"] == [0.5, None]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("broken", ["counts", "findings", "format"])
def test_the_schema_refuses_a_report_without_a_field(broken: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found = report_of(CheckResult()).as_json()
    del found[broken]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, json.loads(REPORT_SCHEMA.read_text()))


def check_schema(found: dict[str, Any]) -> None:
    """By jsonschema where it is installed; else the names of the fields, at each level."""
    schema = json.loads(REPORT_SCHEMA.read_text())
    assert set(found) == set(schema["required"])
    for name, key in (("finding", "findings"), ("unchecked", "unchecked")):
        for item in found[key]:
            assert set(item) == set(schema["$defs"][name]["required"])
    try:
        import jsonschema
    except ImportError:
        return
    jsonschema.validate(found, schema)
