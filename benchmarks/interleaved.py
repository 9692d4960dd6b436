"""Times that mean something on a shared machine: contenders take turns, and minima count.

The CPU time of the thread leaves out what other processes take. What the machine's state adds to a
run, it never takes away, so the minimum over rounds is the figure; the spread says how far the
lower quartile of the rounds lies above it. The wall time's minimum is shown beside. On a GPU the
wall time counts, with the device's work finished before and after.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
KEEP_MAPPED = ONE_THREAD | {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(512 << 20),
}
"""Large temporaries stay mapped: page faults otherwise decide every figure."""
GIVE_BACK = ONE_THREAD | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Freed memory goes back to the system, so that resident memory is memory in use."""

TURN = 20.0
"""Milliseconds that a short contender's runs fill in its turn."""

Contenders = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Times:
    """Milliseconds of one contender, one value per round.

    Args:
        cpu: CPU time of the thread.
        wall: wall time.
        on_gpu: the work is done by a GPU, so that the wall time is the figure.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    on_gpu: bool = False

    def count(self, run: Callable[[], Any], runs: int, device: str) -> None:
        """Run several times and note the mean times."""
        wait_for(device)
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(runs):
            run()
        wait_for(device)
        self.cpu.append((time.thread_time() - cpu) * 1e3 / runs)
        self.wall.append((time.perf_counter() - wall) * 1e3 / runs)

    @property
    def figures(self) -> list[float]:
        """The times that count, from the least on."""
        return sorted(self.wall if self.on_gpu else self.cpu)

    @property
    def least(self) -> float:
        """The figure: the minimum."""
        return self.figures[0]

    @property
    def spread(self) -> float:
        """Lower quartile / minimum - 1; of few rounds the second lowest / minimum - 1."""
        rank = min(max(1, len(self.figures) // 4), len(self.figures) - 1)
        return self.figures[rank] / self.least - 1


def race(contenders: Contenders, rounds: int, device: str = "cpu") -> dict[str, Times]:
    """The times of contenders that take turns.

    In its turn each runs once uncounted, so that none pays for the caches that its predecessor
    left, and then as often as fills `TURN`, once at least: the mean is one figure. A short
    contender alone would find a quiet moment more easily than a long one.
    """
    times = {name: Times(on_gpu=device != "cpu") for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            warm = Times(on_gpu=device != "cpu")
            warm.count(run, 1, device)
            times[name].count(run, max(1, int(TURN / warm.least)), device)
    return times


def wait_for(device: str) -> None:
    """Wait until a GPU has done all that it was given; nothing on a CPU."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def restart_under(settings: Mapping[str, str]) -> None:
    """Start this script anew with environment variables, unless they are set already."""
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


def peak_of(run: Callable[[], Any]) -> tuple[int, Any]:
    """The bytes by which a call's resident memory rises at most, and what it returns.

    Linux alone. Memory that was freed before goes back to the system first: a call that took it
    again would seem to need none.
    """
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = _status("VmRSS")
    result = run()
    return _status("VmHWM") - before, result


def can_measure_memory() -> bool:
    """Whether the system tells a process's peak memory."""
    return os.path.exists("/proc/self/clear_refs")


def _status(field: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
