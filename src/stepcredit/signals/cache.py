"""Scores kept on disk, by what was scored: asked for once, however often a run is stopped."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np

from stepcredit.errors import FileError, SettingError
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Scored, Signal, check_scores

MARK = 0x53436163
"""SQLite's application id of our files."""
FORM = 1
"""The form of our files, from 1."""
PATIENCE = 60.0
"""Seconds to wait for another writer."""
AT_ONCE = 500
"""Keys looked up by one statement."""
_TABLE = "CREATE TABLE scores (key BLOB PRIMARY KEY, numbers BLOB, digest BLOB) WITHOUT ROWID"

_MARKS = (
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
    "FROM pragma_application_id, pragma_user_version"
)


class ScoreStore:
    """A file of scores by key: many processes may write it, and any may be killed at any time.

    An entry is written in one transaction of SQLite (write-ahead log) and carries a digest of key
    and numbers, so that what is read is what was written, or an error.

    Args:
        path: the file, made if there is none.

    Raises:
        FileError: it can't be opened, or is something else.

    Example:
        >>> import tempfile
        >>> with ScoreStore(Path(tempfile.mkdtemp()) / "scores.sqlite") as store:
        ...     store.put(b"a", [0.1, 0.9])
        ...     store.get([b"a", b"b"])
        {b'a': [0.1, 0.9]}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._errors():
            self._base = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
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
        """Close the file; what was put is in it already."""
        self._base.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, list[float]]:
        """The scores under those of the keys that there are.

        Raises:
            FileError: an entry is damaged.
        """
        found: dict[bytes, list[float]] = {}
        with self._errors():
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, numbers, digest FROM scores WHERE key IN ({marks})"
                for key, numbers, digest in self._base.execute(query, some):
                    if _digest(key, numbers) != digest:
                        reason = f"the entry {key.hex()[:16]} is damaged; delete the file"
                        raise FileError(reason, field=str(self.path))
                    found[key] = np.frombuffer(numbers, "<f8").tolist()
        return found

    def put(self, key: bytes, scores: Sequence[float]) -> None:
        """Keep scores, exactly; those that are there already stay.

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
            self._found()
        elif mark != MARK:
            raise sqlite3.DatabaseError("not a file of stepcredit's scores")
        elif form != FORM:
            raise sqlite3.DatabaseError(f"of form {form}, which this version does not read")
        with suppress(sqlite3.OperationalError):  # busy: another process sets it just now
            self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = NORMAL")

    def _found(self) -> None:
        """Make the table, unless another process just has."""
        self._base.execute("BEGIN IMMEDIATE")
        if self._marks()[0] == 0:
            self._base.execute(_TABLE)
            self._base.execute(f"PRAGMA application_id = {MARK}")
            self._base.execute(f"PRAGMA user_version = {FORM}")
        self._base.execute("COMMIT")

    def _marks(self) -> tuple[int, int, int]:
        """Application id, form and number of tables, of one moment."""
        found: tuple[int, int, int] = self._base.execute(_MARKS).fetchone()
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise FileError(" ".join(str(error).split()), field=str(self.path)) from error


def remove_store(path: str | Path) -> None:
    """Delete a file of scores and what SQLite keeps beside it, where they are.

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


def key_of(signal: Signal, response: Response) -> bytes:
    """The key of a response's scores: a digest of what the signal is and what it is given.

    Example:
        >>> from stepcredit.signals.registry import signal
        >>> responses = [Response("?", "1 + 1 = 2", ((0, 9),), (9,), name=n) for n in "ab"]
        >>> len({key_of(signal("equations"), response) for response in responses})
        1
    """
    return _key(_spelled(signal.identity), signal.content(response))


@dataclass(frozen=True)
class Cached(Signal):
    """A signal whose scores are kept on disk and asked for once.

    Scores are kept as they come, so that a run that was stopped goes on where it was. The key is
    the signal's identity and the response's content, whatever the response is called.

    Args:
        signal: any whose scores depend on one response alone.
        path: the file, made if there is none; several processes may share it.

    Raises:
        SettingError: a signal that depends on the other responses.
        FileError: the file can't be opened, is something else, or is damaged.

    Example:
        >>> import tempfile
        >>> from stepcredit.signals.registry import signal
        >>> cached = Cached(signal("equations"), Path(tempfile.mkdtemp()) / "scores.sqlite")
        >>> cached.scores([Response("?", "1 + 1 = <<1+1=2>>2", ((0, 18),), (18,))])
        [[1.0]]

    Source: ours.
    """

    signal: Signal
    path: str | Path

    def __post_init__(self) -> None:
        if not self.signal.cacheable:
            reason = f"the scores of {self.signal.name} depend on the other responses"
            raise SettingError(reason, field="cache")
        object.__setattr__(self, "grain", self.signal.grain)

    @property
    def identity(self) -> dict[str, Any]:
        """The signal's."""
        return self.signal.identity

    def content(self, response: Response) -> Any:
        """The signal's."""
        return self.signal.content(response)

    def stream(self, responses: Sequence[Response]) -> Iterator[Scored]:
        """What is kept, then the rest as the signal scores it; like responses are scored once."""
        identity = _spelled(self.identity)
        rows: dict[bytes, list[int]] = {}
        for index, response in enumerate(responses):
            rows.setdefault(_key(identity, self.content(response)), []).append(index)
        with ScoreStore(self.path) as store:
            kept = store.get(list(rows))
            for key, scores in kept.items():
                yield from ((index, scores) for index in rows[key])
            missing = [key for key in rows if key not in kept]
            asked = [responses[rows[key][0]] for key in missing]
            with _ended(self.signal.stream(asked)) as stream:
                for place, scores in stream:
                    check_scores(asked[place], scores, self.grain)
                    store.put(missing[place], scores)
                    yield from ((index, scores) for index in rows[missing[place]])


@contextmanager
def _ended(stream: Iterator[Scored]) -> Iterator[Iterator[Scored]]:
    """A stream that is closed at the end, where it can be: a server is then asked no more."""
    try:
        yield stream
    finally:
        if isinstance(stream, Generator):
            stream.close()


def _spelled(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _key(identity: bytes, content: Any) -> bytes:
    return sha256(sha256(identity).digest() + _spelled(content)).digest()


def _digest(key: bytes, numbers: bytes) -> bytes:
    return sha256(key + numbers).digest()[:16]
