"""Keeps a stopped command's results beside its output, for the next run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepcredit.cli.output import say
from stepcredit.errors import FileError, RolloutError

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def journal_beside(output: str, done: str) -> Iterator[Path | None]:
    """A file that keeps results until the output is written, and is then deleted.

    None where the output is not a file in a folder, such as standard output.

    Args:
        output: the output's path, or "-".
        done: what is done with each row, such as "scored"; part of the file's name.
    """
    from stepcredit.data.files.atomic import check_writable, folder_of, hidden_name
    from stepcredit.data.files.score_store import remove_store

    check_writable(output)
    if folder_of(output) is None:
        yield None
        return
    journal = Path(output).with_name(hidden_name(Path(output).name, f"{done}.sqlite"))
    try:
        yield journal
    except BaseException as error:
        _close(journal, done, error)
        raise
    remove_store(journal)


def _close(journal: Path, done: str, error: BaseException) -> None:
    """After a failure, keep the journal and say so; an empty journal is deleted."""
    from stepcredit.data.files.score_store import ScoreStore, remove_store

    if not journal.exists():
        return
    try:
        with ScoreStore(journal) as store:
            empty = len(store) == 0
    except FileError as unread:
        if getattr(unread.__cause__, "sqlite_errorcode", None) in DAMAGED:
            say(f"{journal}: this file of an earlier run is damaged: delete it to start over")
            return
        empty = False
    if empty:
        remove_store(journal)
    elif not isinstance(error, RolloutError):  # for a bad row, its error is enough
        say(f"what was {done} is kept in {journal}: run the same command to continue")
