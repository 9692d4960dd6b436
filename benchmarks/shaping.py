"""What shaping costs: our paths from a trainer's data to advantages, a copy, and verl's functions.

    python benchmarks/shaping.py                     tables
    python benchmarks/shaping.py --check             the same; exit status 1 where a bar is missed
    python benchmarks/shaping.py --json              one JSON object, the ratios first
    python benchmarks/shaping.py --markdown          the table of the README
    python benchmarks/shaping.py --write README.md   the table between the marks in these files
    python benchmarks/shaping.py --device cuda       on a GPU: what makes sense there

All contenders take turns in one process, on the same inputs; `interleaved.py` says what the figures
are. The process starts itself anew with one thread and malloc settings that keep large temporaries
mapped. verl's functions run where verl is installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import contenders as c
import stepcredit as sc
from batches import Batch
from interleaved import KEEP_MAPPED, Times, can_measure_memory, peak_of, race, restart_under
from speed_bars import (
    GPU_LARGE,
    LARGE,
    MAIN,
    MEMORY,
    MOST_MEMORY,
    SMALL,
    AllTimes,
    Ratio,
    Size,
    cpu_ratios,
    gpu_ratios,
)
from speed_tables import as_json, markdown, report, write


@dataclass(frozen=True)
class Plan:
    """What runs on a device: sizes, contenders, and the figures that have a bar."""

    sizes: tuple[Size, ...]
    contenders: tuple[Callable[[Batch], c.Contenders], ...]
    ratios: Callable[[AllTimes], Iterator[Ratio]]

    def measure(self, device: str, rounds: int) -> dict[Size, dict[str, Times]]:
        """The times of all contenders, in the order of the tables; of large batches a third."""
        times = {}
        for rows, width in self.sizes:
            batch, runs = Batch(rows, width, device=device), {}
            for kind in self.contenders:
                runs |= kind(batch)
            in_order = {name: runs[name] for name in c.NAMES if name in runs}
            turns = rounds if rows * width <= MAIN[0] * MAIN[1] else max(2, rounds // 3)
            times[rows, width] = race(in_order, turns, device)
        return times


PLANS = {
    "cpu": Plan((SMALL, MAIN, LARGE), (c.core, c.engines, c.metrics, c.verl_functions), cpu_ratios),
    "cuda": Plan((MAIN, GPU_LARGE), (c.core, c.verl_functions), gpu_ratios),
}
SMOKE = {
    "cpu": Plan((SMALL,), PLANS["cpu"].contenders, cpu_ratios),
    "cuda": Plan(((64, 256), (256, 1024)), PLANS["cuda"].contenders, gpu_ratios),
}
"""Small batches, which try the script alone."""


def peak_memory() -> float:
    """Peak resident bytes of PASS of packed steps beyond its inputs, over the output's bytes."""
    small, batch = Batch(64, 256), Batch(*MAIN)
    c.core(small)[c.PASS_STEPS]()
    batch.steps, batch.outcome, batch.group  # noqa: B018 - inputs are made before
    rise, out = peak_of(lambda: sc.PASS()(batch.packed(batch.steps)).padded(width=batch.width))
    return float(rise / out.nbytes)


def memory_in_fresh_process() -> Iterator[Ratio]:
    """`peak_memory` in a process of its own, with the allocator's defaults; nothing off Linux."""
    if not can_measure_memory():
        return
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, __file__, "--peak-memory"]
    found = float(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    yield Ratio(MEMORY, round(found, 3), MOST_MEMORY)


def options_of() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 where a bar is missed")
    parser.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    parser.add_argument("--write", type=Path, nargs="+", default=[], help="documents to rewrite")
    parser.add_argument("--device", choices=list(PLANS), default="cpu")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds (default 9)")
    parser.add_argument("--smoke", action="store_true", help="small batches, two rounds")
    parser.add_argument("--peak-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if (options.markdown or options.write) and (options.smoke or options.device != "cpu"):
        parser.error("the table of documents is that of all sizes on a CPU")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU")
    return options


def main() -> None:
    """Start anew under `KEEP_MAPPED`, race, report, write, check."""
    options = options_of()
    if options.peak_memory:
        print(peak_memory())
        return
    restart_under(KEEP_MAPPED)
    plan = (SMOKE if options.smoke else PLANS)[options.device]
    times = plan.measure(options.device, 2 if options.smoke else options.rounds)
    memory = list(memory_in_fresh_process()) if options.device == "cpu" else []
    ratios = [*plan.ratios(times), *memory]
    if options.json:
        print(as_json(times, ratios))
    elif options.markdown:
        print(markdown(times, memory))
    else:
        report(times, ratios)
    for path in options.write:
        write(path, markdown(times, memory))
    missed = [ratio.name for ratio in ratios if not ratio.is_met]
    if options.check and missed:
        raise SystemExit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
