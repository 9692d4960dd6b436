"""Temporary storage on disk: one piece of bytes per row, written in any order, read by row."""

from __future__ import annotations

import os
from array import array
from contextlib import suppress

from stepcredit.handles import temporary_file


class Spool:
    """One piece of bytes per row. Use it as a context manager.

    It takes 16 bytes of memory per row.

    Args:
        folder: where the temporary file is; it has no name, and the system deletes it with the
            process.

    Example:
        >>> with Spool() as spool:
        ...     spool.put(1, b"second")
        ...     spool.flush()
        ...     len(spool), spool.get(0), spool.get(1)
        (2, b'', b'second')
    """

    def __init__(self, folder: str | None = None) -> None:
        self._file = temporary_file(folder)
        self._written = 0
        self._start, self._size = array("q"), array("q")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # on a full disk closing fails again; the first error is reported
            self._file.close()

    def __len__(self) -> int:
        return len(self._size)

    def clear(self) -> None:
        """Delete all pieces."""
        self._file.seek(0)
        self._file.truncate()
        self._written = 0
        self._start, self._size = array("q"), array("q")

    def put(self, position: int, piece: bytes | memoryview) -> None:
        """Store a row's piece; rows before it without a piece get an empty one."""
        missing = position + 1 - len(self._size)
        if missing > 0:
            self._start.extend([0] * missing)
            self._size.extend([0] * missing)
        size = memoryview(piece).nbytes
        self._start[position], self._size[position] = self._written, size
        self._file.write(piece)
        self._written += size

    def flush(self) -> None:
        """Make all stored pieces readable."""
        self._file.flush()

    def get(self, position: int) -> bytes:
        """The piece of the row with `position` rows before it."""
        return os.pread(self._file.fileno(), self._size[position], self._start[position])
