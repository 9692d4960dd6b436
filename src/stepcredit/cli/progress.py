"""A progress bar on stderr, for long files on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stepcredit.cli.output import printable

PROGRESS_BAR_BYTES = 16_000_000
"""A file of at least this many bytes gets a progress bar."""


def _is_terminal() -> bool:
    return sys.stderr.isatty()


@contextmanager
def progress_bar(path: str) -> Iterator[Callable[[float], None] | None]:
    """A callback that shows the share of the file read so far; None if no terminal shows it."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    if size < PROGRESS_BAR_BYTES or not _is_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(printable(os.path.basename(path)), total=size)
        yield lambda share: bar.update(task, completed=share * size)


@contextmanager
def counting_bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """A callback that takes (done, total) and shows both; None if stderr is no terminal."""
    if not _is_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
