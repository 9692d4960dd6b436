"""Pictures of figures with their intervals, as SVG elements whose marks can be hovered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from stepcredit.audit.finding import AuditFigure
from stepcredit.audit.page_drawing import (
    IntervalMark,
    Picture,
    grouped_intervals,
)
from stepcredit.audit.shown_figures import figure_sentence, visible_text

ROWS_DRAWN = 40
"""Figures of a picture; the table below it has all of them."""


def interval_plots(figures: Sequence[AuditFigure]) -> list[Picture]:
    """A picture per name of figure, a row per method and stream: value, interval, zero line.

    Args:
        figures: those of a check; only those with an interval are drawn.

    Returns:
        The pictures, without tables: the page has one of all figures.

    Example:
        >>> interval_plots([AuditFigure("share", 0.5, 8, "groups")])
        []
    """
    return [_drawn(panel) for panel in _panels(figures)]


def _drawn(panel: Sequence[AuditFigure]) -> Picture:
    marks = [_mark(figure) for figure in panel]
    name = visible_text(panel[0].name)
    title = name[:1].upper() + name[1:]
    return Picture(title, "", grouped_intervals(marks).element(title))


def _panels(figures: Sequence[AuditFigure]) -> list[list[AuditFigure]]:
    drawn = [f for f in figures if None not in (f.value, f.low, f.high)][:ROWS_DRAWN]
    first = {name: place for place, name in reversed(list(enumerate(f.name for f in drawn)))}
    ordered = sorted(drawn, key=lambda figure: first[figure.name])
    return [list(panel) for _, panel in groupby(ordered, key=lambda figure: figure.name)]


def _mark(figure: AuditFigure) -> IntervalMark:
    whose = ", ".join(name for name in (figure.method, figure.stream) if name)
    label = whose or f"n = {figure.count:,} {figure.of}"
    value = figure.value or 0.0
    return IntervalMark(label, "", value, figure.low, figure.high, figure_sentence(figure))
