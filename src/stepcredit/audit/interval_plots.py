"""Pictures of figures with their intervals, as SVG elements whose marks can be hovered."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

from stepcredit.audit.finding import AuditFigure
from stepcredit.audit.shown_figures import figure_sentence, visible_text

WIDTH, ROW_HEIGHT, PANEL_HEIGHT = 7.0, 0.27, 0.75
"""Inches: of a picture, of a row, and of a panel's title and axis."""
ROWS_DRAWN = 40
"""Figures of a picture; the table below it has all of them."""
LABEL_CHARACTERS = 48
INK, SOFT, GRID, MARK = "#123451", "#123452", "#123453", "#123454"
_VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--line", MARK: "--mark"}
"""Colours of the drawing, and the style variables of the page that take their place."""


def interval_plot(figures: Sequence[AuditFigure], title: str) -> str:
    """A panel per name of figure, a row per method and stream: value, interval, zero line.

    Args:
        figures: those of a check; only those with an interval are drawn.
        title: what a screen reader says of the picture.

    Returns:
        An SVG element in the colours of the page; "" if no figure has an interval.

    Example:
        >>> interval_plot([AuditFigure("share", 0.5, 8, "groups")], "shares")
        ''
    """
    panels = _panels(figures)
    if not panels:
        return ""
    heights = [PANEL_HEIGHT + ROW_HEIGHT * len(panel) for panel in panels]
    drawing = _drawing(WIDTH, sum(heights))
    axes = drawing.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    notes: dict[str, str] = {}
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, notes)
    return _as_element(drawing, title, notes)


def _panels(figures: Sequence[AuditFigure]) -> list[list[AuditFigure]]:
    drawn = [f for f in figures if None not in (f.value, f.low, f.high)][:ROWS_DRAWN]
    first = {name: place for place, name in reversed(list(enumerate(f.name for f in drawn)))}
    ordered = sorted(drawn, key=lambda figure: first[figure.name])
    return [list(panel) for _, panel in groupby(ordered, key=lambda figure: figure.name)]


def _draw_panel(axis: Any, panel: list[AuditFigure], notes: dict[str, str]) -> None:
    lows, highs = [f.low or 0.0 for f in panel], [f.high or 0.0 for f in panel]
    if min(lows) <= 0 <= max(highs):
        axis.axvline(0, color=SOFT, linewidth=0.9)
    for place, figure in enumerate(panel):
        mark = f"mark-{len(notes)}"
        notes[mark] = figure_sentence(figure)
        axis.plot([figure.low, figure.high], [place, place], color=MARK, linewidth=2.4, gid=mark)
        mark = f"mark-{len(notes)}"
        notes[mark] = figure_sentence(figure)
        axis.plot([figure.value], [place], "o", color=MARK, markersize=6.5, gid=mark)
    axis.set_yticks(range(len(panel)), [_label(figure) for figure in panel], parse_math=False)
    axis.set_ylim(len(panel) - 0.5, -0.5)
    axis.set_title(
        _cut_label(panel[0].name, 90), loc="left", fontsize=9, color=INK, parse_math=False
    )
    axis.tick_params(labelsize=8, colors=SOFT, length=0)
    axis.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)
    axis.patch.set_visible(False)


def _label(figure: AuditFigure) -> str:
    whose = ", ".join(name for name in (figure.method, figure.stream) if name)
    return _cut_label(whose or f"n = {figure.count:,} {figure.of}", LABEL_CHARACTERS)


def _cut_label(text: str, most: int) -> str:
    shown = visible_text(text).replace("\n", " ")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _drawing(width: float, height: float) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    drawing.patch.set_alpha(0)
    FigureCanvasSVG(drawing)
    return drawing


def _as_element(drawing: Any, title: str, notes: dict[str, str]) -> str:
    """The drawing as an element that scales with the page, with a note on each mark."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt" height="[^"]*pt"|$^', r"\1", svg, count=1)
    for mark, note in notes.items():
        found = f"<title>{escape(visible_text(note))}</title>"
        svg = svg.replace(f'<g id="{mark}">', f'<g class="mark">{found}', 1)
    svg = re.sub(r' id="[a-zA-Z.]+[0-9]*_[0-9_]+"', "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
