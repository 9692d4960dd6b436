"""A pool of grading processes that replaces the processes that an item ends.

Each worker is a separate Python process that imports only the grader: neither the user's script
nor torch. It gets a minimal environment and an empty folder, and confines itself (see `sandbox`)
before it reads the first item. An item that takes too long ends its worker; the other items are
graded by another one.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import site
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from stepcredit.errors import SignalError
from stepcredit.handles import temporary_file, temporary_folder
from stepcredit.rewards.serving import LETTERS, READY, TIMED_OUT

Pair = tuple[str, str]
_START_LIMIT = 120.0
_CHUNK = 16
_PROGRAM = """
from {grader} import GRADER
from stepcredit.rewards.serving import serve
serve({handle}, GRADER)
"""
_KEPT_VARIABLES = (
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONHOME",
)
"""Of the user's environment variables, those a grading process gets, and OpenBLAS's."""


class Worker:
    """One grading process, and the socket to it.

    Args:
        grader: full name of the module whose `GRADER` grades, a `serving.Grader`.

    Raises:
        SignalError: the process did not start; the message has the last line it wrote.
    """

    def __init__(self, grader: str) -> None:
        self._folder = temporary_folder("stepcredit-grader-")
        ours, theirs = socket.socketpair()
        with theirs, temporary_file() as errors:
            self._link = ours
            program = _PROGRAM.format(grader=grader, handle=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=self._folder.name,
                env=_environment(self._folder.name),
                start_new_session=True,
            )
            theirs.close()
            if self._answers(1, _START_LIMIT) != READY:
                self.end()
                errors.seek(0)
                reason = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise SignalError(
                    f"a grading process did not start: {reason or 'it printed no reason'}"
                )

    def verdicts(self, pairs: Sequence[Pair], limit: float) -> str:
        """One letter per pair; fewer letters than pairs if the worker must not be used again.

        The last letter is then `TIMED_OUT`, or the process died at the next pair.

        Args:
            pairs: answers, each with its gold answer.
            limit: most seconds per pair.
        """
        batch = json.dumps({"limit": limit, "pairs": pairs}).encode() + b"\n"
        found = ""
        with suppress(OSError):  # the process died before the batch was sent
            if self._has_spoken():
                return ""
            self._link.sendall(batch)
            while len(found) < len(pairs):
                letters = self._answers(len(pairs) - len(found), limit)
                found += "".join(takewhile(LETTERS.__contains__, letters))
                if letters in ("", TIMED_OUT) or not LETTERS.issuperset(letters):
                    break
        return found

    def _has_spoken(self) -> bool:
        """Whether the process sent data without a request; it must then not be trusted."""
        self._link.setblocking(False)
        try:
            return bool(self._link.recv(1))
        except BlockingIOError:
            return False
        finally:
            self._link.setblocking(True)

    def _answers(self, most: int, limit: float) -> str:
        """The letters from the process: empty if it died, `TIMED_OUT` if none came in time."""
        self._link.settimeout(limit)
        try:
            return self._link.recv(most).decode(errors="replace")
        except TimeoutError:
            return TIMED_OUT
        except OSError:
            return ""

    @property
    def is_alive(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process and all processes that it started."""
        self._link.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


def _environment(folder: str) -> dict[str, str]:
    """The environment of a grading process: without the user's variables that could hold a secret.

    What is importable here is importable there, except for the working folder.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or name.startswith("OPENBLAS_")
    }
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = {"HOME": folder, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(_import_path())}
    return {**kept, **threads, **places, "PYTHONUSERBASE": site.getuserbase()}


def _import_path() -> list[str]:
    own = str(Path(__file__).parents[2])
    here = ("", os.getcwd())
    return [own, *(folder for folder in sys.path if folder not in (own, *here))]


class Pool:
    """Workers that are started when needed, and shared by all threads of a process.

    Args:
        grader: full name of the module whose `GRADER` grades, a `serving.Grader`.
        workers: the most processes that grade at once.
    """

    def __init__(self, grader: str, workers: int) -> None:
        self._grader = grader
        self._idle: deque[Worker] = deque()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grader")

    def verdicts(self, pairs: Sequence[Pair], limit: float) -> str:
        """One letter per pair, in order; `TIMED_OUT` for a pair too slow or that ended two workers.

        Raises:
            SignalError: no worker could be started.
        """
        chunks = [pairs[at : at + _CHUNK] for at in range(0, len(pairs), _CHUNK)]
        futures = [self._threads.submit(self._chunk, chunk, limit) for chunk in chunks]
        try:
            return "".join(future.result() for future in futures)
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _chunk(self, pairs: Sequence[Pair], limit: float) -> str:
        found, died_at = "", -1
        while len(found) < len(pairs):
            worker = self._take()
            try:
                letters = worker.verdicts(pairs[len(found) :], limit)
            except BaseException:
                worker.end()
                raise
            found += letters
            if len(found) == len(pairs) and not letters.endswith(TIMED_OUT):
                self._idle.append(worker)
                continue
            worker.end()
            if letters.endswith(TIMED_OUT):
                continue
            if died_at == len(found):
                found += TIMED_OUT
            died_at = len(found)
        return found

    def _take(self) -> Worker:
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return Worker(self._grader)
            if worker.is_alive:
                return worker
            worker.end()

    def close(self) -> None:
        """End all idle workers; a later call starts new ones."""
        while self._idle:
            self._idle.pop().end()


_POOLS: dict[tuple[str, int], Pool] = {}
_LOCKS = [threading.Lock()]


def shared_pool(grader: str, workers: int | None = None) -> Pool:
    """The pool of this process, closed at its exit; a forked child gets a new pool.

    Args:
        grader: full name of the module whose `GRADER` grades, a `serving.Grader`.
        workers: the most processes at once; None: one per available CPU, at most 16.
    """
    key = grader, workers or min(16, _cpus())
    with _LOCKS[0]:
        if key not in _POOLS:
            _POOLS[key] = Pool(*key)
        return _POOLS[key]


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _close() -> None:
    for pool in _POOLS.values():
        pool.close()


def _forget() -> None:
    """In a forked child, drop the pools, because the workers belong to its parent."""
    _POOLS.clear()
    _LOCKS[0] = threading.Lock()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
