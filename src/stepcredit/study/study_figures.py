"""The page's pictures as SVG: learning curves with bands, and forests of paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from stepcredit.html_pages import svg_drawing, svg_element
from stepcredit.study.study_statistics import TIE
from stepcredit.study.study_tables import ArmCurve, ArmRow, CellTable

PANELS = {
    "pass_at_1": "pass@1 while training",
    "length": "tokens per answer",
    "turns": "turns per answer",
    "fillers": "filler lines per answer",
    "entropy": "entropy per token, nats",
    "teacher_kl": "KL to the teacher, nats",
}
COLOURS = (
    *("#1f5fa8", "#d1662a", "#3f8f4f", "#7d4fa3", "#b23a48", "#2a8c8c"),
    *("#8a6d3b", "#555555", "#c27ba0", "#6b8e23", "#e0b020", "#9aa7b8"),
)
INK, GRID = "#333333", "#e6e6e6"


def curves_svg(table: CellTable, curves: Sequence[ArmCurve]) -> str:
    """Learning curves of all arms of a table: mean over seeds, and a band.

    Returns:
        An SVG element.
    """
    names = _panels(curves)
    figure = svg_drawing(3.4 * len(names), 3.6)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    colours = _colours(curves)
    for axis, name in zip(axes, names, strict=True):
        _draw_panel(axis, curves, name, PANELS[name], colours)
    _legend(figure, axes)
    return svg_element(figure, f"learning curves, {table.task}, {table.signal}")


def preset_curves_svg(preset: str, drawn: Sequence[tuple[CellTable, Sequence[ArmCurve]]]) -> str:
    """Learning curves of a preset: a row of panels for each of its tables.

    Args:
        preset: its name.
        drawn: its tables, with the curves of the arms that are shown.

    Returns:
        An SVG element.
    """
    every = [curve for _, curves in drawn for curve in curves]
    names, colours = _panels(every), _colours(every)
    figure = svg_drawing(3.0 * len(names), 2.7 * len(drawn) + 0.5)
    rows = figure.subplots(len(drawn), len(names), squeeze=False)
    for axes, (table, curves) in zip(rows, drawn, strict=True):
        for axis, name in zip(axes, names, strict=True):
            title = f"{table.task}, {table.signal}\n{PANELS[name]}"
            if name in _panels(curves):
                _draw_panel(axis, curves, name, title, colours)
            else:
                axis.set_axis_off()
    _legend(figure, rows.flat)
    return svg_element(figure, f"learning curves, {preset}, {_runs([t for t, _ in drawn])}")


def _panels(curves: Sequence[ArmCurve]) -> list[str]:
    return [name for name in PANELS if any(name in curve.mean for curve in curves)]


def _colours(curves: Sequence[ArmCurve]) -> dict[str, str]:
    """One colour per label, the same in all panels."""
    labels = dict.fromkeys(curve.label for curve in curves)
    return dict(zip(labels, cycle(COLOURS), strict=False))


def _draw_panel(
    axis: Any, curves: Sequence[ArmCurve], name: str, title: str, colours: Mapping[str, str]
) -> None:
    for curve in curves:
        if name in curve.mean:
            _draw_curve(axis, curve, name, colours[curve.label])
    _dress(axis, title)
    axis.set_xlabel("update", fontsize=8, color=INK)


def _legend(figure: Any, axes: Iterable[Any]) -> None:
    """One legend below all panels, with each label once."""
    named: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(len(named), 5),
        frameon=False,
        fontsize=8,
    )


def _draw_curve(axis: Any, curve: ArmCurve, name: str, colour: str) -> None:
    axis.fill_between(
        curve.updates, curve.low[name], curve.high[name], color=colour, alpha=0.13, linewidth=0
    )
    axis.plot(curve.updates, curve.mean[name], color=colour, linewidth=1.6, label=curve.label)


def forest_svg(table: CellTable) -> str:
    """Paired differences of pass@1 to the reference arm: interval, mean, and every seed a dot.

    Returns:
        An SVG element; "" if nothing is compared.
    """
    if not _compared(table):
        return ""
    figure = svg_drawing(6.4, 0.9 + 0.34 * len(_compared(table)))
    _draw_forest(figure.subplots(), table, f"pass@1 less that of {table.reference}, {table.signal}")
    return svg_element(figure, f"paired differences, {table.task}, {table.signal}")


def preset_forests_svg(preset: str, tables: Sequence[CellTable]) -> str:
    """Paired differences of a preset, a panel for each of its tables.

    Args:
        preset: its name.
        tables: its tables.

    Returns:
        An SVG element; "" if nothing is compared.
    """
    shown = [table for table in tables if _compared(table)]
    if not shown:
        return ""
    columns = min(2, len(shown))
    height = 0.9 + 0.28 * max(len(_compared(table)) for table in shown)
    rows = -(-len(shown) // columns)
    figure = svg_drawing(5.6 * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, table in zip(axes, shown, strict=False):
        title = f"{table.task}, {table.signal}: pass@1 less that of {table.reference}"
        _draw_forest(axis, table, title)
    for task in {table.task for table in shown}:
        _same_range([axis for axis, t in zip(axes, shown, strict=False) if t.task == task])
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)
    return svg_element(figure, f"paired differences of pass@1, {preset}, {_runs(tables)}")


def _same_range(axes: Sequence[Any]) -> None:
    low, high = (limit(axis.get_xlim()[end] for axis in axes) for limit, end in LIMITS)
    for axis in axes:
        axis.set_xlim(low, high)


LIMITS = ((min, 0), (max, 1))


def _compared(table: CellTable) -> list[ArmRow]:
    return [row for row in table.rows if row.difference is not None]


def _runs(tables: Sequence[CellTable]) -> str:
    done, planned = sum(t.done for t in tables), sum(t.planned for t in tables)
    return f"{done} of {planned} runs"


def _draw_forest(axis: Any, table: CellTable, title: str) -> None:
    """One row per arm: interval, mean, and a dot per seed, a red cross where it has collapsed.

    What is below `LOWEST` is a triangle at the left edge; a mean there is written out.
    """
    rows = _compared(table)[::-1]
    axis.axvspan(-TIE, TIE, color="#f1f1f1", linewidth=0)
    axis.axvline(0, color="#888888", linewidth=0.9)
    for place, row in enumerate(rows):
        _draw_row(axis, place, row)
    axis.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8.5, color=INK)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    _dress(axis, title)


def _draw_row(axis: Any, place: int, row: ArmRow) -> None:
    found = row.difference
    assert found is not None
    for dot, collapsed in zip(row.dots, row.fallen, strict=True):
        style = CROSS if collapsed else DOT
        axis.plot([max(dot, LOWEST)], [place], **style | (OUTSIDE if dot < LOWEST else {}))
    if found.value < LOWEST:
        fallen = f", {row.collapsed} of {row.runs} collapsed" if row.collapsed else ""
        text = f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}){fallen}"
        axis.text(LOWEST + 0.015, place, text, va="center", fontsize=8, color=INK, bbox=PAPER)
        return
    axis.plot([max(found.low, LOWEST), found.high], [place, place], color="#1f5fa8", linewidth=2)
    axis.plot([found.value], [place], "D", color=INK, markersize=4.5)


LOWEST = -0.2
"""The left edge of a forest, so that a collapse does not hide what is near 0."""
DOT: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "color": "#1f5fa8",
    "alpha": 0.35,
    "markersize": 4,
}
CROSS: dict[str, Any] = {
    "linestyle": "",
    "marker": "x",
    "color": "#b23a48",
    "alpha": 0.8,
    "markersize": 5,
}
PAPER: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5}
"""What is behind a text, so that it can be read over dots."""
OUTSIDE: dict[str, Any] = {"marker": 8}
"""A triangle whose tip is at its place, to the left."""


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
