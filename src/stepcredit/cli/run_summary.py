"""The audit of a run on a terminal: findings and figures over the steps, then the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stepcredit.audit.run_curves import finding_key, step_ranges
from stepcredit.audit.shown_figures import shown_interval
from stepcredit.cli.audit_summary import severity_text, terminal_text, verdict_lines
from stepcredit.credit.rich_table import literal
from stepcredit.data.rules import counted

if TYPE_CHECKING:
    from rich.text import Text

    from stepcredit.audit.finding import AuditFigure
    from stepcredit.audit.logged_step import StepName
    from stepcredit.audit.run_curves import Curve, StepAudit
    from stepcredit.audit.run_report import RunReport

FINDINGS_SHOWN, FIGURES_SHOWN, TRENDS_SHOWN, UNREAD_SHOWN = 12, 2, 6, 20
"""Lines of a summary; the page and the JSON have all of them."""


def run_summary_text(report: RunReport) -> str:
    """The report of a run as text for a terminal."""
    return terminal_text(_lines(report))


def _lines(report: RunReport) -> Iterator[Text]:
    responses = sum(step.counts["responses"] for step in report.steps)
    steps = counted(len(report.steps), "step")
    yield literal(f"{report.source}: {steps} ({_steps_in_words(report)})")
    size = f"{counted(responses, 'response')} in all"
    methods = ", ".join(report.last.method_texts.values()) or "none can run"
    yield literal(f"{size}; methods: {methods}")
    if report.last.right_text:
        yield literal(report.last.right_text)
    yield literal("")
    yield from _findings_over_steps(report)
    yield from _trends(report)
    yield from _unread(report)
    yield literal(f"The last step, {report.steps[-1].name}:")
    yield literal("")
    if not report.last.findings:
        yield literal("The checks that ran found nothing to change.")
    yield from verdict_lines(report.last)
    yield literal("All figures and responses are in the page (-o) and in the JSON (--json).")


def _steps_in_words(report: RunReport) -> str:
    parts = []
    for policy in report.policies:
        own = [step.name for step in report.steps if step.name.policy == policy]
        parts.append(str(own[0]) if len(own) == 1 else f"{own[0]} to {own[-1].label}")
    return "; ".join(parts)


def _findings_over_steps(report: RunReport) -> Iterator[Text]:
    spans = report.spans
    if not spans:
        yield literal("No step has a finding.")
    else:
        worst = f"{report.worst.name}: {findings_in_words(report.worst)}"
        yield literal(f"Findings by step (the worst step is {worst}):")
    names = [step.name for step in report.steps]
    for span in spans[:FINDINGS_SHOWN]:
        heading = literal("- ") + severity_text(span.severity)
        yield heading + literal(f"  {span.title}: {step_ranges(span.severities, names)}")
        for curve in report.curves_behind(span)[:FIGURES_SHOWN]:
            yield literal(f"  {curve.title}: {curve_in_words(curve)}")
    if len(spans) > FINDINGS_SHOWN:
        yield literal(f"and {len(spans) - FINDINGS_SHOWN} more")
    yield literal("")


def findings_in_words(step: StepAudit) -> str:
    """How many findings a step has.

    Example:
        >>> from stepcredit.audit.logged_step import StepName
        >>> from stepcredit.audit.run_curves import StepAudit
        >>> found = tuple({"severity": x} for x in ("warn", "warn", "note"))
        >>> findings_in_words(StepAudit(StepName(1), "", {}, {}, found))
        '2 warnings, 1 note'
    """
    counts = zip(step.worst, ("fault", "warning", "note"), strict=True)
    return ", ".join(counted(count, noun) for count, noun in counts if count) or "no finding"


def _trends(report: RunReport) -> Iterator[Text]:
    """The figures whose first and last intervals lie apart."""
    if len(report.steps) < 2 * len(report.policies):
        return
    for trend in ("worse", "better"):
        curves = [curve for curve in report.curves if curve.trend == trend]
        if curves:
            what = f"{trend.capitalize()} at the last step than at the first"
            yield literal(f"{what} (their intervals lie apart):")
        for curve in curves[:TRENDS_SHOWN]:
            yield literal(f"- {curve.title}: {curve_in_words(curve)}")
        if len(curves) > TRENDS_SHOWN:
            yield literal(f"and {len(curves) - TRENDS_SHOWN} more")
        if curves:
            yield literal("")
    if not any(curve.trend for curve in report.curves):
        yield literal("Of no figure do the intervals at the first and the last step lie apart.")
        yield literal("")


def curve_in_words(curve: Curve) -> str:
    """The first, the worst and the last value of a curve, with their intervals and steps."""
    known = curve.known
    steps = list(known)
    chosen = {"first": steps[0], "worst": curve.worst, "last": steps[-1]}
    return "; ".join(
        f"{word} {_point(known, step)}" for word, step in chosen.items() if step is not None
    )


def _point(known: Mapping[StepName, AuditFigure], step: StepName) -> str:
    figure = known[step]
    number = shown_interval(figure.value, figure.low, figure.high)
    return f"{number} at step {step.label}"


def _unread(report: RunReport) -> Iterator[Text]:
    if report.unread:
        yield literal("Steps that could not be audited:")
        for each in report.unread[:UNREAD_SHOWN]:
            yield literal(f"  {each.name}: {each.reason}")
        if len(report.unread) > UNREAD_SHOWN:
            yield literal(f"  and {len(report.unread) - UNREAD_SHOWN} more")
        yield literal("")


def step_line(step: StepAudit, before: StepAudit | None) -> str:
    """A newly audited step on one line: its size, its findings, and how they differ from before.

    Args:
        step: the step.
        before: the step of the same policy before it, if there is one.
    """
    sizes = ", ".join(counted(step.counts[f"{noun}s"], noun) for noun in ("response", "group"))
    line = f"step {step.name}: {sizes}; {findings_in_words(step)}"
    if before is None:
        return line
    now, then = ({finding_key(f)[1] for f in each.findings} for each in (step, before))
    changes = {"new": now - then, "gone": then - now}
    said = [f"{word}: {', '.join(sorted(titles))}" for word, titles in changes.items() if titles]
    return "; ".join([line, *said])
