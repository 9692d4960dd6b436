"""Columns of numbers in few bytes: rounded to four digits, as differences, and deflated.

`templates/page_unpacking.js` reads what is written here.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

DIGITS_KEPT = 4
"""Digits of a column's largest number that are kept; the others are rounded to its decimals."""
LARGEST_PLACE = 32_767
"""The largest place that `add_places` takes, and the largest difference: 16 bits with the sign."""
Codes = NDArray[np.int64]
ColumnReference = list[int] | float | None


@dataclass
class ColumnPacker:
    """Collects the columns of one response, and writes them.

    A column x becomes the integers q, and q its differences of order 0, 1 or 2 from the end on,
    whichever are smallest: return-to-go and divisors have small differences.

        q_t = round(x_t / 10^e),   e = floor(log10 max |x|) - DIGITS_KEPT + 1

    The error is at most 10^e / 2, less than 1/1,000 of the column's largest number.

    Example:
        >>> packer = ColumnPacker()
        >>> packer.add(np.array([0.5, 0.5])), packer.add(np.array([0.12345, 2.0]))
        (0.5, [0])
        >>> len(packer.packed({"prompt": "2+2?"})) < 100
        True
    """

    _described: list[tuple[int, int, int]] = field(default_factory=list)
    _planes: list[bytes] = field(default_factory=list)

    def add(self, values: NDArray[Any]) -> ColumnReference:
        """Add a column of numbers.

        Returns:
            Its number in a list; the number itself where all of it are equal after rounding; None
            where one of it is not finite.
        """
        given = np.asarray(values, dtype=np.float64)
        if not np.isfinite(given).all():
            return None
        largest = float(np.abs(given).max(initial=0.0))
        exponent = int(np.floor(np.log10(largest))) - DIGITS_KEPT + 1 if largest else 0
        scaled = given / 10.0**exponent if exponent > 0 else given * 10.0**-exponent
        codes = np.floor(scaled + 0.5).astype(np.int64)
        if codes.size and (codes == codes[0]).all():
            return float(f"{codes[0]}e{exponent}")
        return self._added(codes, exponent)

    def add_places(self, places: list[int]) -> list[int]:
        """Add a column of places, which are kept exactly; at most `LARGEST_PLACE` each."""
        return self._added(np.array(places, dtype=np.int64), 0)

    def packed(self, fields: Mapping[str, Any]) -> str:
        """The columns and other fields of the response, deflated, in base64.

        Args:
            fields: plain values; columns stand in them as `add` and `add_places` returned them.
        """
        header = orjson.dumps({**fields, "columns": self._described})
        whole = struct.pack("<I", len(header)) + header + b"".join(self._planes)
        return base64.b64encode(zlib.compress(whole, 9)).decode()

    def _added(self, codes: Codes, exponent: int) -> list[int]:
        turned = codes[::-1]
        changes = [turned, *(np.diff(turned, n, prepend=[0] * n) for n in (1, 2))]
        order = int(np.argmin([_bits(change) for change in changes]))
        self._described.append((len(codes), exponent, order))
        self._planes.append(_byte_planes(changes[order]))
        return [len(self._described) - 1]


def _bits(changes: Codes) -> float:
    """About how many bits they take; infinite where one of them does not fit into 16."""
    sizes = np.abs(changes)
    return float(np.log2(1.0 + sizes).sum()) if sizes.max(initial=0) <= LARGEST_PLACE else np.inf


def _byte_planes(changes: Codes) -> bytes:
    """The low bytes of all numbers, then the high ones; signs stand in the lowest bit."""
    folded = np.where(changes < 0, -2 * changes - 1, 2 * changes).astype("<u2")
    halves = folded.view(np.uint8).reshape(-1, 2)
    return halves[:, 0].tobytes() + halves[:, 1].tobytes()
