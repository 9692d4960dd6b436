"""The audit's report on a terminal: the verdict, and what was not checked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from stepcredit.audit.shown_figures import check_title, figure_sentence
from stepcredit.credit.rich_table import literal
from stepcredit.data.rules import counted

if TYPE_CHECKING:
    from rich.text import Text

    from stepcredit.audit.audit_report import AuditReport
    from stepcredit.audit.finding import Finding

STYLES = {"fault": "bold red", "warn": "bold yellow", "note": "bold blue"}
PLACES_SHOWN = 5
EVIDENCE_SHOWN = 6
"""Figures below a finding; the page and the JSON have all of them."""
NARROWEST, WIDEST = 40, 100


def summary_text(report: AuditReport) -> str:
    """The report as text for a terminal: `terminal_text` of its lines."""
    return terminal_text(_lines(report))


def terminal_text(lines: Iterable[Text]) -> str:
    """Lines as text for a terminal, in colour where standard output is one, wrapped to its width.

    Control characters of the data are escaped, so that none reaches the terminal.
    """
    from rich.console import Console

    is_terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    system = "standard" if is_terminal else None
    console = Console(width=width, color_system=system, force_terminal=is_terminal)  # type: ignore[arg-type]
    with console.capture() as capture:
        for line in lines:
            console.print(line, soft_wrap=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _lines(report: AuditReport) -> Iterator[Text]:
    counts, batch = report.counts, report.given.batch
    size = f"{counted(counts['responses'], 'response')} in {counted(counts['groups'], 'group')}"
    yield literal(f"{batch.source}: {size}, {counted(counts['tokens'], 'trained token')}")
    names = ", ".join(report.method_texts.values()) or "none can run on these rows"
    yield literal(f"methods: {names}; checks: {len(report.results)}")
    if report.right_text:
        yield literal(report.right_text)
    yield from _ranking_lines(report)
    yield literal("")
    if not report.findings:
        yield literal("The checks that ran found nothing to change.")
    yield from verdict_lines(report)
    more = len(report.findings) - len(report.verdict)
    if more:
        others = f"{counted(more, 'more finding')} {'are' if more > 1 else 'is'}"
        yield literal(f"{others} in the page (-o) and in the JSON (--json).")
    if report.unchecked:
        yield literal("Not checked, with what is lacking:")
    for item in report.unchecked:
        yield literal(f"  {check_title(item.check)} ({item.field}): {item.reason}")


def _ranking_lines(report: AuditReport) -> Iterator[Text]:
    """How often each signal ranks right responses above wrong ones of their group."""
    from stepcredit.audit.checks.signal_quality import NAME, RANKING

    quality = report.results.get(NAME)
    for figure in quality.figures if quality else ():
        if figure.name == RANKING and figure.value is not None:
            yield literal(f"{figure_sentence(figure)} (0.5 is chance)")


def verdict_lines(report: AuditReport) -> Iterator[Text]:
    """The findings of the verdict, with their evidence."""
    for number, finding in enumerate(report.verdict, start=1):
        yield from _finding_lines(number, finding, report)


def severity_text(severity: str) -> Text:
    """A severity in its colour."""
    text = literal(severity)
    text.stylize(STYLES[severity])
    return text


def _finding_lines(number: int, finding: Finding, report: AuditReport) -> Iterator[Text]:
    heading = literal(f"{number}. ") + severity_text(finding.severity)
    yield heading + literal(f"  {finding.sentence}")
    for figure in finding.evidence[:EVIDENCE_SHOWN]:
        yield literal(f"   - {figure_sentence(figure)}")
    yield literal(f"   What to change: {finding.advice}")
    lines = dict.fromkeys(report.given.batch.line(place.row) for place in finding.places)
    if lines:
        shown = ", ".join(str(line) for line in list(lines)[:PLACES_SHOWN])
        yield literal(f"   See lines {shown} of the file.")
    yield literal("")
