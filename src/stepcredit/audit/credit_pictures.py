"""Pictures of what methods pay for: streams, one more step, kinds of steps, edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stepcredit.audit.attack.attack_report import AT_THE_EDIT
from stepcredit.audit.page_drawing import (
    PANEL_HEIGHT,
    ROW_HEIGHT,
    IntervalMark,
    PageDrawing,
    Picture,
    colours_of,
    grouped_intervals,
    row_labels_of,
)
from stepcredit.audit.shown_figures import shown_interval

LEVELS = ("worst", "typical", "best")
"""Scores that one more step is given."""
MOST_ROWS = 60
"""Rows of a picture; the table below it has all."""


def shares_picture(shares: Mapping[str, Mapping[str, float]]) -> Iterator[Picture]:
    """Each stream's share of the advantages' variance: pooled, standardized apart, by method.

    Args:
        shares: {how or method: {stream: share}}.
    """
    kept = {name: parts for name, parts in shares.items() if parts}
    if not kept:
        return
    colours = colours_of([stream for parts in kept.values() for stream in parts])
    page, rows = PageDrawing([PANEL_HEIGHT + 1.3 * ROW_HEIGHT * len(kept)]), []
    axis = page.axes[0]
    for at, (name, parts) in enumerate(kept.items()):
        start = 0.0
        for stream, share in parts.items():
            note = f"{name}: {stream} makes {share:.1%} of the variance"
            [bar] = axis.barh([at], [share], 0.66, start, color=colours[stream], linewidth=0)
            bar.set_gid(page.noted(note))
            start += share
            rows.append((name, stream, f"{share:.1%}"))
    row_labels_of(axis, list(kept))
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    page.legend(colours)
    yield Picture(
        "Share of the advantages' variance by stream",
        "“Together” standardizes the sum of the streams, “apart” each stream before they are added "
        "(as PASS does); the other rows are the methods that are compared.",
        page.element("share of the advantages' variance by stream"),
        ("how", "stream", "share"),
        tuple(rows),
    )


def one_more_step_picture(changes: Mapping[str, Mapping[str, Any]]) -> Iterator[Picture]:
    """What one more step changes in the responses' advantages, by method, k and its score.

    Args:
        changes: {method: {"worst", "typical" or "best": one change per response}}.
    """
    kept = {name: found for name, found in changes.items() if any(map(len, found.values()))}
    if not kept:
        return
    marks, rows = list[IntervalMark](), list[tuple[str, ...]]()
    for name, levels in kept.items():
        for level in LEVELS:
            found = np.array([x for x in levels.get(level, ()) if x is not None])
            if not found.size:
                continue
            low, middle, high = np.quantile(found, [0.1, 0.5, 0.9])
            rises = float((found > 0).mean())
            note = f"{name}, one more step of the {level} score: the advantage changes by "
            note += f"{middle:+.3g} in the middle response, by {low:+.3g} to {high:+.3g} in 8 of 10"
            note += f"; it rises in {rises:.0%} of {found.size:,}"
            marks.append(IntervalMark(name, f"{level} score", middle, low, high, note))
            cells = [f"{x:+.3g}" for x in (low, middle, high)]
            rows.append((name, level, *cells, f"{rises:.0%}", f"{found.size:,}"))
    drawn = marks[: 3 * MOST_ROWS]
    page = grouped_intervals(drawn, "change of a response's advantage")
    yield Picture(
        "What one more step changes, by method and k",
        "A dot is the median over responses, a line holds 8 of 10 responses. To the right of 0 "
        "one more step pays, so the policy learns to write more; to the left, to stop early.",
        page.element("what one more step changes"),
        ("method", "score of the step", "10 %", "median", "90 %", "it rises in", "responses"),
        tuple(rows),
    )


def payment_picture(payment: Sequence[Mapping[str, Any]]) -> Iterator[Picture]:
    """What each method pays for each kind of step, with intervals.

    Args:
        payment: each with `method`, `kind`, `value`, `low`, `high` and `count`.
    """
    known = [each for each in payment if each["value"] is not None]
    kinds = list(dict.fromkeys(each["kind"] for each in known))
    if not known:
        return
    marks, rows = list[IntervalMark](), list[tuple[str, ...]]()
    for each in sorted(known, key=lambda each: kinds.index(each["kind"])):
        value, low, high = each["value"], each["low"], each["high"]
        number = shown_interval(value, low, high)
        note = f"{each['method']}, {each['kind']} steps: {number}, n = {each['count']:,} steps"
        row = f"{each['kind']} steps"
        marks.append(IntervalMark(row, each["method"], value, low, high, note))
        rows.append((row, each["method"], number, f"{each['count']:,}"))
    page = grouped_intervals(marks, "mean advantage")
    yield Picture(
        "Payment by kind of step",
        "Mean advantage of each kind of step and its 95 % interval over groups. Steps that add "
        "nothing (filler, repeated) should not lie to the right of right ones.",
        page.element("payment by kind of step"),
        ("kind", "method", "mean advantage (95 % interval)", "steps"),
        tuple(rows),
    )


def earnings_picture(earnings: Sequence[Mapping[str, Any]]) -> Iterator[Picture]:
    """What each edit earns at the edit under each method, with intervals.

    Args:
        earnings: of each edit, as `EditRow.as_json` gives it.
    """
    marks, rows = list[IntervalMark](), list[tuple[str, ...]]()
    for each in earnings:
        for method, changes in each["advantages"].items():
            for figure, change in changes.items():
                if figure == "verdict" or change is None:
                    continue
                mean, low, high = change["mean"], change["low"], change["high"]
                number = shown_interval(mean, low, high)
                rows.append((each["edit"], method, figure, number, changes["verdict"]))
                if figure == AT_THE_EDIT:
                    note = f"{each['edit']}, {method}: {number}, {changes['verdict']}, "
                    note += f"n = {change['responses']:,} responses in {change['groups']:,} groups"
                    marks.append(IntervalMark(each["edit"], method, mean, low, high, note))
    if marks:
        yield Picture(
            "Advantage at the edit",
            "Change of the mean advantage where the edit stands, with its 95 % interval over "
            "groups. Right of 0 the edit is paid.",
            grouped_intervals(marks, "change of the advantage").element("advantage at the edit"),
            ("edit", "method", "figure", "change (95 % interval)", "verdict"),
            tuple(rows),
        )
