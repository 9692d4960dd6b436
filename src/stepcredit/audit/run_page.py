"""What the audit's page shows of a run: findings by step, figures over the steps, unread steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from stepcredit.audit.curve_pictures import (
    STEPS_DRAWN,
    STEPS_IN_TABLE,
    curve_pictures,
    is_still,
)
from stepcredit.audit.logged_step import StepName
from stepcredit.audit.page_drawing import Picture
from stepcredit.audit.run_curves import Curve, FindingSpan, step_ranges
from stepcredit.audit.run_report import RunReport
from stepcredit.audit.shown_figures import check_title, shown_number, visible_values

BEHIND = "Behind the findings"
STEPS_IN_GRID = 12
"""Most steps that have a column each in the table of findings; a longer run has strips."""


@dataclass(frozen=True)
class StripPart:
    """Neighbouring steps of a policy that have a finding at one severity.

    Args:
        severity: one of `SEVERITIES`.
        start: how many of the policy's steps stand before them.
        width: how many they are.
    """

    severity: str
    start: int
    width: int


@dataclass(frozen=True)
class Strip:
    """The steps of one policy in a row, with those that have a finding marked.

    Args:
        length: how many steps the policy has.
        parts: the marked ones.
    """

    length: int
    parts: tuple[StripPart, ...]

    @classmethod
    def of(cls, severities: Mapping[StepName, str], steps: Sequence[StepName]) -> Strip:
        """The strip of a policy.

        Args:
            severities: of the finding, by step.
            steps: of the policy, in order.

        Example:
            >>> steps = [StepName(at) for at in range(4)]
            >>> found = Strip.of({steps[1]: "warn", steps[2]: "warn"}, steps)
            >>> found.length, found.parts
            (4, (StripPart(severity='warn', start=1, width=2),))
        """
        parts, start = [], 0
        for severity, run in groupby(steps, key=lambda step: severities.get(step, "")):
            width = len(list(run))
            if severity:
                parts.append(StripPart(severity, start, width))
            start += width
        return cls(len(steps), tuple(parts))


def run_view(report: RunReport) -> dict[str, Any]:
    """The run as plain values and pictures, for the page's template; all text can be seen.

    Args:
        report: of the run.
    """
    names = [step.name for step in report.steps]
    columns = names if len(names) <= STEPS_IN_GRID else []
    last = report.steps[-1]
    seen = {
        "source": report.source,
        "last": str(last.name),
        "place": last.place,
        "steps": len(names),
        "responses": sum(step.counts["responses"] for step in report.steps),
        "policies": [policy for policy in report.policies if policy],
        "columns": [str(step) for step in columns],
        "findings": [_span_view(span, report, columns) for span in report.spans],
        "unread": [{"step": str(each.name), "reason": each.reason} for each in report.unread],
        "notes": list(report.notes),
        "drawn": STEPS_DRAWN,
        "in_table": STEPS_IN_TABLE,
        "still": _still_rows(report.curves) if len(names) > 1 else [],
    }
    strips = [] if columns else [_strips(span, report) for span in report.spans]
    return {**visible_values(seen), "strips": strips, "parts": _parts(report)}


def _strips(span: FindingSpan, report: RunReport) -> list[Strip]:
    """The strips of a finding, one per policy."""
    names = [step.name for step in report.steps]
    own = [list(steps) for _, steps in groupby(names, key=lambda name: name.policy)]
    return [Strip.of(span.severities, steps) for steps in own]


def _parts(report: RunReport) -> list[tuple[str, list[Picture]]]:
    """Titles with pictures: first of what findings stand on, then of the other figures by check."""
    behind = {c.key[:2]: c for span in report.spans for c in report.curves_behind(span)}
    groups: dict[str, list[Curve]] = {BEHIND: []}
    for curve in report.curves:
        title = BEHIND if curve.key[:2] in behind else check_title(curve.check)
        groups.setdefault(title, []).append(curve)
    pictures = {title: curve_pictures(curves) for title, curves in groups.items()}
    return [(title, own) for title, own in pictures.items() if own]


def _still_rows(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """The figures that have a worse direction and one value in all steps."""
    followed = [curve for curve in curves if curve.worse and curve.known and is_still([curve])]
    return [
        (curve.title, shown_number(next(iter(curve.known.values())).value)) for curve in followed
    ]


def _span_view(span: FindingSpan, report: RunReport, columns: Sequence[StepName]) -> dict[str, Any]:
    return {
        "severity": span.severity,
        "title": span.title,
        "sentence": span.sentence,
        "when": step_ranges(span.severities, [step.name for step in report.steps]),
        "cells": [span.severities.get(step, "") for step in columns],
    }
