"""Throughput and memory of `stepcredit shape` on files; a table, or `--json`.

Each figure is a fresh process that shapes a generated file with PASS, start-up included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

GROUP = 8
TOKENS_A_STEP = 8
CHILD = """
import json, resource, sys, time
from stepcredit.cli import app
start = time.perf_counter()
code = app(sys.argv[1:], standalone_mode=False)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {"seconds": seconds, "cpu_seconds": time.process_time(), "peak_mb": peak / 1024}
print(json.dumps({"code": code or 0, **found}))
"""


@dataclass
class Figure:
    """One run: what was shaped, how fast (by the clock, and by the CPU), and the peak memory."""

    signal: str
    order: str
    tokens: int
    rollouts: int
    rollouts_a_second: float
    rollouts_a_cpu_second: float
    peak_mb: float


def rows(count: int, tokens: int, signal: str, order: str) -> Iterator[dict[str, Any]]:
    """Generated rows, a group's together or spread over the file."""
    rng = np.random.default_rng(0)
    ends = [*range(TOKENS_A_STEP - 1, tokens - 1, TOKENS_A_STEP), tokens - 1]
    groups = max(1, count // GROUP)
    for i in range(count):
        row: dict[str, Any] = {
            "group": f"prompt-{i // GROUP if order == 'contiguous' else i % groups}"
        }
        if signal == "steps":
            row |= {"step_ends": ends, "step_scores": rng.random(len(ends)).round(4).tolist()}
        else:
            row |= {"token_scores": rng.normal(size=tokens).round(4).tolist()}
        yield row | {"outcome": float(i % 3 == 0), "format": 1.0, "text": "a step of text " * 4}


def measured(count: int, tokens: int, signal: str, order: str) -> Figure:
    """Shape such a file in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.jsonl"
        with source.open("w") as out:
            for row in rows(count, tokens, signal, order):
                out.write(json.dumps(row) + "\n")
        arguments = ["shape", str(source), "-o", str(Path(folder) / "out.jsonl")]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *arguments],
            check=True,
            capture_output=True,
        )
    found = json.loads(done.stdout)
    if found["code"] != 0:
        raise RuntimeError(f"shape ended with {found['code']}: {done.stderr.decode()}")
    rates = (count / found["seconds"], count / found["cpu_seconds"])
    return Figure(signal, order, tokens, count, *rates, found["peak_mb"])


def main() -> None:
    """Measure every case; `--million` adds the file of a million rollouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument(
        "--rollouts", type=int, default=100_000, help="number of rollouts of 30 tokens per file"
    )
    parser.add_argument("--million", action="store_true", help="also a file of 1,000,000 rollouts")
    chosen = parser.parse_args()
    cases = [
        (max(GROUP, chosen.rollouts // share), tokens, signal, order)
        for signal in ("steps", "tokens")
        for tokens, share in ((30, 1), (500, 5))
        for order in ("contiguous", "interleaved")
    ]
    if chosen.million:
        cases += [(1_000_000, 30, "steps", order) for order in ("contiguous", "interleaved")]
    start = time.perf_counter()
    figures = []
    for case in cases:
        figures.append(measured(*case))
        if not chosen.json:
            show(figures[-1], first=len(figures) == 1)
    if chosen.json:
        print(json.dumps({"files": [asdict(figure) for figure in figures]}))
    else:
        print(f"{time.perf_counter() - start:.0f} s in all, start-up included")


def show(figure: Figure, *, first: bool) -> None:
    """One line of the table, below its headings."""
    row = (figure.signal, figure.order, figure.tokens, f"{figure.rollouts:,}")
    speeds = (f"{figure.rollouts_a_second:,.0f}", f"{figure.rollouts_a_cpu_second:,.0f}")
    headings = ("signal", "order", "tokens", "rollouts", "rollouts/s", "/CPU s", "peak MB")
    for cells in [headings] * first + [(*row, *speeds, f"{figure.peak_mb:.0f}")]:
        print("{:8}{:12}{:>7}{:>11}{:>12}{:>9}{:>9}".format(*cells), flush=True)


if __name__ == "__main__":
    main()
