"""What the audit's page shows of a run: findings by step, figures over the steps, unread steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcredit.audit.curve_pictures import (
    STEPS_DRAWN,
    STEPS_IN_TABLE,
    curve_pictures,
    is_still,
)
from stepcredit.audit.page_drawing import Picture
from stepcredit.audit.run_curves import Curve, FindingSpan, spread_steps, step_ranges
from stepcredit.audit.run_report import RunReport
from stepcredit.audit.shown_figures import check_title, shown_number, visible_values

BEHIND = "Behind the findings"
STEPS_IN_GRID = 16
"""Steps in the table of findings; the words beside it name all that have the finding."""


def run_view(report: RunReport) -> dict[str, Any]:
    """The run as plain values and pictures, for the page's template; all text can be seen.

    Args:
        report: of the run.
    """
    names = [step.name for step in report.steps]
    columns = spread_steps(names, STEPS_IN_GRID)
    last = report.steps[-1]
    seen = {
        "source": report.source,
        "last": str(last.name),
        "place": last.place,
        "steps": len(names),
        "responses": sum(step.counts["responses"] for step in report.steps),
        "policies": [policy for policy in report.policies if policy],
        "columns": [str(step) for step in columns],
        "is_thinned": len(columns) < len(names),
        "findings": [_span_view(span, report, columns) for span in report.spans],
        "unread": [{"step": str(each.name), "reason": each.reason} for each in report.unread],
        "notes": list(report.notes),
        "drawn": STEPS_DRAWN,
        "in_table": STEPS_IN_TABLE,
        "still": _still_rows(report.curves) if len(names) > 1 else [],
    }
    return {**visible_values(seen), "parts": _parts(report)}


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


def _span_view(span: FindingSpan, report: RunReport, columns: list[Any]) -> dict[str, Any]:
    return {
        "severity": span.severity,
        "title": span.title,
        "sentence": span.sentence,
        "when": step_ranges(span.severities, [step.name for step in report.steps]),
        "cells": [span.severities.get(step, "") for step in columns],
    }
