"""Parquet files of rollouts, with one column per field; needs pyarrow."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, TypeVar

from stepcredit.data.files.columns import has_json_form, plain_bytes, plain_type, values_of
from stepcredit.data.files.footer import read_claims
from stepcredit.data.files.jsonl import file_errors, parse
from stepcredit.data.files.limits import MOST_PACKED, Limits
from stepcredit.data.files.parquet_schema import (
    WidenedColumns,
    check_carried,
    check_overflow,
    one_line,
    schema_of,
    text_labels,
    unified_schema,
    with_one_label_type,
)
from stepcredit.data.files.rows import FIELDS
from stepcredit.errors import FileError, MissingExtra, RolloutError, RowError
from stepcredit.handles import temporary_file

Item = TypeVar("Item")
_BATCH = 1024


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        reason = "Parquet files need pyarrow: pip install 'stepcredit[parquet]'"
        raise MissingExtra(reason) from None
    return pyarrow


@contextmanager
def _arrow_errors(name: str, what: str) -> Iterator[None]:
    with file_errors(name):
        try:
            yield
        except MemoryError as error:
            raise FileError(f"{name}: needs more memory than there is: {one_line(error)}") from None
        except (_pyarrow().ArrowException, UnicodeDecodeError, OverflowError) as error:
            raise FileError(f"{name}: {what}: {one_line(error)}") from None


def as_lines(name: str) -> IO[bytes]:
    """A Parquet file's rows as JSON lines in a temporary file; empty cells are absent fields.

    Dates, times (in UTC) and decimals become text. Columns that JSON can't hold are left out;
    `check_json_output` then refuses to write the file as JSON.

    Raises:
        FileError: not a Parquet file, or one with more values than the limit.
        RowError: a row that JSON can't hold, or that is larger than the limit.
        MissingExtra: pyarrow is not installed.
    """
    lines = temporary_file()
    with open(name, "rb") as raw, _arrow_errors(name, "is not a Parquet file"):
        limits = Limits.from_environment(os.fstat(raw.fileno()).st_size)
        done = 0
        for batch in _opened(raw, name, limits).iter_batches(_BATCH):
            for part in _parts(batch, limits, name, done):
                for row in _rows(part, name, done):
                    lines.write(json.dumps(row).encode() + b"\n")
                done += part.num_rows
                if lines.tell() > limits.unpacked_bytes:
                    what = f"the first {done} rows have {lines.tell()} bytes"
                    raise FileError(f"{name}: {limits.passed('unpacked_bytes', what)}")
    lines.seek(0)
    return lines


def _opened(raw: IO[bytes], name: str, limits: Limits) -> Any:
    """Open the file so that a repeated text is kept in memory only once."""
    texts = _checked_texts(raw, name, limits)
    raw.seek(0)
    try:
        file = _pyarrow().parquet.ParquetFile(raw, read_dictionary=texts)
    except KeyError:
        reason = "is not a Parquet file: its footer names columns that its schema lacks"
        raise FileError(f"{name}: {reason}") from None
    for column, times in Counter(file.schema_arrow.names).items():
        if times > 1:
            raise FileError(f"{name}: {column}: is the name of more than one column")
    for field in file.schema_arrow:
        if field.name in FIELDS and not has_json_form(field.type):
            raise FileError(f"{name}: {field.name}: {plain_type(field.type)} can't be read")
    return file


def _checked_texts(raw: IO[bytes], name: str, limits: Limits) -> list[str]:
    """The columns of texts, after a check that the file claims no more than the limits.

    Raises:
        FileError: it claims more, or its footer is broken.
    """
    try:
        claims = read_claims(raw)
    except RolloutError as error:
        raise FileError(f"{name}: is not a Parquet file: {error.reason}") from None
    for path, values in claims.values.items():
        if values > limits.parquet_values:
            reason = limits.passed("parquet_values", f"{values} values in a column")
            raise FileError(f"{name}: {path}: {reason}")
    unpacked, packed = claims.packing
    if unpacked > limits.parquet_values and unpacked > MOST_PACKED * packed:
        reason = f"{packed} bytes are said to hold {unpacked}, more than any writer compresses"
        raise FileError(f"{name}: {reason}")
    return sorted(claims.texts)


def _parts(batch: Any, limits: Limits, name: str, before: int) -> Iterator[Any]:
    """A batch in parts of at most one line's limit of bytes.

    Raises:
        RowError: one row alone is beyond the limit.
    """
    size = sum(map(plain_bytes, batch.columns))
    if size <= limits.line_bytes:
        yield batch
        return
    if batch.num_rows == 1:
        reason = limits.passed("line_bytes", f"a row of {size} bytes")
        raise RowError(reason, path=name, line=before + 1)
    half = batch.num_rows // 2
    yield from _parts(batch.slice(0, half), limits, name, before)
    yield from _parts(batch.slice(half), limits, name, before + half)


def _rows(batch: Any, name: str, before: int) -> Iterator[dict[str, Any]]:
    """A batch's rows, without empty cells and without values that JSON can't hold."""
    kept = [field.name for field in batch.schema if has_json_form(field.type)]
    columns = [_values(batch.column(column), column, name, before) for column in kept]
    rows = zip(*columns, strict=True) if kept else [()] * batch.num_rows
    for line, cells in enumerate(rows, start=before + 1):
        row = {column: cell for column, cell in zip(kept, cells, strict=True) if cell is not None}
        if "signals" in row:
            try:
                row["signals"] = _signals(row["signals"])
            except RolloutError as error:
                raise error.at(field="signals").at_line(name, line) from error.__cause__
        yield row


def _values(cells: Any, column: str, name: str, before: int) -> list[Any]:
    """A column's values.

    Raises:
        RowError: the first that can't be read.
    """
    try:
        return values_of(cells)
    except (ValueError, OverflowError, RuntimeError) as error:  # Arrow's errors are among these
        if len(cells) > 1:
            for at in range(len(cells)):
                _values(cells.slice(at, 1), column, name, before + at)
        is_text = isinstance(error, UnicodeDecodeError)
        reason = "is not UTF-8" if is_text else f"can't be read: {one_line(error)}"
        raise RowError(reason, path=name, line=before + 1, field=column) from None


def _signals(given: Any) -> Any:
    """The field `signals` from a struct, a map or JSON; any other value is refused with its row.

    Raises:
        RolloutError: a string that is not JSON, or a map with a name twice.
    """
    if isinstance(given, str):
        return parse(given.encode())
    if isinstance(given, list) and all(isinstance(item, tuple) for item in given):
        if len(dict(given)) < len(given):
            raise RolloutError("has two signals of one name")
        given = dict(given)
    if not isinstance(given, dict):
        return given
    return {
        name: {key: value for key, value in signal.items() if value is not None}
        if isinstance(signal, dict)
        else signal
        for name, signal in given.items()
        if signal is not None
    }


def column_names(name: str) -> tuple[str, ...]:
    """The names of the columns that JSON can hold.

    Raises:
        FileError: not a Parquet file.
    """
    with _arrow_errors(name, "is not a Parquet file"):
        schema = _pyarrow().parquet.read_schema(name)
    return tuple(field.name for field in schema if has_json_form(field.type))


def check_json_output(name: str) -> None:
    """Refuse to write a Parquet file's rows as JSON where that would lose a column.

    Raises:
        FileError: `FILE: COLUMN: reason`.
    """
    with _arrow_errors(name, "is not a Parquet file"):
        schema = _pyarrow().parquet.read_schema(name)
    for field in schema:
        if not has_json_form(field.type):
            reason = f"JSON can't hold {field.type}: write a .parquet file, or drop the column"
            raise FileError(f"{name}: {field.name}: {reason}")


def replace_columns(name: str, members: Callable[[], Iterable[bytes]], out: IO[bytes]) -> None:
    """Write a Parquet file again with further columns, which replace those of the same name.

    Args:
        name: the file to read; its other columns keep their types.
        members: gives one JSON object per row, its new columns; called once per pass.
        out: the file to write.

    Raises:
        FileError: members that fit no common schema.
    """
    arrow = _pyarrow()
    with open(name, "rb") as raw, _arrow_errors(name, "the new columns fit no Parquet schema"):
        added = _common_schema(map(parse, members()), name)
        source = arrow.parquet.ParquetFile(raw)
        kept = [field for field in source.schema_arrow if field.name not in added.names]
        schema = arrow.schema([*kept, *added], metadata=source.schema_arrow.metadata)
        rows = map(parse, members())
        with arrow.parquet.ParquetWriter(out, schema) as writer:
            for batch in source.iter_batches(_BATCH):
                new = list(islice(rows, batch.num_rows))
                new_columns = arrow.RecordBatch.from_pylist(new, schema=added).columns
                columns = [batch.column(field.name) for field in kept]
                writer.write_batch(arrow.record_batch([*columns, *new_columns], schema=schema))


def select_rows(name: str, keep: Callable[[int], bool], out: IO[bytes]) -> int:
    """Write some of a Parquet file's rows as a Parquet file; the columns keep their types.

    Args:
        name: the file to read.
        keep: whether the row with so many rows before it is written.
        out: the file to write.

    Returns:
        Rows written.
    """
    arrow, done, written = _pyarrow(), 0, 0
    with open(name, "rb") as raw, _arrow_errors(name, "is not a Parquet file"):
        source = arrow.parquet.ParquetFile(raw)
        with arrow.parquet.ParquetWriter(out, source.schema_arrow) as writer:
            for batch in source.iter_batches(_BATCH):
                rows = [keep(done + at) for at in range(batch.num_rows)]
                writer.write_batch(batch.filter(arrow.array(rows)))
                done, written = done + len(rows), written + sum(rows)
    return written


def _common_schema(rows: Iterable[dict[str, Any]], name: str) -> Any:
    schemas: list[Any] = []
    limits = Limits.from_environment()
    for batch in _batches(rows):
        schemas = [unified_schema([*schemas, schema_of(batch, name, limits)])]
    return schemas[0]


def from_lines(lines: Callable[[], Iterable[bytes]], out: IO[bytes], name: str) -> None:
    """Write JSON lines as a Parquet file: one pass finds the columns' types, one writes.

    Args:
        lines: gives the lines; called once per pass.
        out: the file to write.
        name: the file's name, for messages.

    Raises:
        FileError: rows that fit no common schema, or none.
        MissingExtra: pyarrow is not installed.
    """
    arrow, limits = _pyarrow(), Limits.from_environment()
    with _arrow_errors(name, "the rows fit no Parquet schema"):
        schemas: list[Any] = []
        as_text, done = frozenset[str](), 0
        for batch in _batches(lines()):
            rows = list(map(parse, batch))
            check_overflow(batch, name, done)
            as_text |= text_labels(rows)
            widened = WidenedColumns(schemas, as_text, name, limits)
            schemas = [widened.by(with_one_label_type(rows, as_text), done)]
            done += len(rows)
        if not schemas:
            raise FileError(f"{name}: a Parquet file needs at least one row")
        done = 0
        with arrow.parquet.ParquetWriter(out, schemas[0]) as writer:
            for rows in _batches(map(parse, lines())):
                rows = with_one_label_type(rows, as_text)
                batch = arrow.RecordBatch.from_pylist(rows, schema=schemas[0])
                check_carried(rows, batch, name, done)
                writer.write_batch(batch)
                done += len(rows)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
