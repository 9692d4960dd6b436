"""The audit of a training run: every step by the same checks, and the last step's whole report."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from stepcredit.audit.audit_report import AuditReport, CheckProgress, audit, finite_values
from stepcredit.audit.check_registry import Check
from stepcredit.audit.finding import SEVERITIES
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.logged_step import LoggedStep, RunLog, StepName
from stepcredit.audit.run_curves import (
    Curve,
    FindingSpan,
    StepAudit,
    curves_of,
    finding_key,
    finding_spans,
    steady_name,
    step_ranges,
)
from stepcredit.audit.run_methods import RunMethods
from stepcredit.credit.estimator import Estimator
from stepcredit.data.rules import counted
from stepcredit.errors import FileError, MissingExtra, SettingError, StepCreditError

MOST_NOTES = 3
"""Steps with the same note that have a line each."""


@dataclass(frozen=True)
class UnreadStep:
    """A step that could not be audited.

    Args:
        name: the step.
        reason: why not, with its place, in one line.
    """

    name: StepName
    reason: str


@dataclass(frozen=True, eq=False)
class RunReport:
    """What the audit found over the steps of a run.

    Args:
        source: the folder or file.
        steps: the audited steps: each policy's in order.
        last: the whole report of the last of them.
        unread: the steps that could not be audited.
        notes: what was accepted but a user should know, one line each.
    """

    source: str
    steps: tuple[StepAudit, ...]
    last: AuditReport
    unread: tuple[UnreadStep, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def curves(self) -> list[Curve]:
        """Every figure over the steps."""
        return curves_of(self.steps)

    def curves_behind(self, span: FindingSpan) -> list[Curve]:
        """The curves with a worse direction that a finding stands on, of the policies that have it.

        Args:
            span: one of `spans`.
        """
        keys = {
            (span.check, steady_name(figure["name"]), figure["method"], figure["stream"])
            for step in self.steps
            for finding in step.findings
            if finding_key(finding) == (span.check, span.title)
            for figure in finding["evidence"]
        }
        policies = {step.policy for step in span.severities}
        held = (curve for curve in self.curves if curve.worst is not None)
        return [curve for curve in held if curve.key in keys and curve.policy in policies]

    @cached_property
    def spans(self) -> list[FindingSpan]:
        """Every finding with the steps that have it."""
        return finding_spans(self.steps)

    @property
    def policies(self) -> list[str]:
        """The trained policies, in the run's order; `[""]` where it trains one."""
        return list(dict.fromkeys(step.name.policy for step in self.steps))

    @property
    def worst(self) -> StepAudit:
        """The step with the most findings of the worst severity; the first of several."""
        return max(self.steps, key=lambda step: step.worst)

    def is_at_least(self, severity: str) -> bool:
        """Whether any step has a finding as bad as `severity`, one of `SEVERITIES`, or worse."""
        bad = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return any(finding["severity"] in bad for step in self.steps for finding in step.findings)

    def as_json(self) -> dict[str, Any]:
        """The last step's report, and beside it the member `run` with all steps."""
        return {**self.last.as_json(), "run": self._run_json()}

    def _run_json(self) -> dict[str, Any]:
        index = {step.name: at for at, step in enumerate(self.steps)}
        return {
            "source": self.source,
            "steps": [_step_json(step) for step in self.steps],
            "curves": [_curve_json(curve, index) for curve in self.curves],
            "findings": [_span_json(span, index) for span in self.spans],
            "unread": [{**_name_json(each.name), "reason": each.reason} for each in self.unread],
            "notes": list(self.notes),
        }


def _name_json(name: StepName) -> dict[str, Any]:
    return {"step": name.number, "part": name.part, "policy": name.policy}


def _step_json(step: StepAudit) -> dict[str, Any]:
    findings = [
        {key: each[key] for key in ("check", "severity", "topic", "sentence", "share", "places")}
        for each in step.findings
    ]
    return {
        **_name_json(step.name),
        "place": step.place,
        "counts": dict(step.counts),
        "findings": findings,
        "unchecked": [dict(item) for item in step.unchecked],
    }


def _curve_json(curve: Curve, index: Mapping[StepName, int]) -> dict[str, Any]:
    points = [
        {"at": index[step], **{key: getattr(f, key) for key in ("value", "low", "high", "count")}}
        for step, f in curve.points.items()
    ]
    return {
        "check": curve.check,
        "name": curve.name,
        "method": curve.method,
        "stream": curve.stream,
        "policy": curve.policy,
        "of": next(iter(curve.points.values())).of,
        "worse": curve.worse,
        "worst": None if curve.worst is None else index[curve.worst],
        "trend": curve.trend,
        "points": finite_values(points),
    }


def _span_json(span: FindingSpan, index: Mapping[StepName, int]) -> dict[str, Any]:
    steps = {str(index[step]): severity for step, severity in span.severities.items()}
    return {
        "check": span.check,
        "title": span.title,
        "severity": span.severity,
        "sentence": span.sentence,
        "steps": steps,
    }


