"""An SQLite file of our own kind: opened, checked and closed, with errors that name it."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from stepcredit.errors import FileError

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another writer."""
_MARKS = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
    "FROM pragma_application_id, pragma_user_version"
)


class SQLiteFile(ABC):
    """Base class of the stores that are an SQLite file.

    A subclass creates the tables of a new file, and refuses a file of another kind.

    Args:
        path: the file; it is created if it does not exist.
        options: further arguments of `sqlite3.connect`.

    Raises:
        FileError: it can't be opened, or is another kind of file.
    """

    def __init__(self, path: str | Path, **options: Any) -> None:
        self.path = Path(path)
        with self._errors():
            self._base = sqlite3.connect(
                self.path, timeout=LOCK_TIMEOUT, isolation_level=None, **options
            )
            try:
                self._prepare()
            except BaseException:
                self._base.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; all that was written is in it already."""
        self._base.close()

    @abstractmethod
    def _prepare(self) -> None:
        """Create the tables of a new file, or refuse a file of another kind."""

    def _marks(self) -> tuple[int, int, int]:
        """Application id, version and number of tables, read in one query."""
        found: tuple[int, int, int] = tuple(self._base.execute(_MARKS).fetchone())
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Inside the block, errors of SQLite name the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise FileError(self._reason(error), field=str(self.path)) from error

    def _reason(self, error: sqlite3.Error) -> str:
        """SQLite's reason in one line."""
        return " ".join(str(error).split())
