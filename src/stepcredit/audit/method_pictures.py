"""Pictures of methods beside each other, and beside the advantages that a file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stepcredit.audit.page_drawing import (
    INK,
    SERIES_COLOURS,
    IntervalMark,
    PageDrawing,
    Picture,
    draw_bar,
    grouped_intervals,
    panel_title,
    row_labels_of,
)
from stepcredit.audit.shown_figures import shown_number

BINS_OF_FILE = 40
"""Parts of the file in which differing rows are counted."""
AGREEMENTS = {
    "rank_correlation": "rank correlation of the responses' mean advantages",
    "same_sign": "share of tokens whose advantages have the same sign",
    "cosine": "cosine of the advantages",
}


def agreement_picture(
    name: str, matrix: Sequence[Sequence[float | None]], methods: Sequence[str]
) -> Iterator[Picture]:
    """A measure of agreement of every pair of methods.

    Args:
        name: one of `AGREEMENTS`.
        matrix: one number per pair; None where it has none.
        methods: their names.
    """
    title = AGREEMENTS[name]
    page, rows = PageDrawing([0.8 + 0.34 * len(methods)]), list[tuple[str, ...]]()
    axis = page.axes[0]
    for down, values in enumerate(matrix):
        for across, value in enumerate(values):
            note = f"{methods[down]} and {methods[across]}: {shown_number(value)}"
            _cell(page, axis, (across, down), value, note)
        rows.append((methods[down], *map(shown_number, values)))
    row_labels_of(axis, [f"{at + 1}  {method}" for at, method in enumerate(methods)])
    axis.set_xticks(range(len(methods)), [str(at + 1) for at in range(len(methods))])
    axis.set_xlim(-0.5, len(methods) - 0.5)
    axis.grid(visible=False)
    yield Picture(
        title.capitalize(),
        "Each method is numbered; a cell is what two of them have in common.",
        page.element(title),
        ("method", *methods),
        tuple(rows),
    )


def _cell(
    page: PageDrawing, axis: Any, place: tuple[int, int], value: float | None, note: str
) -> None:
    """A square whose colour is as strong as its number."""
    from matplotlib.patches import Rectangle

    size, colour = abs(value or 0.0), SERIES_COLOURS[0 if (value or 0.0) >= 0 else 1]
    corner = place[0] - 0.48, place[1] - 0.47
    square = Rectangle(corner, 0.96, 0.94, color=colour, alpha=0.45 * min(size, 1.0), linewidth=0)
    square.set_gid(page.noted(note))
    axis.add_patch(square)
    text = "–" if value is None else f"{value:.2f}"
    axis.text(*place, text, ha="center", va="center", fontsize=9, color=INK)


def apart_picture(apart: Sequence[Mapping[str, Any]], pair: Sequence[str]) -> Iterator[Picture]:
    """The mean advantages of the responses on which two methods differ most.

    Args:
        apart: each with `row` and the mean advantages under both methods.
        pair: the methods.
    """
    marks, rows = list[IntervalMark](), list[tuple[str, ...]]()
    for each in apart:
        label = f"response {each['row'] + 1}"
        for method, mean in zip(pair, each["mean_advantages"], strict=True):
            if mean is not None:
                note = f"{label}, {method}: mean advantage {shown_number(mean)}"
                marks.append(IntervalMark(label, method, mean, None, None, note))
        rows.append((label, *map(shown_number, each["mean_advantages"])))
    if marks:
        yield Picture(
            f"Responses on which {' and '.join(pair)} differ most",
            "A dot is a response's mean advantage under a method.",
            grouped_intervals(marks, "mean advantage").element(
                "responses that methods rank differently"
            ),
            ("response", *pair),
            tuple(rows),
        )


def differing_rows_picture(rows: Mapping[str, Sequence[int]], responses: int) -> Iterator[Picture]:
    """Where in the file the stored advantages are not a method's.

    Args:
        rows: {method: numbers of the rows that differ}.
        responses: how many the file has.
    """
    if not rows:
        return
    bins = min(BINS_OF_FILE, responses)
    edges = np.linspace(0, responses, bins + 1).round().astype(int)
    page, table = PageDrawing([0.95] * len(rows)), list[tuple[str, ...]]()
    for axis, (method, differing) in zip(page.axes, rows.items(), strict=True):
        counts, _ = np.histogram(differing, edges)
        for first, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
            if count:
                note = f"{method}: {count} of the responses {first + 1} to {end} differ"
                place = (first + end) / 2, count / (end - first)
                draw_bar(page, axis, place, 0.9 * (end - first), note)
        axis.set(xlim=(0, responses), ylim=(0, 1.02))
        axis.set_yticks([0, 1], ["0", "100 %"])
        panel_title(axis, f"{method}: {len(differing):,} of {responses:,} differ")
        table.append((method, f"{len(differing):,}", f"{len(differing) / responses:.1%}"))
    yield Picture(
        "Where the stored advantages are not the method's",
        "The share of responses that differ, from the beginning of the file to its end.",
        page.element("where the stored advantages differ"),
        ("method", "responses that differ", "share"),
        tuple(table),
    )
