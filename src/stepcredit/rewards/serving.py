"""The loop of a grading process: untrusted items in, one letter per item out.

The process confines itself before it reads the first item. The parent ends it when an item takes
too long. If the parent ends, the kernel ends this process too (Linux). In addition, each item runs
under an alarm without a handler, which ends the process even inside C code.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import signal
import socket
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from stepcredit.rewards import sandbox

READY, RIGHT, WRONG, BAD_GOLD, TIMED_OUT = "+RWGT"
LETTERS = frozenset({RIGHT, WRONG, BAD_GOLD, TIMED_OUT})
"""The possible letters of an item. `READY` is sent once, when the process can grade."""

LIFETIME = 3600
"""Seconds of CPU time after which a grading process is replaced by a new one."""
_TRIAL_LIMIT = 60.0
_INSTALLED = ("site-packages", "dist-packages")
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/dev/null",
    "/dev/urandom",
)


class Grader(ABC):
    """Base class of graders. The module of a grader names its instance `GRADER`."""

    process_per_item: ClassVar[bool]
    """Whether each item is graded in a separate process, so that it cannot affect the others."""
    trial: ClassVar[tuple[str, str]]
    """An answer and a gold answer for which `verdict` must return `RIGHT`."""

    @abstractmethod
    def prepare(self) -> None:
        """Import what grading needs, before the process is confined."""

    def decide_early(self, answer: str, gold: str, /) -> str | None:
        """The verdict's letter for an answer that needs no grading; None if it needs grading."""
        return None

    @abstractmethod
    def verdict(self, answer: str, gold: str, /) -> str:
        """The verdict's letter for an answer."""


def serve(handle: int, grader: Grader) -> None:
    """Grade batches from a socket until it closes.

    A batch is a line of JSON, `{"limit": seconds, "pairs": [[answer, gold], ...]}`; one letter per
    item is sent back as soon as it is known.

    Args:
        handle: the socket's file descriptor.
        grader: grades each item.

    Raises:
        RuntimeError: grading does not work within the limits that are set here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sandbox.die_with_parent()
    low = os.dup(handle)  # below the limit on descriptors, so that a child can close it
    os.close(handle)
    with socket.socket(fileno=low) as link, link.makefile("rb") as lines:
        grader.prepare()
        grade = _confined(grader)
        if grade(*grader.trial, _TRIAL_LIMIT) != RIGHT:
            raise RuntimeError("grading does not work within the limits set for it on this system")
        link.sendall(READY.encode())
        for line in lines:
            batch = json.loads(line)
            for answer, gold in batch["pairs"]:
                link.sendall(grade(answer, gold, batch["limit"]).encode())


def _confined(grader: Grader) -> Callable[[str, str, float], str]:
    """Confine this process; returns the function that grades an item within a time limit."""
    sandbox.limit_resources(LIFETIME, processes=grader.process_per_item)
    sandbox.allow_reading_only(readable_places())
    if grader.process_per_item:
        gc.freeze()
        return lambda answer, gold, limit: (
            grader.decide_early(answer, gold) or _in_a_process(grader, answer, gold, limit)
        )
    sandbox.allow_computing_only()
    return lambda *item: _under_alarm(grader, *item)


def _under_alarm(grader: Grader, answer: str, gold: str, limit: float) -> str:
    signal.setitimer(signal.ITIMER_REAL, limit + 1)
    letter = grader.verdict(answer, gold)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return letter


def _in_a_process(grader: Grader, answer: str, gold: str, limit: float) -> str:
    """Grade an item in a forked process, which cannot change this one; its letter."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            _close_all_but(theirs)
            sandbox.die_with_parent()
            sandbox.limit_resources(math.ceil(limit) + 1, processes=False)
            sandbox.allow_computing_only()
            os.write(theirs, _under_alarm(grader, answer, gold, limit).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as replies:
        reply = replies.read(1).decode(errors="replace")
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return reply if reply in LETTERS else TIMED_OUT


def _close_all_but(handle: int) -> None:
    """Close all inherited descriptors except this one."""
    os.closerange(0, handle)
    os.closerange(handle + 1, sandbox.OPEN_FILES)


def readable_places() -> Iterator[str]:
    """Paths that a grading process may read: Python, imported modules, and system libraries.

    The folders of the import path are not among them, because one of them is the script's folder,
    which may hold any file. Only folders of installed packages are readable as a whole.
    """
    installed = (folder for folder in sys.path if Path(folder).name in _INSTALLED)
    yield from dict.fromkeys(
        [sys.prefix, sys.base_prefix, sys.exec_prefix, *installed, *_imported(), *_SYSTEM]
    )


def _imported() -> Iterator[str]:
    """The folders of the packages, and the files of the modules, that are imported."""
    for name, module in sorted(sys.modules.items()):
        if "." not in name:
            yield from getattr(module, "__path__", ())
            yield from filter(None, [getattr(module, "__file__", None)])
