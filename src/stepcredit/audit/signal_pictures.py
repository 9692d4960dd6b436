"""Pictures of what checks say of a signal: its calibration, and the chunks that read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stepcredit.audit.page_drawing import (
    MARK,
    SOFT,
    PageDrawing,
    Picture,
    draw_bar,
    panel_title,
)
from stepcredit.audit.shown_figures import shown_number
from stepcredit.evals.intervals import share_interval


def reliability_picture(title: str, bins: Sequence[Mapping[str, Any]]) -> Iterator[Picture]:
    """The share of right ones by score, with intervals, above the counts.

    Args:
        title: the series' name.
        bins: each with `low`, `high`, `steps`, `mean_score` and `right_share`, as `reliability`
            gives them.

    Yields:
        A picture; none without bins.
    """
    if not bins:
        return
    page = PageDrawing([3.0, 1.3])
    above, below = page.axes
    above.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    below.sharex(above)
    rows = []
    for each in bins:
        low, high = share_interval(round(each["right_share"] * each["steps"]), each["steps"])
        span = f"{each['low']:.1f} to {each['high']:.1f}"
        share = f"{each['right_share']:.1%}"
        limits = f"{low:.1%} to {high:.1%}"
        note = f"scores {span}: {share} right ({limits}), mean score {each['mean_score']:.3f}"
        note += f", n = {each['steps']:,}"
        x, middle = each["mean_score"], (each["low"] + each["high"]) / 2
        above.plot([x, x], [low, high], color=MARK, linewidth=2.2, gid=page.noted(note))
        above.plot([x], [each["right_share"]], "o", color=MARK, markersize=6, gid=page.noted(note))
        draw_bar(page, below, (middle, each["steps"]), 0.085, note)
        rows.append((span, shown_number(x), share, limits, f"{each['steps']:,}"))
    above.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    above.set_ylabel("share right", color=SOFT, fontsize=9)
    below.set_ylabel("count", color=SOFT, fontsize=9)
    below.set_xlabel("score", color=SOFT, fontsize=9)
    yield Picture(
        title.capitalize(),
        "A calibrated score lies on the dashed line. The intervals (Wilson, 95 %) take the "
        "responses or steps as independent, so they are a little too narrow.",
        page.element(title),
        ("score", "mean score", "share right", "95 % interval", "n"),
        tuple(rows),
    )


def chunk_sizes_picture(sizes: Mapping[str, Mapping[str, int]]) -> Iterator[Picture]:
    """How many chunks have how many tokens, by method and stream.

    Args:
        sizes: {method (stream): {tokens per chunk, rounded down to a power of 2: chunks}}.
    """
    kept = {name: {int(k): n for k, n in found.items()} for name, found in sizes.items() if found}
    if not kept:
        return
    powers = range(max(int(np.log2(max(found))) for found in kept.values()) + 1)
    page, rows = PageDrawing([1.25] * len(kept)), list[tuple[str, ...]]()
    for axis, (name, found) in zip(page.axes, kept.items(), strict=True):
        total = sum(found.values())
        for power in powers:
            count, span = found.get(2**power, 0), _span(power)
            if not count:
                continue
            note = f"{name}: {span} tokens, {count:,} chunks ({count / total:.1%})"
            draw_bar(page, axis, (power, count / total), 0.8, note)
            rows.append((name, span, f"{count:,}", f"{count / total:.1%}"))
        axis.set_xticks(list(powers), [_span(power) for power in powers], fontsize=8)
        axis.set(xlim=(-0.6, len(powers) - 0.4), ylim=(0, 1.02))
        axis.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axis.grid(axis="x", visible=False)
        panel_title(axis, name)
    yield Picture(
        "Tokens per chunk",
        "What share of a method's chunks has so many tokens.",
        page.element("tokens per chunk"),
        ("method (stream)", "tokens", "chunks", "share"),
        tuple(rows),
    )


def _span(power: int) -> str:
    low, high = 2**power, 2 ** (power + 1) - 1
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
