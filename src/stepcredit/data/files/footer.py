"""Reads a Parquet file's footer: how many values each column claims to hold.

It is read before Arrow allocates memory for the values. Arrow's own reader ends the whole process
if the footer is broken (pyarrow 26), so it is not used here. The footer is a struct of Thrift's
compact protocol; its field numbers are those of parquet.thrift in apache/parquet-format.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Any

from stepcredit.errors import RolloutError

_MAGIC = b"PAR1"
_ROW_GROUPS, _COLUMNS, _COLUMN = 4, 1, 3
_TYPE, _PATH, _VALUES, _UNPACKED, _PACKED = 1, 3, 5, 6, 7
_BYTE_ARRAY = 6


@dataclass
class Claims:
    """What a file's footer says about its columns.

    Args:
        values: values by column, over all row groups.
        texts: columns of strings or bytes.
        packing: bytes unpacked, and packed, of the column chunk with the highest compression.
    """

    values: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    packing: tuple[int, int] = (0, 1)


def read_claims(file: IO[bytes]) -> Claims:
    """What a file's footer claims; nothing if the footer is encrypted.

    Raises:
        RolloutError: it can't be read.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - 8))
    length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
    if magic != _MAGIC or length > size - 12:
        return Claims()  # Arrow says what is wrong with it
    file.seek(size - 8 - length)
    claims = Claims()
    try:
        for group in _Thrift(file.read(length)).struct()[_ROW_GROUPS]:
            for chunk in group[_COLUMNS]:
                _add(claims, chunk[_COLUMN])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError):
        raise RolloutError("its footer can't be read") from None
    return claims


def _add(claims: Claims, column: dict[int, Any]) -> None:
    path = ".".join(name.decode() for name in column[_PATH])
    unpacked, packed = column[_UNPACKED], max(1, column[_PACKED])
    claims.values[path] += max(0, column[_VALUES])
    if column[_TYPE] == _BYTE_ARRAY:
        claims.texts.add(path)
    if unpacked * claims.packing[1] > claims.packing[0] * packed:
        claims.packing = unpacked, packed


class _Thrift:
    """Reads values of Thrift's compact protocol; a struct is a dict by field number."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise IndexError(count)
        self._at += count
        return self._data[self._at - count : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._unsigned())
            case 9 | 10:
                head = self._byte()
                count = head >> 4 if head >> 4 < 15 else self._unsigned()
                return [self._value(head & 15) for _ in range(count)]
            case 11:
                return self._map()
            case 12:
                return self.struct()
        raise ValueError(kind)

    def _map(self) -> list[tuple[Any, Any]]:
        count = self._unsigned()
        kinds = self._byte() if count else 0
        return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
