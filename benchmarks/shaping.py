"""What shaping costs: PASS and PURE beside a tensor copy and verl's own advantage functions.

    python benchmarks/shaping.py            a table
    python benchmarks/shaping.py --json     one JSON object, the ratios first

All contenders take turns in one process, on the same inputs; in its turn each runs once uncounted,
so that none pays for the caches its predecessor left, and once counted. Figures are medians of the
rounds, ratios are of those medians. The process starts itself anew with one thread and malloc
settings that keep large temporaries mapped: page faults otherwise decide every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(512 << 20),
    "OMP_NUM_THREADS": "1",
}
SIZES = [(256, 1024), (1024, 4096), (4096, 4096)]
MAIN, LARGE = SIZES[1], SIZES[2]
GROUP, STEPS = 8, 40
BARS = {
    "steps PASS / verl grpo_vectorized": 1.2,
    "steps PASS / copy": 5.0,
    "steps PURE / verl grpo_vectorized": 1.2,
    "steps PURE / copy": 5.0,
    "tokens PASS / verl gae": 0.15,
    "tokens PASS / copy": 60.0,
    "steps PASS, 4 x the tokens": 4.5,
    "steps PURE, 4 x the tokens": 4.5,
    "tokens PASS, 4 x the tokens": 4.5,
    "steps PASS peak memory / output": 2.0,
}


@dataclass(frozen=True)
class Batch:
    """One size's inputs, as tensors: packed steps, packed token scores, verl's mask."""

    rows: int
    width: int
    lengths: Any
    ends: Any
    scores: Any
    counts: Any
    tokens: Any
    group: Any
    outcome: Any
    format: Any
    mask: Any

    @classmethod
    def make(cls, rows: int, width: int, seed: int = 0) -> Batch:
        """Random lengths in width/2..width, about 40 steps per response, groups of 8."""
        import numpy as np
        import torch

        rng = np.random.default_rng(seed)
        lengths = rng.integers(width // 2, width + 1, rows)
        counts = rng.integers(STEPS // 2, STEPS * 3 // 2 + 1, rows)
        ends = [
            np.append(np.sort(rng.choice(n - 1, k - 1, replace=False)), n - 1)
            for n, k in zip(lengths, counts, strict=True)
        ]
        size = torch.from_numpy(lengths)
        return cls(
            rows,
            width,
            size,
            torch.from_numpy(np.concatenate(ends)),
            torch.from_numpy(rng.random(int(counts.sum()), dtype=np.float32)),
            torch.from_numpy(counts),
            torch.from_numpy(rng.standard_normal(int(lengths.sum()), dtype=np.float32)),
            torch.arange(rows) // GROUP,
            torch.from_numpy((rng.random(rows) < 0.5).astype(np.float32)),
            torch.ones(rows),
            (torch.arange(width) < size[:, None]).long(),
        )

    def steps(self) -> Any:
        """Rollouts with the step signal: all checks included."""
        import stepcredit as sc

        signal = sc.Steps(self.ends, self.scores, self.counts)
        return sc.Rollouts(self.group, self.lengths, signal, self.outcome, self.format)

    def token_signal(self) -> Any:
        """Rollouts with the token signal: all checks included."""
        import stepcredit as sc

        signal = sc.Tokens(self.tokens, self.lengths)
        return sc.Rollouts(self.group, self.lengths, signal, self.outcome, self.format)

    def from_lists(self) -> Callable[[], Any]:
        """The step signal as Python lists."""
        import stepcredit as sc

        cut = self.counts.tolist()
        ends = [row.tolist() for row in self.ends.split(cut)]
        scores = [row.tolist() for row in self.scores.split(cut)]
        group, outcome, format = (t.tolist() for t in (self.group, self.outcome, self.format))
        return lambda: sc.Rollouts(group, None, sc.Steps(ends, scores), outcome, format)


def contenders(batch: Batch) -> dict[str, Callable[[], Any]]:
    """What takes turns."""
    import torch

    import stepcredit as sc

    width, table = batch.width, torch.rand(batch.rows, batch.width)
    lists = batch.from_lists()
    own = {
        "copy": table.clone,
        "steps PASS": lambda: sc.PASS()(batch.steps()).padded(width=width),
        "steps PASS, mask checked": lambda: sc.PASS()(batch.steps()).padded(batch.mask),
        "steps PURE": lambda: sc.PURE()(batch.steps()).padded(width=width),
        "steps PASS from lists": lambda: sc.PASS()(lists()).padded(width=width),
        "tokens PASS": lambda: sc.PASS()(batch.token_signal()).padded(width=width),
        "tokens PASS, sign runs": lambda: sc.PASS(chunks="sign_runs")(batch.token_signal()).padded(
            width=width
        ),
    }
    return own | peers(batch)


def peers(batch: Batch) -> dict[str, Callable[[], Any]]:
    """verl's advantage functions, where it is installed."""
    try:
        from verl.trainer.ppo import core_algos as verl
    except ImportError:
        return {}
    import torch

    reward = torch.zeros(batch.rows, batch.width)
    reward[torch.arange(batch.rows), batch.lengths - 1] = batch.outcome
    values, index, mask = torch.rand_like(reward), batch.group.numpy(), batch.mask
    return {
        "verl grpo_vectorized": lambda: verl.compute_grpo_vectorized_outcome_advantage(
            reward, mask, index
        ),
        "verl grpo": lambda: verl.compute_grpo_outcome_advantage(reward, mask, index),
        "verl gdpo": lambda: verl.compute_gdpo_outcome_advantage(reward, mask, index),
        "verl gae": lambda: verl.compute_gae_advantage_return(reward, values, mask, 1.0, 0.95),
    }


