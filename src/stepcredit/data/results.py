"""Advantages of a file's rows, kept on disk until the whole file is known to be good."""

from __future__ import annotations

import numpy as np

from stepcredit.data.advantages import Advantages
from stepcredit.data.checks import Row
from stepcredit.data.splice import Float32Array
from stepcredit.data.spool import Spool
from stepcredit.errors import RolloutError


class Results(Spool):
    """One array of advantages a row, put in any order and taken by the row's position.

    Memory is 17 bytes a row. Use it as a context manager.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(folder)
        self._replaces = bytearray()

    def clear(self) -> None:
        """Forget all rows."""
        super().clear()
        self._replaces = bytearray()

    def keep(self, rows: list[Row], advantages: Advantages) -> None:
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
            self.put(row.position, values.data)
            self._replaces.extend(bytes(len(self) - len(self._replaces)))
            self._replaces[row.position] = "advantages" in row.fields

    def advantages(self, position: int) -> Float32Array:
        """Advantages of the row with `position` rows before it, one a token of the response."""
        return np.frombuffer(self.get(position), dtype=np.float32)

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
