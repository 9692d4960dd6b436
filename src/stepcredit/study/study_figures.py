"""The page's pictures as SVG: learning curves with bands, and forests of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcredit.html_pages import svg_drawing, svg_element
from stepcredit.study.study_tables import ArmCurve, CellTable

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
    *("#8a6d3b", "#555555", "#c27ba0", "#6b8e23"),
)
INK, GRID = "#333333", "#e6e6e6"


def curves_svg(table: CellTable, curves: Sequence[ArmCurve]) -> str:
    """Learning curves of all arms of a table: mean over seeds, and a band.

    Returns:
        An SVG element.
    """
    names = [name for name in PANELS if any(name in curve.mean for curve in curves)]
    figure = svg_drawing(3.4 * len(names), 3.6)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for curve, colour in zip(curves, COLOURS, strict=False):
            if name in curve.mean:
                _draw_curve(axis, curve, name, colour)
        _dress(axis, PANELS[name])
        axis.set_xlabel("update", fontsize=8, color=INK)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = min(len(labels), 5)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    return svg_element(figure, f"learning curves, {table.task}, {table.signal}")


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
    rows = [row for row in table.rows if row.difference is not None][::-1]
    if not rows:
        return ""
    figure = svg_drawing(6.4, 0.9 + 0.34 * len(rows))
    axis = figure.subplots()
    axis.axvspan(-0.03, 0.03, color="#f1f1f1", linewidth=0)
    axis.axvline(0, color="#888888", linewidth=0.9)
    for place, row in enumerate(rows):
        found = row.difference
        assert found is not None
        axis.plot(row.dots, [place] * len(row.dots), "o", color="#1f5fa8", alpha=0.35, markersize=4)
        axis.plot([found.low, found.high], [place, place], color="#1f5fa8", linewidth=2)
        axis.plot([found.value], [place], "D", color=INK, markersize=4.5)
    axis.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8.5, color=INK)
    _dress(axis, f"pass@1 less that of {table.reference}, {table.signal}")
    return svg_element(figure, f"paired differences, {table.task}, {table.signal}")


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