class RunFollower:
    """Audits the steps of a run, each once, as they appear.

    Args:
        log: the run's steps.
        methods: as for `audit`.
        checks: as for `audit`.
        own: what the run recorded; its methods replace those of their names.
    """

    def __init__(
        self,
        log: RunLog,
        methods: Mapping[str, Estimator],
        checks: Mapping[str, Check] | None = None,
        own: RunMethods | None = None,
    ) -> None:
        self.log, self.methods, self.checks = log, methods, checks
        self.own = own or RunMethods()
        self._found: dict[StepName, StepAudit | UnreadStep] = {}
        self._notes: dict[StepName, tuple[str, str]] = {}
        self._audited: dict[StepName, Hashable] = {}
        self._polled: dict[StepName, Hashable] = {}
        self._awaited: list[LoggedStep] = []
        self._texts: tuple[str, int] | None = None
        self._last: tuple[StepName, AuditReport] | None = None

    def due(self, *, waits: bool = False) -> list[LoggedStep]:
        """The steps that are new, or whose rows have changed since they were audited.

        Args:
            waits: leave out a step that may still be written: one whose last line is half-written,
                or one that is open and has changed since the last call.

        Raises:
            StepCreditError: the log as a whole can't be read now.
        """
        steps, before = self.log.steps(), self._polled
        self._polled = {step.name: step.stamp for step in steps}
        new = [step for step in steps if self._audited.get(step.name) != step.stamp]
        self._awaited = [step for step in new if waits and not _has_settled(step, before)]
        return [step for step in new if step not in self._awaited]

    def follow(
        self, step: LoggedStep, progress: CheckProgress | None = None
    ) -> StepAudit | UnreadStep | None:
        """Audit a step, and keep what was found; None where it repeats the step before it.

        Raises:
            SettingError, MissingExtra: no step can be read as things stand.
        """
        for kept in (self._found, self._notes):
            kept.pop(step.name, None)
        self._audited[step.name] = step.stamp
        try:
            batch = step.read()
            if batch is None:
                self._notes[step.name] = step.place, "repeats the step before it: left out"
                return None
            methods = self.own.among(self.methods, step.name.policy)
            above = self.own.right_above
            report = audit(batch, methods, checks=self.checks, progress=progress, right_above=above)
        except (SettingError, MissingExtra):
            raise
        except StepCreditError as error:
            self._found[step.name] = UnreadStep(step.name, str(error))
            return self._found[step.name]
        self._note_same_texts(step, batch)
        if self._last is None or self._place(step.name) >= self._place(self._last[0]):
            self._last = step.name, report
        self._found[step.name] = _step_audit(step, report)
        return self._found[step.name]

    def report(self) -> RunReport:
        """What was found so far.

        Raises:
            FileError: no step could be audited; it names the first reason.
        """
        awaited = {step.name: _being_written(step) for step in self._awaited}
        found = sorted((self._found | awaited).values(), key=lambda each: self._place(each.name))
        if len({each.name.policy for each in found}) == 1:
            found = [replace(each, name=replace(each.name, policy="")) for each in found]
        unread = tuple(each for each in found if isinstance(each, UnreadStep))
        steps = tuple(each for each in found if isinstance(each, StepAudit))
        if self._last is None:
            more = f" (and {counted(len(unread) - 1, 'more step')})" if len(unread) > 1 else ""
            reason = f"{unread[0].reason}{more}" if unread else f"{self.log.path}: has no step yet"
            raise FileError(reason)
        notes = tuple(dict.fromkeys([*self.own.notes, *self.log.notes(), *self._note_lines()]))
        return RunReport(self.log.path, steps, self._last[1], unread, notes)

    def _note_lines(self) -> Iterator[str]:
        """The notes of steps: a line for each, or one line for many that say the same."""
        steps = sorted(self._audited, key=self._place)
        said = dict.fromkeys(text for _, text in self._notes.values())
        for text in said:
            places = {name: place for name, (place, own) in self._notes.items() if own == text}
            if len(places) > MOST_NOTES:
                yield f"{self.log.path}: {text}: in {step_ranges(places, steps)}"
            else:
                yield from (f"{place}: {text}" for place in places.values())

    def _place(self, name: StepName) -> tuple[int, StepName]:
        """Policies in the order in which they were first seen, and their steps by number."""
        policies = list(dict.fromkeys(each.policy for each in (*self._audited, *self._polled)))
        return policies.index(name.policy), name

    def _note_same_texts(self, step: LoggedStep, batch: LoggedBatch) -> None:
        """Note a step whose responses are those of the step that was audited before it."""
        texts = step.name.policy, hash(tuple(batch.texts))
        if texts == self._texts and any(batch.texts):
            self._notes[step.name] = step.place, "the same responses as in the step before"
        self._texts = texts


def _has_settled(step: LoggedStep, before: Mapping[StepName, Hashable]) -> bool:
    """Whether no more rows are to come: an open step is done where it was the same before."""
    if step.state == "open":
        return before.get(step.name) == step.stamp
    return step.state == "whole"


def _being_written(step: LoggedStep) -> UnreadStep:
    reason = "its last line is half-written" if step.state == "half-written" else "may still grow"
    return UnreadStep(step.name, f"{step.place}: {reason}: not audited yet")


def _step_audit(step: LoggedStep, report: AuditReport) -> StepAudit:
    return StepAudit(
        step.name,
        step.place,
        report.counts,
        {name: result.figures for name, result in report.results.items()},
        tuple(report.findings_json()),
        tuple(asdict(item) for item in report.unchecked),
    )
