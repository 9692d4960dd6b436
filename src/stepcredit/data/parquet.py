"""Parquet files of rollouts: the same columns as the JSON lines, where pyarrow is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, TypeVar

from stepcredit.data.inputs import LOGPROBS
from stepcredit.data.jsonlines import parse
from stepcredit.errors import FileError, MissingExtra
from stepcredit.handles import temporary_file

Item = TypeVar("Item")
_BATCH = 1024
_SCORES = ("step_scores", "token_scores", *(f"{name}_logprobs" for name in LOGPROBS))


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
    try:
        yield
    except _pyarrow().ArrowException as error:
        first_line = str(error).partition("\n")[0]
        raise FileError(f"{name}: {what}: {first_line}") from None


def as_lines(name: str) -> IO[bytes]:
    """A Parquet file's rows as JSON lines in a temporary file; empty cells are absent fields.

    Raises:
        FileError: not a Parquet file.
        MissingExtra: pyarrow is not installed.
    """
    lines = temporary_file()
    with open(name, "rb") as raw, _arrow_errors(name, "is not a Parquet file"):
        for batch in _pyarrow().parquet.ParquetFile(raw).iter_batches(_BATCH):
            for row in batch.to_pylist():
                lines.write(json.dumps(_present(row), default=str).encode() + b"\n")
    lines.seek(0)
    return lines


def _present(row: dict[str, Any]) -> dict[str, Any]:
    """The row without its empty cells; the format's `signals` may be a map or a struct."""
    present = {name: value for name, value in row.items() if value is not None}
    if "signals" in present:
        signals = {name: value for name, value in dict(present["signals"]).items() if value}
        present["signals"] = {
            name: {key: value for key, value in signal.items() if value is not None}
            for name, signal in signals.items()
        }
    return present


def with_columns(name: str, members: Callable[[], Iterable[bytes]], out: IO[bytes]) -> None:
    """A Parquet file with further columns, in place of its own of the same name.

    Args:
        name: the file to read; its other columns keep their types.
        members: gives anew at each call a JSON object a row, its new columns.
        out: the file to write.

    Raises:
        FileError: members that fit no common schema.
    """
    arrow = _pyarrow()
    with open(name, "rb") as raw, _arrow_errors(name, "the new columns fit no Parquet schema"):
        added = _common_schema(map(parse, members()))
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


def _common_schema(rows: Iterable[dict[str, Any]]) -> Any:
    schemas: list[Any] = []
    for batch in _batches(rows):
        schemas = [_unified([*schemas, _schema(batch)], as_text=False)]
    return schemas[0]


def from_lines(lines: Callable[[], Iterable[bytes]], out: IO[bytes], name: str) -> None:
    """JSON lines as a Parquet file: one pass for the columns' types, one to write.

    Args:
        lines: gives the lines anew at each call.
        out: the file to write.
        name: the file's name, for messages.

    Raises:
        FileError: rows that fit no common schema, or none.
        MissingExtra: pyarrow is not installed.
    """
    arrow = _pyarrow()
    with _arrow_errors(name, "the rows fit no Parquet schema"):
        schemas, as_text = [], False
        for rows in _batches(map(parse, lines())):
            as_text = as_text or any(isinstance(row["group"], str) for row in rows)
            schemas.append(_schema(_grouped(rows, as_text)))
            schemas = [_unified(schemas, as_text)]
        if not schemas:
            raise FileError(f"{name}: a Parquet file needs at least one row")
        with arrow.parquet.ParquetWriter(out, schemas[0]) as writer:
            for rows in _batches(map(parse, lines())):
                batch = arrow.RecordBatch.from_pylist(_grouped(rows, as_text), schema=schemas[0])
                writer.write_batch(batch)


def _schema(rows: list[dict[str, Any]]) -> Any:
    """Types of all columns that any row has (Arrow's own rows look at the first row's alone)."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return _pyarrow().record_batch(columns).schema


def _grouped(rows: list[dict[str, Any]], as_text: bool) -> list[dict[str, Any]]:
    """Labels of one type: all strings where one is (groups 3 and "3" are the same)."""
    return [{**row, "group": str(row["group"])} for row in rows] if as_text else rows


def _unified(schemas: list[Any], as_text: bool) -> Any:
    """All columns seen; those of the format have its types."""
    arrow = _pyarrow()
    known = {name: arrow.list_(arrow.float64()) for name in _SCORES}
    known |= {name: arrow.list_(arrow.int64()) for name in ("step_ends", "token_ids", "loss_mask")}
    known |= {"outcome": arrow.float64(), "format": arrow.float64()}
    known |= {"advantages": arrow.list_(arrow.float32())}
    known |= {"group": arrow.string()} if as_text else {}
    typed = [
        arrow.schema([field.with_type(known.get(field.name, field.type)) for field in schema])
        for schema in schemas
    ]
    return arrow.unify_schemas(typed, promote_options="permissive")


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
