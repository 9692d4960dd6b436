"""Columns of numbers written into a Parquet file; the other columns keep their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO


def with_columns(path: str, columns: Mapping[str, Sequence[float]], out: IO[bytes]) -> None:
    """A Parquet file with these columns, in place of its own of the same name.

    Args:
        path: the file to read.
        columns: a value a row each; `format_ok` is written as a bool, the others as float64.
        out: the file to write.
    """
    import pyarrow
    import pyarrow.parquet

    types = dict.fromkeys(columns, pyarrow.float64())
    if "format_ok" in types:
        types["format_ok"] = pyarrow.bool_()
    with open(path, "rb") as raw:
        source = pyarrow.parquet.ParquetFile(raw)
        kept = [field for field in source.schema_arrow if field.name not in columns]
        added = [pyarrow.field(name, kind) for name, kind in types.items()]
        schema = pyarrow.schema([*kept, *added], metadata=source.schema_arrow.metadata)
        first = 0
        with pyarrow.parquet.ParquetWriter(out, schema) as writer:
            for batch in source.iter_batches():
                rows = slice(first, first := first + batch.num_rows)
                cells = {name: pyarrow.array(values[rows]) for name, values in columns.items()}
                new = [cells[name].cast(kind) for name, kind in types.items()]
                old = [batch.column(field.name) for field in kept]
                writer.write_batch(pyarrow.record_batch([*old, *new], schema=schema))
