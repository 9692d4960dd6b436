"""How time and memory grow with a batch: four times the tokens take at most 4.5 times as much.

    python benchmarks/growth.py            tables
    python benchmarks/growth.py --check    the same; exit status 1 where a ratio is above the bar
    python benchmarks/growth.py --json     one JSON object

Memory is judged from the smallest batch to the largest, 16 times the tokens: at most 4.5 x 4.5. The
step in which a batch first needs two blocks is larger, because the blocks' results are joined.

Each path runs at 1, 4 and 16 times the tokens: more responses, in groups of several sizes, or
longer responses. Times are the CPU times of `interleaved.py`. A path whose time is above the bar
runs again, twice at most: minima over all rounds count, for a moment in which the machine is busy
can spoil all rounds of one scale. Memory is what resident memory rises by at most, output included,
in a second process whose freed memory goes back to the system.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import prod
from typing import Any

import contenders as c
from batches import Batch
from interleaved import GIVE_BACK, KEEP_MAPPED, can_measure_memory, peak_of, race, restart_under

ROWS, WIDTH = 512, 512
SMOKE_ROWS, SMOKE_WIDTH = 16, 32
SCALES = (1, 4, 16)
MOST = 4.5
"""The largest ratio per four times the tokens."""
SIZES = ("8 per group", "64 per group", "512 per group", "one group", "groups of one")
LONGER = "8 per group, longer responses"
RACES = 6
"""Races of a path whose time stays above the bar."""
LEAST_MB = 4.0
"""A smaller rise counts as this one: the allocator's own pages are of that size."""
PATHS = tuple(
    name
    for name in c.NAMES
    if name not in (c.COPY, c.READ_STEPS, c.READ_TOKENS, c.VECTORIZED, c.VERL_GRPO, c.VERL_GAE)
)
Figures = dict[str, dict[str, list[float]]]
"""{shape of the batch: {path: one figure per scale}}."""


def batch_of(shape: str, scale: int, *, smoke: bool) -> Batch:
    """A batch with `scale` times the tokens."""
    rows, width = (SMOKE_ROWS, SMOKE_WIDTH) if smoke else (ROWS, WIDTH)
    if shape == LONGER:
        return Batch(rows, width * scale)
    rows *= scale
    sizes = {"one group": rows, "groups of one": 1}
    return Batch(rows, width, sizes.get(shape) or int(shape.split()[0]))


def runs_of(shape: str, scale: int, *, smoke: bool) -> c.Contenders:
    """The paths on one batch."""
    batch = batch_of(shape, scale, smoke=smoke)
    runs = c.core(batch) | c.engines(batch) | c.metrics(batch)
    return {name: runs[name] for name in PATHS if name in runs}


def shapes(*, smoke: bool) -> tuple[str, ...]:
    """The shapes of the batches."""
    return (SIZES[0], LONGER) if smoke else (*SIZES, LONGER)


def times(rounds: int, *, smoke: bool) -> Figures:
    """Milliseconds; the scales of a path take turns."""
    found: Figures = {}
    for shape in shapes(smoke=smoke):
        runs = {scale: runs_of(shape, scale, smoke=smoke) for scale in SCALES}
        found[shape] = {
            name: least_times(
                {str(s): runs[s][name] for s in SCALES}, rounds, 1 if smoke else RACES
            )
            for name in runs[1]
        }
    return found


def least_times(scales: c.Contenders, rounds: int, races: int) -> list[float]:
    """The minima of a path at its scales; above the bar it races again, `races` times in all."""
    least = [float("inf")] * len(scales)
    for _ in range(races):
        least = [*map(min, least, (each.least for each in race(scales, rounds).values()))]
        if judged("ms", least) <= MOST:
            break
    return least


def memory(*, smoke: bool) -> Figures:
    """Megabytes, at least `LEAST_MB`: the least of three runs, after one that does not count."""
    found: Figures = {}
    for shape in shapes(smoke=smoke):
        by_path: dict[str, list[float]] = {}
        for scale in SCALES:
            runs = runs_of(shape, scale, smoke=smoke)
            for run in runs.values():
                run()
            gc.freeze()  # `peak_of` then searches what the runs leave, not every module
            for name, run in runs.items():
                least = min(peak_of(run)[0] for _ in range(3)) / 2**20
                by_path.setdefault(name, []).append(max(LEAST_MB, least))
        found[shape] = by_path
    return found


def memory_in_own_process(*, smoke: bool) -> Figures:
    """`memory` in a process under `GIVE_BACK`; nothing off Linux."""
    if not can_measure_memory():
        return {}
    command = [sys.executable, __file__, "--memory", *(["--smoke"] if smoke else [])]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(command, env=env | GIVE_BACK, check=True, capture_output=True)
    found: Figures = json.loads(run.stdout)
    return found


def ratios(figures: list[float]) -> list[float]:
    """The growth per four times the tokens."""
    return [many / few for few, many in pairwise(figures)]


def judged(unit: str, figures: list[float]) -> float:
    """The growth that is held against the bar: of time the largest step, of memory the mean one."""
    steps = ratios(figures)
    return max(steps) if unit == "ms" else prod(steps) ** (1 / len(steps))


def missed(found: Mapping[str, Figures]) -> Iterator[str]:
    """The figures that grow by more than `MOST` per four times the tokens, one line each."""
    for unit, by_shape in found.items():
        for shape, by_path in by_shape.items():
            for path, figures in by_path.items():
                if judged(unit, figures) > MOST:
                    yield f"{path}, {shape}: {unit} {', '.join(f'{each:.3g}' for each in figures)}"


def report(found: Mapping[str, Figures]) -> None:
    """One table per shape: each path's time and memory at every scale, and the ratios."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130, highlight=False)
    for shape in found["ms"]:
        table = Table(title=shape, title_justify="left")
        table.add_column("")
        for unit in found:
            for heading in (f"{unit}, 1×", "4×", "16×", "ratio", "ratio"):
                table.add_column(heading, justify="right")
        for path in found["ms"][shape]:
            table.add_row(path, *cells(found, shape, path))
        console.print(table)


def cells(found: Mapping[str, Figures], shape: str, path: str) -> Iterator[str]:
    """The figures of a path, then their ratios, for time and for memory."""
    for by_shape in found.values():
        figures: Any = by_shape[shape][path]
        yield from (f"{value:.3g}" for value in figures)
        yield from (f"{ratio:.2f}" for ratio in ratios(figures))


def main() -> None:
    """Start anew under `KEEP_MAPPED`, measure, report, check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 where a bar is missed")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--smoke", action="store_true", help="tiny batches, which try the script")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory(smoke=options.smoke)))
        return
    restart_under(KEEP_MAPPED)
    found = {"ms": times(options.rounds, smoke=options.smoke)}
    found |= {"MB": held} if (held := memory_in_own_process(smoke=options.smoke)) else {}
    lines = list(missed(found))
    if options.json:
        print(json.dumps(found | {"most": MOST, "missed": lines}))
    else:
        report(found)
        print("\n".join(lines) or f"no ratio is above {MOST}")
    if options.check and lines:
        raise SystemExit(f"{len(lines)} figures grow by more than {MOST} per 4 x the tokens")


if __name__ == "__main__":
    main()
