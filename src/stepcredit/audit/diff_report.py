"""Two audits side by side: what became better paid, and which findings appeared and vanished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stepcredit.audit.audit_report import AuditReport, finite_values
from stepcredit.audit.batch_pairs import BatchPairs
from stepcredit.audit.finding import SEVERITIES
from stepcredit.audit.logged_step import StepName
from stepcredit.audit.pay_changes import PayChange, pay_changes
from stepcredit.audit.row_changes import RowChange, row_changes
from stepcredit.audit.run_curves import Curve, StepAudit, curves_of, finding_key

DIFF_FORMAT = "stepcredit-audit-diff"
DIFF_VERSION = 1
"""It grows when a field of the JSON is renamed, removed, or gets another meaning."""
DIFF_SCHEMA = Path(__file__).with_name("audit_diff.schema.json")
"""The JSON schema of `DiffReport.as_json`."""
FIRST, SECOND = StepName(1), StepName(2)


@dataclass(frozen=True)
class FindingChange:
    """A finding that one of two files has, or both.

    Args:
        check: the check that found it.
        title: what it is about.
        first, second: its severity in each file; "" where it is not found.
        sentence: the second file's sentence, or else the first's.
    """

    check: str
    title: str
    first: str
    second: str
    sentence: str


@dataclass(frozen=True, eq=False)
class DiffReport:
    """What differs between two audited files, or two steps of a run.

    Args:
        first, second: their reports, by the same methods and checks.
    """

    first: AuditReport
    second: AuditReport

    @cached_property
    def pairs(self) -> BatchPairs:
        """The responses or prompts that both have."""
        return BatchPairs.of(self.first.given.batch, self.second.given.batch)

    @cached_property
    def changes(self) -> list[PayChange]:
        """How the pay of each kind of step and response changes, by method and by stream."""
        return pay_changes(self.first.given, self.second.given, self.pairs)

    @cached_property
    def curves(self) -> list[Curve]:
        """The figures that have a worse direction, in both files."""
        audits = [
            StepAudit(
                name,
                report.given.batch.source,
                report.counts,
                {check: result.figures for check, result in report.results.items()},
                (),
            )
            for name, report in ((FIRST, self.first), (SECOND, self.second))
        ]
        return [curve for curve in curves_of(audits) if curve.worse and len(curve.known) == 2]

    @cached_property
    def findings(self) -> list[FindingChange]:
        """Every finding of either file: first those that appeared, then those that vanished."""
        sides = [_by_key(report) for report in (self.first, self.second)]
        found = []
        for key in dict.fromkeys([*sides[1], *sides[0]]):
            first, second = (side.get(key) for side in sides)
            sentence = (second or first or {})["sentence"]
            before, now = (each["severity"] if each else "" for each in (first, second))
            found.append(FindingChange(*key, before, now, sentence))
        return sorted(found, key=lambda each: (bool(each.first), bool(each.second)))

    @property
    def appeared(self) -> list[FindingChange]:
        """Findings of the second file alone."""
        return [each for each in self.findings if not each.first]

    @property
    def vanished(self) -> list[FindingChange]:
        """Findings of the first file alone."""
        return [each for each in self.findings if not each.second]

    @cached_property
    def rows(self) -> list[RowChange]:
        """By method, the responses whose mean advantage changed most; none where they differ."""
        given = self.first.given, self.second.given
        return [row for name in self._methods for row in row_changes(*given, self.pairs, name)]

    @property
    def _methods(self) -> list[str]:
        return [name for name in self.first.given.methods if name in self.second.given.methods]

    def is_at_least(self, severity: str) -> bool:
        """Whether a finding that appeared is as bad as `severity`, or worse."""
        bad = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return any(each.second in bad for each in self.appeared)

    def as_json(self) -> dict[str, Any]:
        """The difference as plain values, by the schema in `DIFF_SCHEMA`."""
        from stepcredit import __version__

        found = {
            "format": DIFF_FORMAT,
            "version": DIFF_VERSION,
            "stepcredit": __version__,
            "first": _side_json(self.first),
            "second": _side_json(self.second),
            "methods": {name: repr(self.second.given.methods[name]) for name in self._methods},
            "paired_by": self.pairs.by,
            "pairs": self.pairs.shared,
            "changes": [asdict(change) for change in self.changes],
            "findings": [asdict(each) for each in self.findings],
            "figures": [_figure_json(curve) for curve in self.curves],
            "rows": [asdict(row) for row in self.rows],
        }
        return dict(finite_values(found))


def _by_key(report: AuditReport) -> dict[tuple[str, str], Mapping[str, Any]]:
    """A report's findings; of two of one topic, the worst."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in report.findings_json():
        found.setdefault(finding_key(each), each)
    return found


def _side_json(report: AuditReport) -> dict[str, Any]:
    given = report.given
    source, above = given.batch.source, given.right_above
    return {"source": source, "counts": report.counts, "right_above": above}


def _figure_json(curve: Curve) -> dict[str, Any]:
    sides = {
        name: {key: getattr(curve.points[step], key) for key in ("value", "low", "high", "count")}
        for name, step in (("first", FIRST), ("second", SECOND))
    }
    return {
        "check": curve.check,
        "name": curve.name,
        "method": curve.method,
        "stream": curve.stream,
        "worse": curve.worse,
        "trend": curve.trend,
        **sides,
    }
