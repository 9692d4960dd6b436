"""Runs in processes of their own, as many at once as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from stepcredit.lab.lab_settings import LabSettings
from stepcredit.study.single_run import RunResult, run_once

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
"""Environment of the processes: runs share the cores, so that each run has one thread."""
PRELOADED = ("stepcredit.lab.loop", "stepcredit.lab.comparison", "stepcredit.study.worker_pool")
"""Modules that are imported once, in the process from which the others are forked."""
PARENT_GONE = 3


@dataclass(frozen=True)
class Job:
    """One run for a process.

    Args:
        key: the run's key.
        settings: its settings.
        cache_dir: folder of the warm starts.
        work_dir: folder of the run's files while it runs.
    """

    key: str
    settings: LabSettings
    cache_dir: Path
    work_dir: Path


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a result, or with an error in one line."""

    key: str
    result: RunResult | None
    error: str | None = None


class WorkerPool:
    """Processes that do one run each.

    Args:
        workers: runs at the same time, > 0.
        watch: called with a run's key and the number of each update that it finished.

    Example:
        >>> WorkerPool(2, lambda key, update: None).has_room
        True
    """

    def __init__(self, workers: int, watch: Callable[[str, int], None]) -> None:
        self.workers, self.watch = workers, watch
        self._running: dict[Connection, tuple[Job, Any]] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more run may start."""
        return len(self._running) < self.workers

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    def start(self, job: Job) -> None:
        """Start a run in a new process."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, job), daemon=True)
        with _environment():
            process.start()
        theirs.close()
        self._running[mine] = (job, process)

    def ended(self, timeout: float | None = None) -> Iterator[Outcome]:
        """Wait for news of the runs, and yield those that ended.

        Args:
            timeout: most seconds to wait; None: until a run reports.
        """
        for connection in wait(list(self._running), timeout):
            assert isinstance(connection, Connection)
            outcome = self._news(connection)
            if outcome is not None:
                connection.close()
                self._running.pop(connection)[1].join()
                yield outcome

    def _news(self, connection: Connection) -> Outcome | None:
        job, process = self._running[connection]
        try:
            news = connection.recv()
        except EOFError:  # killed, by the system for example
            process.join()
            return Outcome(job.key, None, f"its process ended with exit code {process.exitcode}")
        if isinstance(news, Outcome):
            return news
        self.watch(job.key, news)
        return None

    def kill(self) -> None:
        """End every process at once; their runs are lost."""
        for connection, (_, process) in self._running.items():
            process.kill()
            process.join()
            connection.close()
        self._running.clear()


def work(connection: Connection, job: Job) -> None:
    """Do a run in this process, and send its updates and its outcome.

    Ctrl-C is left to the parent. If the parent ends, this process ends too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = run_once(job.settings, job.cache_dir, job.work_dir, connection.send)
        connection.send(Outcome(job.key, result))
    except Exception as error:
        line = " ".join(str(error).split())
        connection.send(Outcome(job.key, None, f"{type(error).__name__}: {line}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(PARENT_GONE)


@contextmanager
def _environment() -> Iterator[None]:
    """Inside the block, new processes get `ONE_THREAD`."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
