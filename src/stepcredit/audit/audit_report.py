"""`audit` runs every check on a batch; `AuditReport` is what they found, in the reader's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from stepcredit.audit.check_registry import AuditInput, Check, audit_checks
from stepcredit.audit.finding import (
    SEVERITIES,
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Unchecked,
)
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.torch_threads import threads

REPORT_FORMAT = "stepcredit-audit"
REPORT_VERSION = 1
"""It grows when a field of the JSON is renamed, removed, or gets another meaning."""
REPORT_SCHEMA = Path(__file__).with_name("audit_report.schema.json")
"""The JSON schema of `AuditReport.as_json`."""
VERDICT_FINDINGS = 5
"""Findings of the verdict: as many as a reader keeps in mind."""
METHOD_CHECK = "methods"
"""Name under which a method that can't run on the batch is listed among what is unchecked."""
CheckProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What all checks found in a batch.

    Args:
        given: the batch and the methods.
        results: each check's result, by its name, in the order in which they ran.
    """

    given: AuditInput
    results: Mapping[str, CheckResult]

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All findings: faults, then warnings, then notes; in each, the largest share first."""
        found = (finding for result in self.results.values() for finding in result.findings)
        return tuple(sorted(found, key=_rank))

    @property
    def verdict(self) -> tuple[Finding, ...]:
        """The first findings, at most `VERDICT_FINDINGS`."""
        return self.findings[:VERDICT_FINDINGS]

    @cached_property
    def unchecked(self) -> tuple[Unchecked, ...]:
        """What could not be looked at, and the methods that can't run on the batch."""
        found = [item for result in self.results.values() for item in result.unchecked]
        return (*found, *(_left_out(*item) for item in self.given.left_out.items()))

    @property
    def counts(self) -> dict[str, int]:
        """Responses, groups, and trained tokens of the batch."""
        rollouts = self.given.batch.rollouts
        tokens = int(rollouts.lengths.sum())
        return {
            "responses": rollouts.num_rollouts,
            "groups": rollouts.num_groups,
            "tokens": tokens,
        }

    @property
    def method_texts(self) -> dict[str, str]:
        """Each method by name, with those of its settings that are not the defaults.

        Example:
            >>> import stepcredit as sc
            >>> batch = LoggedBatch.of([{"group": "a", "length": 2, "outcome": 1.0}])
            >>> methods = {"grpo": sc.GRPO(clip=5.0), "dr-grpo": sc.DrGRPO()}
            >>> list(audit(batch, methods, checks={}).method_texts.values())
            ['grpo (clip=5.0)', 'dr-grpo']
        """
        found = {}
        for name, method in self.given.methods.items():
            settings = repr(method).partition("(")[2].removesuffix(")")
            found[name] = f"{name} ({settings})" if settings else name
        return found

    @property
    def right_text(self) -> str:
        """What counts as right, where that is not an outcome above 0; else empty."""
        above = self.given.right_above
        return f"A response is right where its outcome is above {above:g}." if above else ""

    def is_at_least(self, severity: str) -> bool:
        """Whether a finding is as bad as `severity`, one of `SEVERITIES`, or worse."""
        bad = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return any(finding.severity in bad for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, by the schema in `REPORT_SCHEMA`; numbers are finite or None.

        Example:
            >>> rows = [{"group": 1, "length": 2, "outcome": 1.0}]
            >>> audit(LoggedBatch.of(rows), {}, checks={}).as_json()["counts"]
            {'responses': 1, 'groups': 1, 'tokens': 2}
        """
        from stepcredit import __version__

        batch = self.given.batch
        return {
            "format": REPORT_FORMAT,
            "version": REPORT_VERSION,
            "stepcredit": __version__,
            "source": batch.source,
            "counts": self.counts,
            "right_above": self.given.right_above,
            "methods": {name: repr(method) for name, method in self.given.methods.items()},
            "verdict": list(range(len(self.verdict))),
            "findings": self.findings_json(),
            "unchecked": [asdict(item) for item in self.unchecked],
            "checks": {name: _result_json(result) for name, result in self.results.items()},
        }

    def findings_json(self) -> list[dict[str, Any]]:
        """The findings as plain values, the worst first; each place with its line and its group."""
        return [_finding_json(finding, self.given.batch) for finding in self.findings]


def audit(
    batch: LoggedBatch,
    methods: Mapping[str, Estimator],
    *,
    checks: Mapping[str, Check] | None = None,
    progress: CheckProgress | None = None,
    right_above: float = 0.0,
) -> AuditReport:
    """Run all checks of the audit on logged responses, with torch on one thread.

    Args:
        batch: the responses.
        methods: the methods whose credit is looked at, by name; one that can't run on the batch is
            left out, and the report says why.
        checks: the checks by name; None: all that are registered.
        progress: called with a check's name, how many checks have run, and how many there are.
        right_above: a response is right where its outcome is above this.

    Returns:
        The report. A check that has nothing to look at says so in it.

    Raises:
        RowError: a row's labels or values of steps do not fit its steps.

    Example:
        >>> import stepcredit as sc
        >>> rows = [{"group": 1, "length": 2, "outcome": x} for x in (1.0, 0.0)]
        >>> report = audit(LoggedBatch.of(rows), {"grpo": sc.GRPO()}, checks={})
        >>> report.findings, list(report.given.methods)
        ((), ['grpo'])
    """
    chosen, results = audit_checks() if checks is None else checks, {}
    with threads(1):
        given = AuditInput.of(batch, methods, right_above)
        for done, (name, check) in enumerate(chosen.items()):
            if progress is not None:
                progress(name, done, len(chosen))
            results[name] = check(given)
    return AuditReport(given, results)


def _rank(finding: Finding) -> tuple[int, bool, float]:
    share = finding.share
    return SEVERITIES.index(finding.severity), share is None, -(share or 0.0)


def _left_out(name: str, reason: str) -> Unchecked:
    return Unchecked(METHOD_CHECK, name, f"The method {name} can't run on these rows: {reason}.")


def place_json(place: EvidencePlace, batch: LoggedBatch) -> dict[str, Any]:
    """A place as plain values: its row, its line in the file, its group, and its step.

    Example:
        >>> batch = LoggedBatch.of([{"group": "a", "length": 2}])
        >>> place_json(EvidencePlace(0), batch)
        {'row': 0, 'line': 1, 'group': 'a', 'step': None}
    """
    row = batch.rows[place.row]
    return {"row": place.row, "line": row.line, "group": str(row.group), "step": place.step}


def _finding_json(finding: Finding, batch: LoggedBatch) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "topic": finding.topic,
        "sentence": finding.sentence,
        "share": finite_values(finding.share),
        "evidence": _figures_json(finding.evidence),
        "advice": finding.advice,
        "places": [place_json(place, batch) for place in finding.places],
    }


def _result_json(result: CheckResult) -> dict[str, Any]:
    return {"figures": _figures_json(result.figures), "series": finite_values(result.series)}


def _figures_json(figures: Sequence[AuditFigure]) -> list[dict[str, Any]]:
    return [finite_values(asdict(figure)) for figure in figures]


def finite_values(value: Any) -> Any:
    """Plain values in which each number that is not finite is None.

    Example:
        >>> finite_values({"a": [1.5, float("nan")]})
        {'a': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): finite_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_values(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
