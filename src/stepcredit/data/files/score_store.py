"""A crash-safe store of scores by key, in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from stepcredit.data.files.sqlite_file import SQLiteFile
from stepcredit.errors import FileError
from stepcredit.handles import reason_of

APPLICATION_ID = 0x53436163
"""SQLite's application id of these files."""
SCHEMA_VERSION = 1
"""Version of the table, from 1."""
KEYS_PER_QUERY = 500
"""Keys that one query looks up."""
_TABLE = "CREATE TABLE scores (key BLOB PRIMARY KEY, numbers BLOB, digest BLOB) WITHOUT ROWID"


class ScoreStore(SQLiteFile):
    """A file of scores by key. Many processes may write it, and any may be killed at any time.

    An entry is written in one SQLite transaction (write-ahead log) with a digest of its key and
    numbers, so a damaged entry is an error, never a wrong number.

    Args:
        path: the file; it is created if it does not exist.

    Raises:
        FileError: it can't be opened, or is another kind of file.

    Example:
        >>> import tempfile
        >>> with ScoreStore(Path(tempfile.mkdtemp()) / "scores.sqlite") as store:
        ...     store.put(b"a", [0.1, 0.9])
        ...     store.get([b"a", b"b"])
        {b'a': [0.1, 0.9]}
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, check_same_thread=False)

    def __len__(self) -> int:
        """Number of keys."""
        with self._errors():
            return int(self._base.execute("SELECT count(*) FROM scores").fetchone()[0])

    def get(self, keys: Sequence[bytes]) -> dict[bytes, list[float]]:
        """The scores of those keys that the file has.

        Raises:
            FileError: an entry is damaged.
        """
        found: dict[bytes, list[float]] = {}
        with self._errors():
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, numbers, digest FROM scores WHERE key IN ({marks})"
                for key, numbers, digest in self._base.execute(query, some):
                    if _digest(key, numbers) != digest:
                        reason = f"the entry {key.hex()[:16]} is damaged; delete the file"
                        raise FileError(reason, field=str(self.path))
                    found[key] = np.frombuffer(numbers, "<f8").tolist()
        return found

    def put(self, key: bytes, scores: Sequence[float]) -> None:
        """Store scores exactly; a key that exists already keeps its scores.

        Raises:
            FileError: they can't be written.
        """
        numbers = np.asarray(scores, "<f8").tobytes()
        with self._errors():
            entry = (key, numbers, _digest(key, numbers))
            self._base.execute("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", entry)

    def _prepare(self) -> None:
        mark, form, tables = self._marks()
        if tables == 0 and (mark, form) == (0, 0):
            self._create()
        elif mark != APPLICATION_ID:
            raise sqlite3.DatabaseError("not a file of stepcredit's scores")
        elif form != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"has format {form}, which this version cannot read")
        with suppress(sqlite3.OperationalError):  # busy: another process sets it just now
            self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = NORMAL")

    def _create(self) -> None:
        """Create the table, unless another process has just done so."""
        self._base.execute("BEGIN IMMEDIATE")
        if self._marks()[0] == 0:
            self._base.execute(_TABLE)
            self._base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._base.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._base.execute("COMMIT")

    def _reason(self, error: sqlite3.Error) -> str:
        """SQLite's reason; where SQLite only knows that the file can't be opened, the system's."""
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_CORRUPT:
            return "is damaged; delete the file"
        if code == sqlite3.SQLITE_CANTOPEN:
            try:
                self.path.open("ab").close()
            except OSError as cause:
                return reason_of(cause)
        return super()._reason(error)


def remove_store(path: str | Path) -> None:
    """Delete a file of scores and the files that SQLite keeps beside it, if they exist.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.sqlite"
        >>> ScoreStore(path).close()
        >>> remove_store(path)
        >>> path.exists()
        False
    """
    for beside in ("", "-wal", "-shm"):
        Path(f"{path}{beside}").unlink(missing_ok=True)


def _digest(key: bytes, numbers: bytes) -> bytes:
    return sha256(key + numbers).digest()[:16]
