"""Pictures of a run's figures over its steps, with intervals, and the same numbers as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from stepcredit.audit.finding import AuditFigure
from stepcredit.audit.logged_step import StepName
from stepcredit.audit.page_drawing import (
    SOFT,
    PageDrawing,
    Picture,
    colours_of,
    panel_title,
)
from stepcredit.audit.run_curves import Curve, spread_steps
from stepcredit.audit.shown_figures import shown_interval, visible_text

STEPS_DRAWN, STEPS_IN_TABLE = 40, 8
"""Steps of each policy in a picture and in its table; the JSON has all of them."""
PANEL_INCHES = 1.55
WIDEST = 4.0
"""Median half-widths that an interval may reach beyond all values before the picture cuts it."""
APART = 0.012
"""How far the marks of two lines at one step stand from each other, as a part of the axis."""


def curve_pictures(curves: Sequence[Curve]) -> list[Picture]:
    """A picture per figure: a panel per policy, a line per method and stream.

    Args:
        curves: that have a worse direction.

    Returns:
        The pictures in the order of the figures; a figure that is known in one step alone, or that
        `is_still`, has none.

    Example:
        >>> curve_pictures([])
        []
    """
    figures: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        if curve.worse and curve.known:
            figures.setdefault((curve.check, curve.name), []).append(curve)
    drawn = (own for own in figures.values() if any(len(curve.known) > 1 for curve in own))
    return [_picture(own) for own in drawn if not is_still(own)]


def is_still(curves: Sequence[Curve]) -> bool:
    """Whether a figure has one and the same value in all steps, without an interval.

    Args:
        curves: of the figure.
    """
    found = [figure for curve in curves for figure in curve.known.values()]
    return len({f.value for f in found}) < 2 and all(f.low is None for f in found)


def _picture(curves: Sequence[Curve]) -> Picture:
    """One figure: its curves for all policies, methods and streams."""
    name = visible_text(curves[0].name)
    title = name[:1].upper() + name[1:]
    policies = list(dict.fromkeys(curve.policy for curve in curves))
    colours = colours_of([_whose(curve) for curve in curves])
    page = PageDrawing([PANEL_INCHES] * len(policies))
    for axis, policy in zip(page.axes, policies, strict=True):
        own = [curve for curve in curves if curve.policy == policy]
        _draw_panel(page, axis, own, colours)
        if policy:
            panel_title(axis, f"trained with {policy}")
    page.axes[-1].set_xlabel("step", color=SOFT, fontsize=9)
    page.legend(colours)
    worse = f"{curves[0].worse.capitalize()} is worse."
    return Picture(title, worse, page.element(title), *_table(curves, policies))


def _whose(curve: Curve) -> str:
    return visible_text(", ".join(x for x in (curve.method, curve.stream) if x)) or "all"


def _draw_panel(
    page: PageDrawing, axis: Any, curves: Sequence[Curve], colours: Mapping[str, str]
) -> None:
    numbers = [_place(step) for curve in curves for step in curve.known]
    width = max(max(numbers) - min(numbers), 1.0)
    places = list(colours)
    for curve in curves:
        colour, at = colours[_whose(curve)], places.index(_whose(curve))
        shift = (at - (len(places) - 1) / 2) * APART * width
        known = curve.known
        shown = {step: known[step] for step in spread_steps(list(known), STEPS_DRAWN)}
        x = [_place(step) + shift for step in shown]
        axis.plot(x, [f.value for f in shown.values()], color=colour, linewidth=1.2, alpha=0.7)
        for place, (step, figure) in zip(x, shown.items(), strict=True):
            _draw_point(page, axis, place, figure, colour, f"step {step}, {_whose(curve)}")
    axis.grid(axis="y", color=SOFT, linewidth=0.4, alpha=0.5)
    axis.grid(axis="x", visible=False)
    axis.locator_params(axis="x", nbins=7, integer=True)
    axis.locator_params(axis="y", nbins=5)
    axis.set_ylim(*axis_limits([f for curve in curves for f in curve.known.values()]))
    low, high = axis.get_ylim()
    if low < 0 < high:
        axis.axhline(0, color=SOFT, linewidth=0.9)


def axis_limits(figures: Sequence[AuditFigure]) -> tuple[float, float]:
    """Where an axis ends: at the intervals, but a very wide one goes on beyond the edge.

        from  max(lowest end, lowest value - 4 m)  to  min(highest end, highest value + 4 m)

    m is the median distance from a value to an end of its interval, so one wide interval does not
    press all curves flat.

    Args:
        figures: at least one.

    Returns:
        The lower and the upper limit, with a margin.

    Example:
        >>> def figure(value, low, high):
        ...     return AuditFigure("-", value, 9, "-", low=low, high=high)
        >>> usual = [figure(x, x - 1, x + 1) for x in (0.0, 1.0, 2.0)]
        >>> [round(x, 2) for x in axis_limits(usual)]
        [-1.2, 3.2]
        >>> [round(x, 2) for x in axis_limits([*usual, figure(1.0, -99.0, 101.0)])]
        [-4.5, 6.5]
    """
    ends = [_interval(figure) for figure in figures]
    values = [value for _, value, _ in ends]
    usual = median(high - low for low, _, high in ends) / 2
    lowest = max(min(low for low, _, _ in ends), min(values) - WIDEST * usual)
    highest = min(max(high for _, _, high in ends), max(values) + WIDEST * usual)
    margin = (highest - lowest) * 0.05 or max(abs(highest), 1.0) * 0.05
    return lowest - margin, highest + margin


def _interval(figure: AuditFigure) -> tuple[float, float, float]:
    """The lower end, the value and the upper end; without an interval the value for all three."""
    assert figure.value is not None
    low = figure.value if figure.low is None else figure.low
    return low, figure.value, figure.value if figure.high is None else figure.high


def _place(step: StepName) -> float:
    """Where a step stands on the axis: the generations of one step are close to each other."""
    return step.number + step.part / 10


def _draw_point(
    page: PageDrawing, axis: Any, x: float, figure: AuditFigure, colour: str, what: str
) -> None:
    number = shown_interval(figure.value, figure.low, figure.high)
    gid = page.noted(f"{what}: {number}, n = {figure.count:,} {figure.of}")
    style = {"color": colour, "linewidth": 1.8, "marker": "o", "markersize": 4.5, "gid": gid}
    if figure.low is None or figure.high is None:
        axis.plot([x], [figure.value], **style)
    else:
        axis.plot([x, x, x], [figure.low, figure.value, figure.high], markevery=[1], **style)


def _table(
    curves: Sequence[Curve], policies: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headings and rows: whose the figure is, its worst step, and its value in some steps."""
    steps = sorted({(step.number, step.part) for curve in curves for step in curve.known})
    shown = spread_steps([StepName(*step) for step in steps], STEPS_IN_TABLE)
    trained = ("trained with",) if any(policies) else ()
    headings = ("whose", *trained, "worst", *(f"step {step.label}" for step in shown))
    rows = []
    for curve in curves:
        known, worst = curve.known, curve.worst
        cells = [known.get(StepName(step.number, step.part, curve.policy)) for step in shown]
        policy = (visible_text(curve.policy),) if trained else ()
        at_worst = "" if worst is None else f"{_number(known[worst])}, step {worst.label}"
        rows.append((_whose(curve), *policy, at_worst, *map(_number, cells)))
    return headings, tuple(rows)


def _number(figure: AuditFigure | None) -> str:
    """A figure with its interval; a dash where a step does not have it."""
    return "–" if figure is None else shown_interval(figure.value, figure.low, figure.high)
