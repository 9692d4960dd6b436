"""Drawings in the colours of the audit's page, whose marks can be pointed at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from stepcredit.audit.shown_figures import visible_text
from stepcredit.html_pages import svg_drawing, svg_element

WIDTH = 4.4
"""Inches of a picture: a phone shows it whole, with letters that can be read."""
ROW_HEIGHT, PANEL_HEIGHT = 0.27, 0.45
"""Inches: of a row, and of a panel's axis."""
INK, SOFT, GRID, MARK = "#123451", "#123452", "#123453", "#123454"
SERIES_COLOURS = ("#123454", "#123455", "#123456", "#123457", "#123458", "#123459")
"""Colours of methods or streams; of more than six, the next begin anew."""
_VARIABLES = {
    **{INK: "--ink", SOFT: "--soft", GRID: "--line"},
    **{colour: f"--mark{place or ''}" for place, colour in enumerate(SERIES_COLOURS)},
}
"""Colours of the drawing, and the style variables of the page that take their place."""
LABEL_CHARACTERS = 34


@dataclass
class PageDrawing:
    """A drawing of panels below each other; `noted` names a mark and says what it shows.

    Args:
        heights: of the panels, in inches.
    """

    heights: Sequence[float]
    drawing: Any = field(init=False)
    axes: list[Any] = field(init=False)
    _notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.drawing = svg_drawing(WIDTH, sum(self.heights))
        self.drawing.patch.set_alpha(0)
        ratios = list(self.heights)
        self.axes = list(
            self.drawing.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
        )
        for axis in self.axes:
            axis.tick_params(labelsize=9, colors=SOFT, length=0)
            axis.grid(axis="x", color=GRID, linewidth=0.8)
            axis.set_axisbelow(True)
            axis.spines[:].set_visible(False)
            axis.patch.set_visible(False)

    def noted(self, note: str) -> str:
        """The `gid` of the next mark, whose note it is."""
        self._notes[f"mark-{len(self._notes)}"] = note
        return f"mark-{len(self._notes) - 1}"

    def legend(self, colours: Mapping[str, str]) -> None:
        """Say below the panels which colour is what; nothing for a single one."""
        from matplotlib.lines import Line2D

        if len(colours) < 2:
            return
        marks = [Line2D([], [], color=colour, linewidth=5) for colour in colours.values()]
        legend = self.drawing.legend(
            marks,
            [cut_label(name, LABEL_CHARACTERS) for name in colours],
            loc="outside lower center",
            ncols=min(len(colours), 3),
            frameon=False,
            fontsize=9,
            labelcolor=INK,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)

    def element(self, title: str) -> str:
        """The drawing as an SVG element, with each note on its mark."""
        svg = svg_element(self.drawing, visible_text(title))
        for mark, note in self._notes.items():
            found = f"<title>{escape(visible_text(note))}</title>"
            svg = svg.replace(f'<g id="{mark}">', f'<g class="mark">{found}', 1)
        svg = re.sub(r' id="[a-zA-Z.]+[0-9]*_[0-9_]+"', "", svg)
        for colour, variable in _VARIABLES.items():
            svg = svg.replace(colour, f"var({variable})")
        return svg


def panel_title(axis: Any, text: str) -> None:
    """Write a panel's title at its left."""
    axis.set_title(cut_label(text, 70), loc="left", fontsize=9.5, color=INK, parse_math=False)


def row_labels_of(axis: Any, labels: Sequence[str]) -> None:
    """Name an axis's rows, the first at the top."""
    shown = [cut_label(label, LABEL_CHARACTERS) for label in labels]
    axis.set_yticks(range(len(shown)), shown, parse_math=False)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.tick_params(axis="y", labelsize=9, labelcolor=INK)


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in their order.

    Example:
        >>> list(colours_of(["pass", "pure", "pass"]))
        ['pass', 'pure']
    """
    distinct = list(dict.fromkeys(names))
    return {name: SERIES_COLOURS[at % len(SERIES_COLOURS)] for at, name in enumerate(distinct)}


def cut_label(text: str, most: int) -> str:
    """A text on one line, in at most so many characters.

    Example:
        >>> cut_label("a longer name", 9)
        'a longer…'
    """
    shown = visible_text(text).replace("\n", " ")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


@dataclass(frozen=True)
class IntervalMark:
    """A value with its interval, in a row and of a series.

    Args:
        row: label of its row.
        series: name of its series, which gives its colour.
        value: the value.
        low, high: ends of the interval; None: it has none.
        note: what is shown of it when it is pointed at.
    """

    row: str
    series: str
    value: float
    low: float | None
    high: float | None
    note: str


def draw_intervals(page: PageDrawing, axis: Any, marks: Sequence[IntervalMark]) -> None:
    """Draw a dot and its interval per mark; marks of one row stand below each other.

    Args:
        page: the drawing.
        axis: one of its panels.
        marks: at least one.
    """
    rows = {row: at for at, row in enumerate(dict.fromkeys(mark.row for mark in marks))}
    colours = colours_of([mark.series for mark in marks])
    place = {name: at for at, name in enumerate(colours)}
    ends = [x for mark in marks for x in (mark.value, mark.low, mark.high) if x is not None]
    if min(ends) <= 0 <= max(ends):
        axis.axvline(0, color=SOFT, linewidth=0.9)
    for mark in marks:
        at = rows[mark.row] + (place[mark.series] - (len(place) - 1) / 2) * 0.8 / len(place)
        colour = colours[mark.series]
        if mark.low is not None and mark.high is not None:
            gid = page.noted(mark.note)
            axis.plot([mark.low, mark.high], [at, at], color=colour, linewidth=2.2, gid=gid)
        gid = page.noted(mark.note)
        axis.plot([mark.value], [at], "o", color=colour, markersize=5.5, gid=gid)
    row_labels_of(axis, list(rows))


def grouped_intervals(marks: Sequence[IntervalMark], unit: str = "") -> PageDrawing:
    """One panel of intervals, with room for each series in a row, and a legend.

    Args:
        marks: at least one.
        unit: what stands below the axis.
    """
    rows, colours = {mark.row for mark in marks}, colours_of([mark.series for mark in marks])
    height = ROW_HEIGHT * (0.5 + 0.5 * len(colours)) * len(rows)
    page = PageDrawing([PANEL_HEIGHT + height + 0.2 * bool(unit)])
    draw_intervals(page, page.axes[0], marks)
    page.axes[0].locator_params(axis="x", nbins=6)
    page.axes[0].set_xlabel(unit, color=SOFT, fontsize=9)
    page.legend(colours)
    return page


def draw_bar(
    page: PageDrawing, axis: Any, place: tuple[float, float], width: float, note: str
) -> None:
    """Draw a bar of a height at a place.

    Args:
        page: the drawing.
        axis: one of its panels.
        place: the bar's middle, and its height.
        width: of the bar.
        note: what is shown of it when it is pointed at.
    """
    [bar] = axis.bar([place[0]], [place[1]], width, color=MARK, linewidth=0)
    bar.set_gid(page.noted(note))


@dataclass(frozen=True)
class Picture:
    """A picture and its table.

    Args:
        title: what is shown.
        reading: how to read it.
        svg: the picture.
        headings: of the table's columns.
        rows: the same numbers; none: they stand in another table.
    """

    title: str
    reading: str
    svg: str
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
