"""Limits on the memory that a file may take, so that a small file can't take many gigabytes."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace

from stepcredit.errors import SettingError

PREFIX = "STEPCREDIT_MAX_"
WEIGHTS = {b"[": 64, b"{": 64, b'"': 24, b",": 32}
"""Bytes of memory per list, per object, per quote of a string, and per further value (measured)."""
ROW_BYTES = 512
"""Bytes of memory that a row takes, however short its line is."""
MOST_PACKED = 1000
"""Most bytes that one byte of an ordinary compressed file unpacks to."""
MEMORY_PER_BYTE = 32
"""Most bytes of memory per byte of a file; no uncompressed line takes more."""
MEMORY_PER_PACKED_BYTE = 4 * MEMORY_PER_BYTE
"""Most bytes of memory per byte of an ordinary compressed file."""


@dataclass(frozen=True)
class Limits:
    """Limits on files of rows; each can be set by an environment variable.

    `STEPCREDIT_MAX_LINE_BYTES` sets `line_bytes`, and so on. The variables are read whenever a
    file is opened, so they apply to commands, to Python and to trainers.

    Args:
        line_bytes: bytes of one line, unpacked; of a Parquet file, of one row.
        group_bytes: bytes of memory that one group's rows take, as `weight` estimates them, in a
            compressed file. It may be 32 times the file's size, if that is more, so that an
            uncompressed file is never refused for it.
        group_tokens: tokens of one group's table (its rows x its longest row) for which no list in
            the file has an item: those of a bare `length` or `step_ends`, and the padding of
            shorter rows. A file with more bytes than that may have as many as it has bytes.
        held_bytes: the same for all rows of a compressed file or of a log, where a command holds
            them together (`audit`, `attack`). It may be 128 times the file's size, if that is more.
        held_tokens: tokens of all those responses for which no list in the file has an item. A
            file with more bytes than that may have as many as it has bytes.
        unpacked_bytes: bytes of a compressed file's rows in a temporary file, which is made for a
            Parquet file and for a `.gz` file whose groups are not contiguous. It may be 1000 times
            the file's size, if that is more.
        signals: streams of one group under `signals`; of a file whose rows are held together, of
            all groups.
        parquet_columns: columns of a Parquet file to write.
        parquet_values: values in one column of a Parquet file to read. A file with more bytes than
            that may have as many as it has bytes.

    Example:
        >>> Limits().line_bytes == 64 * 2**20
        True
    """

    line_bytes: int = 64 << 20
    group_bytes: int = 512 << 20
    group_tokens: int = 32 << 20
    held_bytes: int = 1 << 30
    held_tokens: int = 32 << 20
    unpacked_bytes: int = 4 << 30
    signals: int = 1000
    parquet_columns: int = 10_000
    parquet_values: int = 32 << 20

    @classmethod
    def from_environment(cls, file_bytes: int = 0) -> Limits:
        """The limits for a file of that many bytes.

        Raises:
            SettingError: a variable that is not a whole number of at least 1.
        """
        given = {
            field.name: _number(PREFIX + field.name.upper())
            for field in fields(cls)
            if PREFIX + field.name.upper() in os.environ
        }
        limits = cls(**given)
        return replace(
            limits,
            group_bytes=max(limits.group_bytes, MEMORY_PER_BYTE * file_bytes),
            held_bytes=max(limits.held_bytes, MEMORY_PER_PACKED_BYTE * file_bytes),
            held_tokens=max(limits.held_tokens, file_bytes),
            unpacked_bytes=max(limits.unpacked_bytes, MOST_PACKED * file_bytes),
            group_tokens=max(limits.group_tokens, file_bytes),
            parquet_values=max(limits.parquet_values, file_bytes),
        )

    def passed(self, name: str, what: str) -> str:
        """The reason to give when the limit `name` is exceeded.

        Example:
            >>> Limits().passed("signals", "2000 signals in a group")
            '2000 signals in a group, more than 1000: set STEPCREDIT_MAX_SIGNALS to allow more'
        """
        return f"{what}, more than {getattr(self, name)}: set {PREFIX}{name.upper()} to allow more"


def weight(raw: bytes) -> int:
    """An estimate of the bytes of memory that a line takes once it is read.

    Example:
        >>> weight(b'{"group": 1}')
        636
    """
    held = sum(raw.count(byte) * weight for byte, weight in WEIGHTS.items())
    return len(raw) + ROW_BYTES + held


def _number(variable: str) -> int:
    text = os.environ[variable]
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise SettingError(f"expected a whole number from 1, got {text!r:.40}", field=variable)
    return int(text)
