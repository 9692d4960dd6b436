"""Draws `curves.png`: the evaluations of each method per update, with intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from stepcredit.lab.evaluate import by_split

PANELS = (
    ("pass_at_1", "pass@1"),
    ("length", "tokens per answer"),
    ("fillers", "filler lines per answer"),
    ("step_accuracy", "step accuracy"),
)
TURNS = ("turns", "turns per answer")
"""The panel of tasks with tools."""
COLOURS = ("#1f5fa8", "#d1662a", "#3f8f4f", "#7d4fa3")
INK, GRID = "#333333", "#e6e6e6"


def plot_curves(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the evaluations of a run.

    Args:
        rows: rows of metrics; those with an `evaluation` are drawn, from update 0 for each method.
        path: the PNG file to write.
        title: text above the panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = evaluations(rows)
    panels = panels_of(next(row["evaluation"] for row in rows if "evaluation" in row))
    across = max(2, -(-len(panels) // 2))
    figure = Figure(figsize=(5 * across, 6.4), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, across).flatten()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (split, field, name) in zip(axes, panels, strict=False):
        for (label, points), colour in zip(curves.items(), COLOURS, strict=False):
            own = [(update, by_split(found)[split]) for update, found in points]
            _draw(axis, label, own, field, colour)
        _dress(axis, name)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, weight="bold")
    figure.savefig(path)


def panels_of(evaluation: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(split, figure, heading) of each panel: pass@1 on every split, the others on the first.

    Example:
        >>> panels_of({"2 hops": {}, "3 hops": {}})[1]
        ('3 hops', 'pass_at_1', 'pass@1, 3 hops')
    """
    splits = by_split(evaluation)
    first, *others = splits
    (passed, heading), *rest = (*PANELS, *[TURNS] * ("turns" in splits[first]))
    panels = [(split, passed, heading) for split in (first, *others)]
    panels += [(first, field, name) for field, name in rest]
    return [(split, field, f"{name}, {split}" if split else name) for split, field, name in panels]


def evaluations(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Each method's (update, evaluation) pairs; the first pair is always the warm start's."""
    start = [(0, row["evaluation"]) for row in rows if row["update"] == 0]
    curves: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for row in rows:
        if row["update"] > 0 and "evaluation" in row:
            points = curves.setdefault(row["method"], list(start))
            points.append((row["update"], row["evaluation"]))
    return curves


def _draw(
    axis: Any, label: str, points: list[tuple[int, dict[str, Any]]], field: str, colour: str
) -> None:
    updates = [update for update, _ in points]
    figures = [evaluation[field] for _, evaluation in points]
    means = [figure["mean"] for figure in figures]
    low = [_finite(figure["low"], figure["mean"]) for figure in figures]
    high = [_finite(figure["high"], figure["mean"]) for figure in figures]
    axis.fill_between(updates, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(updates, means, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)
    axis.axhline(means[0], color="#888888", linewidth=0.9, linestyle=(0, (4, 3)))


def _finite(value: float | None, otherwise: float) -> float:
    return value if value is not None and math.isfinite(value) else otherwise


def _dress(axis: Any, name: str) -> None:
    axis.set_title(name, loc="left", fontsize=10, color=INK)
    axis.set_xlabel("update", fontsize=9, color=INK)
    axis.tick_params(labelsize=8, colors=INK, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.02)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
