"""The difference of two audits on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stepcredit.audit.shown_figures import shown_interval, shown_number
from stepcredit.cli.audit_summary import severity_text, terminal_text
from stepcredit.credit.rich_table import literal
from stepcredit.data.rules import counted

if TYPE_CHECKING:
    from rich.text import Text

    from stepcredit.audit.audit_report import AuditReport
    from stepcredit.audit.diff_report import DiffReport, FindingChange
    from stepcredit.audit.pay_changes import PayChange
    from stepcredit.audit.row_changes import RowChange

LINES_SHOWN, ROWS_SHOWN = 12, 3
"""Lines of a part of the summary, and responses per method; the page and the JSON have more."""


def diff_summary_text(report: DiffReport) -> str:
    """The difference as text for a terminal."""
    return terminal_text(_lines(report))


def _lines(report: DiffReport) -> Iterator[Text]:
    for word, side in (("from", report.first), ("to", report.second)):
        yield literal(f"{word} {_size(side)}")
    yield literal(report.pairs.sentence)
    yield literal("")
    yield from _pay(report.changes)
    yield from _findings("Findings that appeared", report.appeared, now=True)
    yield from _findings("Findings that vanished", report.vanished, now=False)
    for trend in ("worse", "better"):
        curves = [curve for curve in report.curves if curve.trend == trend]
        lines = [
            literal(
                f"- {curve.title}: "
                + " to ".join(shown_interval(f.value, f.low, f.high) for f in curve.points.values())
            )
            for curve in curves
        ]
        yield from _part(f"Figures that became {trend} (their intervals lie apart)", lines)
    yield from _rows(report.rows)


def _size(report: AuditReport) -> str:
    counts = report.counts
    size = f"{counted(counts['responses'], 'response')} in {counted(counts['groups'], 'group')}"
    right = f". {report.right_text}" if report.right_text else ""
    return f"{report.given.batch.source}: {size}{right}"


def _part(title: str, lines: Sequence[Text]) -> Iterator[Text]:
    """A part with its lines; nothing where it has none."""
    if lines:
        yield literal(f"{title}:")
        yield from lines[:LINES_SHOWN]
        if len(lines) > LINES_SHOWN:
            yield literal(f"and {len(lines) - LINES_SHOWN} more")
        yield literal("")


def _pay(changes: Sequence[PayChange]) -> Iterator[Text]:
    words = {
        ("method", "up"): "Became better paid",
        ("method", "down"): "Became worse paid",
        ("stream", "up"): "Got a higher score from a signal",
        ("stream", "down"): "Got a lower score from a signal",
    }
    for (whose, direction), title in words.items():
        held = [each for each in changes if each.direction == direction]
        held = [each for each in held if bool(each.method) == (whose == "method")]
        held.sort(key=lambda each: -abs(each.change))
        yield from _part(title, [literal(f"- {change_in_words(each)}") for each in held])
    if not any(each.direction for each in changes):
        yield literal("No kind of step or response is surely better or worse paid.")
        yield literal("")


def change_in_words(change: PayChange) -> str:
    """A change on one line: of what, from where to where, by how much, on how many units."""
    whose = change.method or change.stream
    size = shown_interval(change.change, change.low, change.high)
    ends = f"{shown_number(change.first)} to {shown_number(change.second)}"
    units = " and ".join(f"{count:,}" for count in change.units)
    noun = "pairs" if len(change.units) == 1 else "prompts or groups"
    return f"{change.what}, {whose}: {ends}, a change of {size}, n = {units} {noun}"


def _findings(title: str, changes: Sequence[FindingChange], *, now: bool) -> Iterator[Text]:
    lines = [
        literal("- ")
        + severity_text(each.second if now else each.first)
        + literal(f"  {each.sentence}")
        for each in changes
    ]
    if not lines:
        yield literal(f"{title}: none")
    yield from _part(title, lines)


def _rows(rows: Sequence[RowChange]) -> Iterator[Text]:
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        for row in [each for each in rows if each.method == method][:ROWS_SHOWN]:
            where = f"lines {row.lines[0]} and {row.lines[1]}, group {row.group}"
            ends = f"{shown_number(row.first)} to {shown_number(row.second)}"
            lines.append(literal(f"- {method}: {where}: mean advantage {ends}"))
    yield from _part("Responses whose credit changed most", lines)
