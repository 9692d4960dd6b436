"""The difference of two audits as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from stepcredit.audit.diff_report import DiffReport
from stepcredit.audit.page_drawing import IntervalMark, Picture, grouped_intervals
from stepcredit.audit.page_parts import page_files, page_template
from stepcredit.audit.pay_changes import PayChange
from stepcredit.audit.shown_figures import (
    shown_interval,
    shown_number,
    visible_text,
    visible_values,
)

PARTS = (
    ("Advantage of steps", "advantage of", " steps"),
    ("Advantage of responses", "advantage of", " responses"),
    ("Score of steps", "score of", " steps"),
    ("Score of responses", "score of", " responses"),
)
"""Pictures of the changes: a title, and how the names of their means begin and end."""


def diff_page(report: DiffReport) -> str:
    """The page: what became better paid, findings that came and went, responses that changed most.

    All that comes from the data is escaped, and shown as text, as on the audit's page.

    Args:
        report: the difference.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    from stepcredit.requires import require

    require("report", "jinja2", "matplotlib")
    text: str = page_template("audit_diff.html.j2").render(
        report=visible_values(report.as_json()),
        right_texts=[report.first.right_text, report.second.right_text],
        sentence=report.pairs.sentence,
        pictures=change_pictures(report.changes),
        **page_files(["page_plots.js"]),
    )
    return text


def change_pictures(changes: Sequence[PayChange]) -> list[Picture]:
    """The changes by kind of step and of response: a row per kind, a colour per method or stream.

    Args:
        changes: of a difference; quantities that are the same in both files have no picture.

    Example:
        >>> change_pictures([])
        []
    """
    found = []
    for title, begins, ends in PARTS:
        own = [c for c in changes if c.what.startswith(begins) and c.what.endswith(ends)]
        if any(change.change for change in own):
            marks = [_mark(change) for change in own]
            svg = grouped_intervals(marks, "second minus first").element(title)
            found.append(Picture(title, "Right of 0: more in the second file.", svg, *_table(own)))
    return found


def _mark(change: PayChange) -> IntervalMark:
    whose, kind = change.method or change.stream, change.what.partition(" of ")[2]
    number = shown_interval(change.change, change.low, change.high)
    note = f"{change.what}, {whose}: a change of {number}, n = {_units(change)}"
    return IntervalMark(kind, whose, change.change, change.low, change.high, note)


def _units(change: PayChange) -> str:
    return " and ".join(f"{count:,}" for count in change.units)


def _table(changes: Sequence[PayChange]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = [
        (
            change.what.partition(" of ")[2],
            visible_text(change.method or change.stream),
            shown_number(change.first),
            shown_number(change.second),
            shown_interval(change.change, change.low, change.high),
            _units(change),
        )
        for change in changes
    ]
    headings = ("kind", "whose", "first", "second", "change (95 % interval)", "n")
    return headings, tuple(rows)