def race(size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Median milliseconds of each contender, which take turns."""
    runners = contenders(Batch.make(*size))
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            run()
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: median(values) for name, values in times.items()}


def peak_memory() -> float:
    """Peak resident bytes of one step-signal PASS beyond its inputs, over the output's bytes."""
    import stepcredit as sc

    small = Batch.make(64, 256)
    sc.PASS()(small.steps()).padded(width=small.width)
    batch = Batch.make(*MAIN)
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = _status("VmRSS")
    out = sc.PASS()(batch.steps()).padded(width=batch.width)
    return (_status("VmHWM") - before) / out.nbytes


def _status(field: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def memory_in_fresh_process() -> float | None:
    """`peak_memory` in a process of its own, with the allocator's defaults; None off Linux."""
    if not os.path.exists("/proc/self/clear_refs"):
        return None
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, __file__, "--peak-memory"]
    return float(subprocess.run(command, env=env, check=True, capture_output=True).stdout)


def ratios(
    times: dict[tuple[int, int], dict[str, float]], memory: float | None
) -> dict[str, float]:
    """The figures that have a bar, as far as they could be measured."""
    found: dict[str, float] = {}
    for name in BARS:
        first, _, second = name.partition(" / ")
        main = times.get(MAIN, {})
        if first in main and second in main:
            found[name] = main[first] / main[second]
        elif name.endswith("4 x the tokens") and LARGE in times:
            who = name.partition(",")[0]
            found[name] = times[LARGE][who] / main[who]
    if memory is not None:
        found["steps PASS peak memory / output"] = memory
    return {name: round(value, 3) for name, value in found.items()}


def report(times: dict[tuple[int, int], dict[str, float]], found: dict[str, float]) -> None:
    """Two tables: milliseconds, and the ratios with their bars."""
    from rich.console import Console
    from rich.table import Table

    speed = Table(title="milliseconds, median", title_justify="left")
    speed.add_column("")
    for rows, width in times:
        speed.add_column(f"{rows} x {width}", justify="right")
    for name in next(iter(times.values())):
        speed.add_row(name, *[f"{figures[name]:.2f}" for figures in times.values()])
    bars = Table(title="ratios", title_justify="left")
    for heading in ("", "measured", "bar", ""):
        bars.add_column(heading, justify="left" if not heading else "right")
    for name, bar in BARS.items():
        value = found.get(name)
        met = "not measured" if value is None else "met" if value <= bar else "MISSED"
        bars.add_row(name, "" if value is None else f"{value:.2f}", f"{bar:g}", met)
    Console().print(speed, bars)


def main() -> None:
    """Parse the options, start anew under `SETTINGS`, race, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds (default 9)")
    parser.add_argument("--smoke", action="store_true", help="the smallest size alone, two rounds")
    parser.add_argument("--peak-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_memory:
        print(peak_memory())
        return
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    sizes, rounds = (SIZES[:1], 2) if options.smoke else (SIZES, options.rounds)
    times = {size: race(size, rounds if size != LARGE else max(2, rounds // 3)) for size in sizes}
    found = ratios(times, memory_in_fresh_process())
    if options.json:
        named = {f"{rows}x{width}": figures for (rows, width), figures in times.items()}
        print(json.dumps({"ratios": found, "bars": BARS, "milliseconds": named}))
    else:
        report(times, found)


if __name__ == "__main__":
    main()
