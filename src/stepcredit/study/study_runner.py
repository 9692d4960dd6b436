"""Runs a preset: what is not in the store yet, on all cores, with a progress bar."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from tempfile import mkdtemp

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stepcredit.credit.rich_table import literal
from stepcredit.errors import FileError
from stepcredit.lab.devices import check_device_is_here, is_gpu
from stepcredit.study.single_run import FAILED_START
from stepcredit.study.study_cells import Cell
from stepcredit.study.study_store import Origin, StudyStore
from stepcredit.study.worker_pool import Job, Outcome, WorkerPool

LIBRARIES = ("torch", "trl", "transformers", "stepcredit")


@dataclass(frozen=True)
class RunOptions:
    """How a study runs.

    Args:
        workers: runs at the same time; None: one per core that this process may use, and one alone
            where a run is on a GPU.
        budget_hours: no run starts that would end later than this, by the mean of the runs before
            it; None: no limit.
        retry_failed: run again what failed before.
        cache_dir: folder of the warm starts and teachers.
    """

    workers: int | None = None
    budget_hours: float | None = None
    retry_failed: bool = False
    cache_dir: Path = Path("cache/warmstart")


@dataclass
class StudyTally:
    """What became of a preset's runs.

    Args:
        total: runs of the preset, each key once.
        there: runs that were in the store before.
        done: runs that were finished now.
        failed: error by key, of now and of before.
        waiting: runs that were not started.
    """

    total: int
    there: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0


def run_study(
    preset: str,
    cells: Sequence[Cell],
    store: StudyStore,
    options: RunOptions,
    console: Console,
    planned: Sequence[Cell] | None = None,
) -> StudyTally:
    """Do the runs that the store does not have yet.

    Args:
        preset: the preset's name.
        cells: all its runs, or those of its slice.
        store: holds the finished runs, and gets each new one when it ends.
        options: workers, budget, retries.
        console: shows the progress.
        planned: all runs of the preset, which the store writes down; None: `cells`.

    Returns:
        What became of the runs.

    Raises:
        FileError: another study is running on this store, or its runs are on another device.
        StepCreditError: this machine does not have the device of a run.
        KeyboardInterrupt: Ctrl-C; the store holds every run that was finished.
    """
    for device in {cell.settings.device for cell in cells}:
        check_device_is_here(device)
    lock = FileLock(f"{store.path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileError("another study is running on this store", field=str(store.path)) from None
    try:
        store.check_devices(planned or cells)
        store.plan(preset, planned or cells)
        return _run_locked(preset, cells, store, options, console)
    finally:
        lock.release()


def _run_locked(
    preset: str, cells: Sequence[Cell], store: StudyStore, options: RunOptions, console: Console
) -> StudyTally:
    if options.retry_failed:
        store.forget_failures([cell.key for cell in cells])
        for record in options.cache_dir.glob(f"*{FAILED_START}"):
            record.unlink()
    by_key = {cell.key: cell for cell in reversed(cells)}
    known = store.statuses()
    order = list(dict.fromkeys(cell.key for cell in cells))
    waiting = [by_key[key] for key in order if key not in known]
    done = [key for key in order if known.get(key) == "done"]
    tally = StudyTally(len(order), there=len(done))
    tally.failed = failures(store, order)
    shown = StudyProgress(preset, waiting, console)
    on_gpu = any(is_gpu(cell.settings.device) for cell in cells)
    with shown.bars:
        _Dispatch(store, options, tally, shown, on_gpu=on_gpu).run(waiting)
    return tally


def failures(store: StudyStore, keys: Sequence[str]) -> dict[str, str]:
    """The error of each failed run among these keys."""
    rows = store.rows("SELECT key, error FROM run WHERE status = 'failed'")
    errors = {row["key"]: row["error"] for row in rows}
    return {key: errors[key] for key in keys if key in errors}


class StudyProgress:
    """One bar for the study, in updates, and one line for each run that ends."""

    def __init__(self, preset: str, waiting: Sequence[Cell], console: Console) -> None:
        self.console, self.total = console, len(waiting)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[runs]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.updates: dict[str, int] = {}
        whole = sum(cell.settings.updates for cell in waiting)
        self.task = self.bars.add_task(preset, total=whole, runs="")
        self._show(0)

    def update(self, key: str, update: int) -> None:
        """A run has finished so many updates."""
        self.updates[key] = update
        self.bars.update(self.task, completed=sum(self.updates.values()))

    def ended(self, cell: Cell, number: int, line: str) -> None:
        """A run has ended; it was the `number`-th."""
        self.update(cell.key, cell.settings.updates)
        self._show(number)
        name = f"{cell.label} on {cell.signal}, seed {cell.seed}"
        text = literal(f"[{number}/{self.total}] {name}: {line}")
        self.console.print(text, highlight=False, soft_wrap=True)

    def _show(self, number: int) -> None:
        self.bars.update(self.task, runs=f"run {number}/{self.total}")


class _Dispatch:
    """Hands runs to the pool, and their results to the store."""

    def __init__(
        self,
        store: StudyStore,
        options: RunOptions,
        tally: StudyTally,
        shown: StudyProgress,
        *,
        on_gpu: bool,
    ) -> None:
        self.store, self.options, self.tally, self.shown = store, options, tally, shown
        self.workers = options.workers or (1 if on_gpu else cores())
        self.pool = WorkerPool(self.workers, shown.update)
        self.work_dir = Path(mkdtemp(prefix="stepcredit-study-"))
        self.origin = this_origin(on_gpu)
        self.cells: dict[str, Cell] = {}
        self.began, self.seconds, self.ends = time.monotonic(), [], 0  # type: ignore[var-annotated]
        self.started: dict[str, float] = {}

    def run(self, waiting: list[Cell]) -> None:
        """Do all runs, as far as the budget goes."""
        queue = list(reversed(waiting))
        try:
            while queue or not self.pool.is_idle:
                while queue and self.pool.has_room and self._in_budget():
                    self._start(queue.pop())
                if self.pool.is_idle:
                    break
                for outcome in self.pool.ended():
                    self._end(outcome)
        finally:
            self.tally.waiting = len(queue)
            self.pool.kill()
            shutil.rmtree(self.work_dir, ignore_errors=True)

    def _in_budget(self) -> bool:
        if self.options.budget_hours is None:
            return True
        expected = fmean(self.seconds) if self.seconds else 0.0
        return time.monotonic() - self.began + expected < 3600 * self.options.budget_hours

    def _start(self, cell: Cell) -> None:
        self.cells[cell.key], self.started[cell.key] = cell, time.monotonic()
        work_dir = self.work_dir / cell.key
        self.pool.start(Job(cell.key, cell.settings, self.options.cache_dir, work_dir))

    def _end(self, outcome: Outcome) -> None:
        cell = self.cells.pop(outcome.key)
        self.ends += 1
        self.seconds.append(time.monotonic() - self.started.pop(outcome.key))
        if outcome.result is None:
            error = outcome.error or "unknown"
            self.store.fail(cell, error, self.origin)
            self.tally.failed[cell.key] = error
            self.shown.ended(cell, self.ends, f"failed: {error}")
            return
        self.tally.done += self.store.add(cell, outcome.result, self.origin)
        figures = outcome.result.after[0].figures
        line = f"pass@1 {figures['pass_at_1']:.3f}, length {figures['length']:.1f}"
        self.shown.ended(cell, self.ends, f"{line}, {outcome.result.wall_seconds:.0f} s")


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def this_origin(on_gpu: bool = False) -> Origin:
    """This machine, with its GPU if that is used, the versions, and the checkout's commit."""
    versions = " ".join(f"{name} {version(name)}" for name in LIBRARIES)
    python = f"Python {platform.python_version()}"
    hardware = f"{cores()} x {processor()}" + (f", {gpu()}" if on_gpu else "")
    return Origin(hardware, f"{python} {versions}", checkout_commit())


def gpu() -> str:
    """The name of the GPU that runs use."""
    import torch

    return torch.cuda.get_device_name()


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def checkout_commit() -> str:
    """The short commit of the checkout that holds this package, "+" behind it if files differ."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD")
        return commit + "+" * bool(_git(folder, "status", "--porcelain", "--", str(folder.parent)))
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
