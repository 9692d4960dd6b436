"""The figures of `shaping.py` as tables, as JSON, and as the table of documents."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import contenders as c
from interleaved import Times
from speed_bars import MAIN, AllTimes, Ratio, shown

HEADINGS = ("1024 × 4096 tokens", "CPU ms", "× copy")
MARKS = "<!-- speed: begin -->", "<!-- speed: end -->"
"""They stand around the table in documents."""


def report(times: AllTimes, ratios: Sequence[Ratio]) -> None:
    """Two tables: milliseconds of all sizes, and the ratios with their bars."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150, highlight=False)
    for size, at in times.items():
        speed = Table(title=f"{shown(size)}, milliseconds", title_justify="left")
        speed.add_column("")
        for heading in ("CPU, minimum", "lower quartile above it", "wall, minimum", "× copy"):
            speed.add_column(heading, justify="right")
        for name, found in at.items():
            speed.add_row(name, *cells(found), f"{found.least / at[c.COPY].least:.2f}")
        console.print(speed)
    bars = Table(title="figures that have a bar", title_justify="left")
    for heading in ("", "measured", "at most", ""):
        bars.add_column(heading, justify="right" if heading else "left")
    for ratio in ratios:
        met = "met" if ratio.is_met else "MISSED"
        bars.add_row(ratio.name, f"{ratio.value:.3f}", f"{ratio.most:.4g}", met)
    console.print(bars)


def cells(found: Times) -> tuple[str, str, str]:
    """CPU time, spread and wall time of a contender."""
    return f"{min(found.cpu):.2f}", f"{found.spread:.0%}", f"{min(found.wall):.2f}"


def markdown(times: AllTimes, memory: Sequence[Ratio]) -> str:
    """The table of documents: every contender, those that could not be run with a dash."""
    at = times.get(MAIN, {})
    rows = [HEADINGS, ("---", "---:", "---:"), *(markdown_row(name, at) for name in c.NAMES)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", f"CPU time of one thread, minima of interleaved rounds; {versions()}."]
    lines += [f"{sentence(each.name)}: {each.value:.2f}." for each in memory]
    return "\n".join(lines)


def sentence(name: str) -> str:
    """The name with a capital letter."""
    return name[0].upper() + name[1:]


def markdown_row(name: str, at: Mapping[str, Times]) -> tuple[str, str, str]:
    """Name, milliseconds and copies of a contender."""
    if name not in at:
        return name, "–", "–"
    return name, f"{at[name].least:.3g}", f"{at[name].least / at[c.COPY].least:.3g}"


def versions() -> str:
    """The versions of torch, and of verl where it is installed."""
    return ", ".join(f"{name} {has}" for name in ("torch", "verl") if (has := installed(name)))


def installed(name: str) -> str | None:
    """The version of a package; None: it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write(path: Path, table: str) -> None:
    """Replace what stands between the marks in a document."""
    text, (begin, end) = path.read_text(), MARKS
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{path}: expected {begin} and {end} once each")
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    path.write_text(between.sub(lambda _: f"{begin}\n{table}\n{end}", text))


def as_json(times: AllTimes, ratios: Sequence[Ratio]) -> str:
    """All figures, the ratios first."""
    milliseconds = {
        f"{rows}x{width}": {
            name: {"cpu": min(t.cpu), "spread": t.spread, "wall": min(t.wall)}
            for name, t in times[rows, width].items()
        }
        for rows, width in times
    }
    measured = {ratio.name: {"value": ratio.value, "most": ratio.most} for ratio in ratios}
    return json.dumps({"ratios": measured, "milliseconds": milliseconds})
