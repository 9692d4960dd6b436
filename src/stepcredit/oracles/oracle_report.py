"""The oracle table and the claims, as cells, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepcredit.data.files.atomic import replacing
from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError
from stepcredit.oracles.baseline_table import TurnBaselineRow
from stepcredit.oracles.claim import Claim
from stepcredit.oracles.contestants import Figure, OracleRow

COLUMNS = {
    "rmse": ("RMSE", "{:.2f}"),
    "spearman": ("Spearman", "{:.2f}"),
    "sign": ("sign", "{:.2f}"),
    "leakage": ("leakage", "{:.2f}"),
    "cosine": ("cosine", "{:.3f}"),
    "error": ("error", "{:.3f}"),
    "variance": ("variance", "{:.2f}"),
    "groups": ("groups", "{:.1f}"),
    "filler": ("filler", "{:+.3f}"),
    "stop": ("stop", "{:+.3f}"),
}
"""Figure: its heading and its format."""
TABLE_HEADINGS = ("method", "signal", *(heading for heading, _ in COLUMNS.values()))
CLAIM_HEADINGS = ("claim", "source", "verdict", "the figure that decides it")
TABLE_MARK, CLAIMS_MARK, BASELINES_MARK = "oracles", "mechanisms", "turn-baselines"
"""Names of the marks in a document: <!-- oracles: begin --> and <!-- oracles: end -->."""


def table_cells(rows: Iterable[OracleRow]) -> list[list[str]]:
    """The cells of the oracle table, one list per row."""
    return [
        [row.method, row.signal, *(shown_figure(row.figures[name], name) for name in COLUMNS)]
        for row in rows
    ]


def shown_figure(figure: Figure, name: str) -> str:
    """A figure as the table shows it, with its standard error where it has one.

    Example:
        >>> shown_figure(Figure(0.5, 0.125), "sign"), shown_figure(Figure(0.5), "filler")
        ('0.50 ± 0.125', '+0.500')
    """
    form = COLUMNS[name][1]
    shown = form.format(figure.mean)
    if float(shown) == 0:  # no minus sign before a 0
        shown = form.format(0.0)
    return f"{shown} ± {figure.standard_error:.3f}" if figure.standard_error else shown


def claim_cells(claims: Iterable[Claim]) -> list[list[str]]:
    """The cells of the table of claims, one list per row."""
    return [[claim.text, claim.source, claim.verdict, claim.figure] for claim in claims]


def baseline_headings(rows: Sequence[TurnBaselineRow]) -> list[str]:
    """The headings of the table of turn baselines, one column per turn."""
    turns = max(len(row.scales) for row in rows)
    numbered = [f"turn {number}" for number in range(1, turns + 1)]
    return ["task", "baseline", "error", "variance", *numbered]


def baseline_cells(rows: Sequence[TurnBaselineRow]) -> list[list[str]]:
    """The cells of the table of turn baselines; a dash where a turn has no exact gradient."""
    turns = max(len(row.scales) for row in rows)
    return [
        [
            row.world,
            row.baseline,
            f"{row.error:.3f}",
            f"{row.variance:.2f}",
            *("-" if scale is None else f"{scale:.3f}" for scale in row.scales),
            *["-"] * (turns - len(row.scales)),
        ]
        for row in rows
    ]


def markdown_rows(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown_rows(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    first, *others = ["| " + " | ".join(line) + " |" for line in (headings, *cells)]
    return "\n".join([first, "|" + "---|" * len(headings), *others])


def write_between_marks(path: str, blocks: Mapping[str, str]) -> None:
    """Replace what stands between marks in a document; a new file holds the marks and blocks.

    Args:
        path: the document.
        blocks: {mark: text}; the marks are <!-- MARK: begin --> and <!-- MARK: end -->.

    Raises:
        FileError: the document lacks a mark, or can't be read or written.
    """
    text = _document(path, blocks)
    for mark, block in blocks.items():
        begin, end = _marks(mark)
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
            raise FileError(f"{path}: expected {begin} and {end}, once each and in this order")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{block}\n{end}{after}"
    with replacing(path) as out:
        out.write(text.encode())


def _document(path: str, blocks: Mapping[str, str]) -> str:
    with file_errors(path):
        if Path(path).is_file():
            return Path(path).read_text(encoding="utf-8")
    return "\n".join("\n".join(_marks(mark)) + "\n" for mark in blocks)


def _marks(mark: str) -> tuple[str, str]:
    return f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"


def as_plain_values(
    rows: Iterable[OracleRow],
    claims: Iterable[Claim],
    baselines: Iterable[TurnBaselineRow] = (),
) -> dict[str, Any]:
    """The tables as values that JSON has; an infinite figure is None."""
    return {
        "rows": [
            {
                "method": row.method,
                "signal": row.signal,
                "figures": {name: _plain(figure) for name, figure in row.figures.items()},
            }
            for row in rows
        ],
        "claims": [
            asdict(claim) | {"values": [_finite(value) for value in claim.values]}
            for claim in claims
        ],
        "turn_baselines": [asdict(row) for row in baselines],
    }


def _plain(figure: Figure) -> dict[str, float | None]:
    return {"mean": _finite(figure.mean), "standard_error": figure.standard_error}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
