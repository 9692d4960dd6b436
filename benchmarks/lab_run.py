"""CPU seconds of `stepcredit train` by part, beside another checkout's if one is given.

    python benchmarks/lab_run.py                          this checkout
    python benchmarks/lab_run.py --beside ../old/src      and another one, in turns
    python benchmarks/lab_run.py --json                   one JSON object

Each round runs every checkout once, in a process of its own on one thread, with a warm start that
was trained before. Minima over the rounds are shown. The parts are: `generation` of completions,
`credit` (rewards, signal, advantages, metrics), `old log-probs`, `optimizer steps` (forward,
backward, update), `evaluation`, `imports`, and the rest (checkpoints, logs, data loading).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from interleaved import ONE_THREAD

HERE = Path(__file__).resolve().parents[1] / "src"
PARTS = (
    *("generation", "credit", "old log-probs", "optimizer steps", "evaluation", "imports", "rest"),
    *("total", "warm start"),
)


class Clock:
    """CPU seconds by part, each without the parts that it called."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._within = [0.0]

    def timed(self, owner: Any, name: str, part: str, without_gradient: str = "") -> None:
        """Add the time of a function, which is replaced where it stands, to a part."""
        function: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            apart = without_gradient and not torch.is_grad_enabled()
            self._within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                self.seconds[without_gradient if apart else part] += spent - self._within.pop()
                self._within[-1] += spent

        setattr(owner, name, wrapped)


def one_run(updates: int, cache: Path) -> dict[str, float]:
    """The CPU seconds of one run in this process, by part; `warm start` is 0 where it is cached."""
    clock, start = Clock(), time.process_time()
    from rich.console import Console
    from trl import GRPOTrainer

    from stepcredit.engines.trl.trainer import StepCreditGRPOTrainer
    from stepcredit.lab import comparison, loop
    from stepcredit.lab.lab_settings import LabSettings

    torch.set_num_threads(1)
    clock.seconds["imports"] = time.process_time() - start
    credit = "_generate_and_score_completions"
    clock.timed(comparison, "warm_start", "warm start")
    clock.timed(loop, "evaluate_policy", "evaluation")
    clock.timed(GRPOTrainer, "_generate", "generation")
    logprobs = "_get_per_token_logps_and_entropies"
    clock.timed(GRPOTrainer, logprobs, "optimizer steps", without_gradient="old log-probs")
    clock.timed(StepCreditGRPOTrainer, credit, "credit")
    clock.timed(StepCreditGRPOTrainer, "training_step", "optimizer steps")
    clock.timed(torch.optim.AdamW, "step", "optimizer steps")
    settings = LabSettings(updates=updates, compare=None)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        comparison.train(settings, folder, "run", cache, Console(file=nowhere))
    total = time.process_time() - start
    return {**clock.seconds, "rest": total - sum(clock.seconds.values()), "total": total}


def in_process(source: Path, cache: Path, updates: int) -> dict[str, float]:
    """One run of a checkout in a new process."""
    command = [sys.executable, __file__, "--updates", str(updates), "--one", str(cache)]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(source)}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(printed.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def compared(sources: list[Path], updates: int, rounds: int) -> list[dict[str, float]]:
    """The minimum of each part over the rounds, by checkout; the first run trains a warm start."""
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder) / str(place) for place in range(len(sources))]
        pairs = list(zip(sources, caches, strict=True))
        first = [in_process(*pair, 1) for pair in pairs]
        runs = [[in_process(*pair, updates) for pair in pairs] for _ in range(rounds)]
    least = [
        {part: min(row[part] for row in rows if part in row) for part in rows[0]}
        for rows in zip(*runs, strict=True)
    ]
    return [
        {**row, "warm start": warm["warm start"]} for warm, row in zip(first, least, strict=True)
    ]


def table(found: list[dict[str, float]]) -> str:
    """The seconds as lines of text; with two checkouts, how many times as many the second took."""
    lines = []
    for part in PARTS:
        seconds = [row[part] for row in found]
        times = "".join(f"{other / seconds[0]:9.1f} x" for other in seconds[1:])
        lines.append(f"{part:<18}" + "".join(f"{value:9.2f} s" for value in seconds) + times)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beside", type=Path, help="the folder src of another checkout")
    parser.add_argument("--updates", type=int, default=120, help="updates of a run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each checkout")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_run(args.updates, args.one)))
        return
    sources = [HERE, args.beside.resolve()] if args.beside else [HERE]
    found = compared(sources, args.updates, args.rounds)
    if args.json:
        print(json.dumps(dict(zip(map(str, sources), found, strict=True))))
    else:
        print(table(found))


if __name__ == "__main__":
    main()
