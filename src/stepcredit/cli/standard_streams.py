"""The standard streams and the stop signals of a process that runs a command."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any, TextIO, cast

from stepcredit.handles import STANDARD_OUTPUT, NamedFile, descriptor_of

STOPS = ("SIGTERM", "SIGHUP", "SIGQUIT")
SAME_STOP_SECONDS = 2.0
"""Seconds within which a further stop signal counts as the same: a closed terminal sends two."""


class Stopped(KeyboardInterrupt):
    """Raised by a stop signal; it ends a command as Ctrl-C does.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


def stop_on_signals() -> None:
    """Let stop signals end the command tidily, except those that the parent ignores (`nohup`)."""
    stopped_at = float("-inf")

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped_at
        before, stopped_at = stopped_at, time.monotonic()
        if stopped_at - before > SAME_STOP_SECONDS:
            raise Stopped(number)

    for name in STOPS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


class _Apart:
    """A standard output whose text goes to standard error, and whose bytes to standard output."""

    def __init__(self) -> None:
        self.buffer = sys.stdout.buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextmanager
def rows_apart(output: object) -> Iterator[None]:
    """Send what the user's code prints to standard error if rows go to standard output.

    Args:
        output: the command's `-o`, if it has one.
    """
    if not isinstance(output, str) or descriptor_of(output) != 1 or sys.stdout is None:
        yield
        return
    with redirect_stdout(cast(TextIO, _Apart())):
        yield


def open_standard_streams() -> None:
    """Replace the standard streams by ones whose errors name them, also if they are closed.

    A closed stream is opened on the null device, in the direction in which it can't be used. So no
    file that is opened later gets its number, and writing to it fails instead of losing data. Text
    for a closed standard error is discarded.
    """
    for handle, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free: this one
    encoding = getattr(sys.stdout, "encoding", "utf-8")
    raw = NamedFile(1, "wb", STANDARD_OUTPUT, closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw, 1 << 16),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty(),
    )
    if sys.stderr is None:
        nowhere = io.FileIO(2, "wb", closefd=False)
        sys.stderr = io.TextIOWrapper(nowhere, "utf-8", errors="backslashreplace")
