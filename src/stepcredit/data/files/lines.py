"""Reads the lines of a rollout file: plain, gzip, Parquet or standard input."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from stepcredit.data.files.jsonl import file_errors, parse
from stepcredit.data.files.limits import Limits, weight
from stepcredit.errors import FileError, RolloutError, RowError
from stepcredit.handles import standard_input, temporary_file

Progress = Callable[[float], None]
Integers = np.ndarray[Any, np.dtype[np.int64]]
_REPORT_EVERY = 512
_BUFFER = 1 << 16


class Line(NamedTuple):
    """One row of the file as bytes: `position` rows are before it, `number` is its line from 1."""

    position: int
    number: int
    raw: bytes


@dataclass
class Index:
    """Where each row begins in the file, and an order of rows in which groups are contiguous."""

    offset: array[int] = field(default_factory=lambda: array("q"))
    number: array[int] = field(default_factory=lambda: array("q"))
    order: Integers = field(default_factory=lambda: np.empty(0, np.int64))


class Source:
    """The lines of one file. Use it as a context manager.

    Blank lines and a UTF-8 byte order mark at the start of the file are skipped.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-" for standard input.
        progress: called from time to time with the fraction of the file read in this pass.

    Raises:
        FileError: the file can't be opened.
        RowError: a Parquet file's row that JSON can't hold.
        SettingError: an environment variable that is not a valid limit.
    """

    def __init__(self, path: str | Path, progress: Progress | None = None) -> None:
        self.name = str(path)
        self.is_parquet = self.name.endswith(".parquet")
        self.is_packed = self.is_parquet or self.name.endswith(".gz")
        self._progress = progress
        self._index: Index | None = None
        with file_errors(self.name):
            self._raw = self._open()
        self._size = os.fstat(self._raw.fileno()).st_size
        on_disk = os.path.getsize(self.name) if self.is_parquet else self._size
        self.limits = Limits.from_environment(on_disk)
        self._lines: IO[bytes] = self._raw
        if self.name.endswith(".gz"):
            self._lines = io.BufferedReader(gzip.GzipFile(fileobj=self._raw), _BUFFER)

    def _open(self) -> IO[bytes]:
        if self.is_parquet:
            from stepcredit.data.files.parquet import as_lines

            return as_lines(self.name)
        if self.name == "-":
            return _spooled(standard_input())
        raw = open(self.name, "rb", _BUFFER)  # noqa: SIM115 - closed by __exit__
        return raw if raw.seekable() else _spooled(raw)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._raw.close()

    def lines(self) -> Iterator[Line]:
        """All rows, in the file's order.

        Raises:
            FileError: the file can't be read.
            RowError: a line that is longer than the limit.
        """
        with file_errors(self.name):
            position = 0
            for number, raw in enumerate(self._raw_lines(), start=1):
                if self._progress is not None and number % _REPORT_EVERY == 0:
                    self._progress(self._raw.tell() / max(1, self._size))
                raw = _stripped(raw, number)
                if raw:
                    yield Line(position, number, raw)
                    position += 1

    def held_lines(self) -> Iterator[Line]:
        """All rows, for a caller that holds what it makes of them together in memory.

        Raises:
            FileError: the file can't be read.
            RowError: a line that is longer than the limit, or rows of a compressed file that
                together pass `Limits.held_bytes`.
        """
        held = 0
        for line in self.lines():
            held += weight(line.raw) if self.is_packed else 0
            if held > self.limits.held_bytes:
                what = f"the rows up to here take {held} bytes of memory"
                reason = self.limits.passed("held_bytes", what)
                raise RowError(reason, path=self.name, line=line.number)
            yield line

    def _raw_lines(self) -> Iterator[bytes]:
        """The file from its start, line by line; a line is read up to the limit only."""
        self._lines.seek(0)
        most = self.limits.line_bytes
        for number, raw in enumerate(iter(partial(self._lines.readline, most + 1), b""), start=1):
            if len(raw) > most and not raw.endswith(b"\n"):
                reason = self.limits.passed("line_bytes", f"a line of {len(raw)} bytes or more")
                raise RowError(reason, path=self.name, line=number)
            yield raw

    def grouped_lines(self) -> Iterator[Line]:
        """All rows, with the rows of each group together, groups in order of first appearance.

        Raises:
            FileError: the file can't be read.
        """
        with file_errors(self.name):
            if self._index is None:
                self._index = self._make_index()
            index = self._index
            for done, position in enumerate(map(int, index.order), start=1):
                if done % _REPORT_EVERY == 0 and self._progress is not None:
                    self._progress(done / len(index.order))
                self._lines.seek(index.offset[position])
                number = index.number[position]
                yield Line(position, number, _stripped(self._lines.readline(), number))

    def _make_index(self) -> Index:
        """Read every row's label in one pass; rows without a readable label come last."""
        if self._lines is not self._raw:
            self._lines.seek(0)
            unpacked = _spooled(self._lines, self.limits, self.name)
            self._lines.close()
            self._raw.close()
            self._lines = self._raw = unpacked
            self._size = os.fstat(unpacked.fileno()).st_size
        index, groups = Index(), array("q")
        labels: dict[str, int] = {}
        offset = 0
        for number, raw in enumerate(self._raw_lines(), start=1):
            row = _stripped(raw, number)
            if row:
                index.offset.append(offset)
                index.number.append(number)
                label = _label(row)
                known = labels.setdefault(label, len(labels)) if label is not None else sys.maxsize
                groups.append(known)
            offset += len(raw)
        index.order = np.frombuffer(groups, np.int64).argsort(kind="stable")
        return index


def _stripped(raw: bytes, number: int) -> bytes:
    """A line without the space around it, and the first line without its byte order mark."""
    return (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).strip()


def _label(raw: bytes) -> str | None:
    try:
        return str(parse(raw)["group"])
    except (RolloutError, TypeError, KeyError, IndexError):
        return None


def _spooled(stream: IO[bytes], limits: Limits | None = None, name: str = "") -> IO[bytes]:
    """Copy a stream to a temporary file, which can be read again.

    Raises:
        FileError: the copy is larger than the limit, if there is one.
    """
    copy = temporary_file()
    while piece := stream.read(1 << 20):
        copy.write(piece)
        if limits is not None and copy.tell() > limits.unpacked_bytes:
            copy.close()
            reason = limits.passed("unpacked_bytes", f"{limits.unpacked_bytes + 1} bytes unpacked")
            raise FileError(f"{name}: {reason}")
    copy.seek(0)
    return copy
