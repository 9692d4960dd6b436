"""Advantages of a file's rows, kept on disk until the whole file is known to be good."""

from __future__ import annotations

import os
import tempfile
from array import array
from contextlib import suppress

import numpy as np

from stepcredit.data.advantages import Advantages
from stepcredit.data.checks import Row
from stepcredit.data.splice import Float32Array
from stepcredit.errors import RolloutError


class Results:
    """One array of advantages a row, put in any order and taken by the row's position.

    Memory is 17 bytes a row. Use it as a context manager.

    Args:
        folder: where the temporary file lies; it has no name and is gone with the process.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=1 << 20)  # noqa: SIM115
        self._written = 0
        self._start, self._size = array("q"), array("q")
        self._replaces = bytearray()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # on a full disk closing fails again; the first error is told
            self._file.close()

    def __len__(self) -> int:
        return len(self._size)

    def clear(self) -> None:
        """Forget all rows."""
        self._file.seek(0)
        self._file.truncate()
        self._written = 0
        self._start, self._size, self._replaces = array("q"), array("q"), bytearray()

    def put(self, rows: list[Row], advantages: Advantages) -> None:
        """Keep the advantages of `rows`, 0 at tokens that are not trained.

        Raises:
            RolloutError: an advantage that is no finite number, or not one a trained token.
        """
        packed = advantages.packed().numpy()
        _check(rows, packed)
        at = 0
        for row in rows:
            values = _on_response(packed[at : at + row.length], row.mask)
            at += row.length
            self._note(row, values.size)
            self._file.write(values.data)

    def _note(self, row: Row, size: int) -> None:
        missing = row.position + 1 - len(self._size)
        if missing > 0:
            self._start.extend([0] * missing)
            self._size.extend([0] * missing)
            self._replaces.extend(bytes(missing))
        self._start[row.position], self._size[row.position] = self._written, size
        self._replaces[row.position] = "advantages" in row.fields
        self._written += size

    def flush(self) -> None:
        """Make all that was put readable."""
        self._file.flush()

    def get(self, position: int) -> Float32Array:
        """Advantages of the row with `position` rows before it, one a token of the response."""
        start, size = self._start[position], self._size[position]
        return np.frombuffer(os.pread(self._file.fileno(), 4 * size, 4 * start), dtype=np.float32)

    def replaces(self, position: int) -> bool:
        """Did the row come with advantages?"""
        return bool(self._replaces[position])


def _check(rows: list[Row], packed: Float32Array) -> None:
    ends = np.cumsum([row.length for row in rows])
    if packed.size != ends[-1]:
        raise RolloutError(f"{packed.size} advantages, but {ends[-1]} trained tokens")
    if not np.isfinite(packed).all():
        at = int(np.flatnonzero(~np.isfinite(packed))[0])
        row = int(np.searchsorted(ends, at, side="right"))
        reason = f"the method gives {packed[at]}, which is not a finite number"
        raise RolloutError(reason, row=row, field="advantages")


def _on_response(values: Float32Array, mask: list[int] | None) -> Float32Array:
    if mask is None:
        return values
    whole = np.zeros(len(mask), dtype=np.float32)
    whole[np.array(mask, dtype=bool)] = values
    return whole
