"""What a check reports: figures, findings with their evidence, and what it could not look at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Severity = Literal["fault", "warn", "note"]
Worse = Literal["", "higher", "lower"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
"""From the worst on. "fault": the data or the advantages are wrong. "warn": training may learn
something else than is wanted. "note": worth knowing."""


@dataclass(frozen=True)
class AuditFigure:
    """A number that a check measured.

    Args:
        name: what it is, in words; units stand in it.
        value: the number; None where it has no value, such as a mean of nothing.
        count: how many groups, responses, steps or tokens it was measured on.
        of: what `count` counts: "groups", "responses", "steps", "chunks" or "tokens".
        low, high: its 95 % interval; None where it has none.
        method, stream: the method or the stream that it belongs to; "" for neither.
        worse: "higher" where more of it is worse for training, "lower" where less is, "" where
            neither is known. Figures with a direction are followed as curves over a run's steps.
    """

    name: str
    value: float | None
    count: int
    of: str
    low: float | None = None
    high: float | None = None
    method: str = ""
    stream: str = ""
    worse: Worse = ""


def evidence_of(
    figures: Iterable[AuditFigure], name: str, methods: Collection[str]
) -> tuple[AuditFigure, ...]:
    """The figures of a name that belong to some methods, as evidence of a finding.

    Example:
        >>> figures = [AuditFigure("pay", 0.5, 4, "steps", method=name) for name in ("a", "b")]
        >>> [figure.method for figure in evidence_of(figures, "pay", ["b"])]
        ['b']
    """
    return tuple(each for each in figures if each.name == name and each.method in methods)


@dataclass(frozen=True)
class EvidencePlace:
    """A response, or a step of it, that a finding points to.

    Args:
        row: the response's number in the batch, from 0.
        step: the step's number in the response, from 0; None: the whole response.
    """

    row: int
    step: int | None = None


@dataclass(frozen=True)
class Finding:
    """What a check found, in words, with its evidence and what to change.

    Args:
        check: name of the check.
        severity: one of `SEVERITIES`.
        sentence: what was found, one plain sentence.
        evidence: the figures that it stands on.
        advice: what to change, with the exact field or flag.
        places: responses or steps that show it, the clearest first.
        share: how much of what was looked at it concerns, 0 to 1: findings of one severity are
            ordered by it; None: not measured, such a finding stands behind the others.
        topic: what it is about in a few words without a number: the same in every file, so that the
            finding is known again in another step of a run; "": only the same sentence is the same.
    """

    check: str
    severity: Severity
    sentence: str
    evidence: tuple[AuditFigure, ...]
    advice: str
    places: tuple[EvidencePlace, ...] = ()
    share: float | None = None
    topic: str = ""

    @property
    def title(self) -> str:
        """Its topic; its sentence where it has none.

        Example:
            >>> Finding("lints", "note", "3 groups are cut.", (), "Look.", topic="cut groups").title
            'cut groups'
        """
        return self.topic or self.sentence


@dataclass(frozen=True)
class Unchecked:
    """A check, or a part of one, that could not run.

    Args:
        check: name of the check.
        field: what it lacks, by the file's name.
        reason: one plain sentence.
    """

    check: str
    field: str
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """All that a check reports.

    Args:
        figures: what it measured, in the order in which a reader wants them.
        findings: what it found; none where all is well.
        unchecked: what it could not look at.
        series: data of its pictures by name: plain numbers, lists and mappings.
    """

    figures: tuple[AuditFigure, ...] = ()
    findings: tuple[Finding, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()
    series: Mapping[str, Any] = field(default_factory=dict)
