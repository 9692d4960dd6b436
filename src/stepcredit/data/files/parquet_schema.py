"""The columns of a Parquet file that is written: their types, and the values they can't hold."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from math import isinf
from typing import Any

from stepcredit.data.files.limits import Limits
from stepcredit.data.files.rows import FIELDS, TRAJECTORY
from stepcredit.data.inputs import LOGPROBS
from stepcredit.data.rules import shown
from stepcredit.data.states import FIELD as STATES
from stepcredit.errors import FileError, RowError

_ZEROS = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE = (b"0e000", b"0e+000", b"0" * 200)
"""One of them is in every number too large for a 64-bit float, after `_ZEROS`."""
GROUP = "group"
_SCORES = ("step_scores", "token_scores", *(f"{name}_logprobs" for name in LOGPROBS))


def one_line(error: Exception) -> str:
    """The first line of an error of Arrow's."""
    return str(error).partition("\n")[0]


@dataclass(frozen=True)
class WidenedColumns:
    """The columns so far, widened by the next rows.

    Args:
        schemas: the columns of the rows before; none for the first rows.
        as_text: the columns of labels that are strings, as `text_labels` gives them.
        name: the file to write, for messages.
        limits: on the number of columns.
    """

    schemas: list[Any]
    as_text: frozenset[str]
    name: str
    limits: Limits

    def by(self, rows: list[dict[str, Any]], before: int) -> Any:
        """The columns that hold these rows too.

        Raises:
            RowError: names the first row that fits no common column.
        """
        import pyarrow as arrow

        try:
            return self._columns(rows)
        except (arrow.ArrowException, OverflowError) as error:
            sizes = range(1, len(rows) + 1)
            first = sizes[bisect_left(sizes, True, key=lambda size: self._fails(rows[:size]))]
            reason = f"the rows fit no Parquet schema: {one_line(error)}"
            raise RowError(reason, path=self.name, line=before + first) from None

    def _columns(self, rows: list[dict[str, Any]]) -> Any:
        schema = schema_of(rows, self.name, self.limits)
        return unified_schema([*self.schemas, schema], self.as_text)

    def _fails(self, rows: list[dict[str, Any]]) -> bool:
        from pyarrow import ArrowException

        try:
            self._columns(rows)
        except (ArrowException, OverflowError):
            return True
        return False


class _TooLarge(str):
    """A number of JSON that is too large for a 64-bit float, as it is written."""


def check_overflow(lines: list[bytes], name: str, before: int) -> None:
    """Refuse a number such as 1e400, of which a column would make Infinity.

    Infinity itself is kept, as in JSON.

    Args:
        lines: rows as JSON.
        name: the output, for messages.
        before: rows before them.

    Raises:
        RowError: names the output, the row and the column.
    """
    for at, line in enumerate(lines):
        zeros = line.translate(_ZEROS)
        if not any(large in zeros for large in _LARGE):
            continue
        for column, value in json.loads(line, parse_float=_number_or_text).items():
            if _holds_too_large(value):
                reason = "holds a number too large for a column of a Parquet file"
                raise RowError(reason, path=name, line=before + at + 1, field=column)


def _number_or_text(text: str) -> float | _TooLarge:
    return _TooLarge(text) if isinf(float(text)) else float(text)


def _holds_too_large(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_too_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, _TooLarge)


def check_carried(rows: list[dict[str, Any]], batch: Any, name: str, before: int) -> None:
    """Refuse a value that its column would change, such as a long integer among fractions.

    Raises:
        RowError: names the output, the row and the column.
    """
    for column in batch.schema.names:
        if column in FIELDS:
            continue
        for line, (row, cell) in enumerate(
            zip(rows, batch.column(column).to_pylist(), strict=True)
        ):
            if not _is_kept(row.get(column), cell):
                value = shown(row[column], as_json=True)
                reason = f"{value} would be changed in this column of a Parquet file"
                raise RowError(reason, path=name, line=before + line + 1, field=column)


def _is_kept(value: Any, cell: Any) -> bool:
    """Whether a cell holds the value; an object's absent members are empty cells."""
    if isinstance(value, dict) and isinstance(cell, dict):
        return all(_is_kept(value.get(name), cell[name]) for name in cell)
    if isinstance(value, list) and isinstance(cell, list):
        return len(value) == len(cell) and all(map(_is_kept, value, cell))
    return bool(value == cell or (value != value and cell != cell))


def schema_of(rows: list[dict[str, Any]], name: str, limits: Limits) -> Any:
    """The types of all columns that any row has (Arrow itself reads only the first row's columns).

    Raises:
        ArrowInvalid: values that fit no column.
        FileError: more columns than the limit.
    """
    import pyarrow as arrow

    fields = []
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if len(columns) > limits.parquet_columns:
        reason = limits.passed("parquet_columns", f"{len(columns)} columns")
        raise FileError(f"{name}: {reason}")
    for column in columns:
        try:
            fields.append((column, arrow.array([row.get(column) for row in rows]).type))
        except (arrow.ArrowException, OverflowError) as error:
            raise arrow.ArrowInvalid(f"{column}: {one_line(error)}") from None
    return arrow.schema(fields)


def text_labels(rows: list[dict[str, Any]]) -> frozenset[str]:
    """The columns of labels (groups, trajectories, states of steps) in which a label is a string.

    Example:
        >>> text_labels([{"group": 1, "step_states": [[3, "a"]]}])
        frozenset({'step_states'})
    """
    return frozenset(
        name
        for name in (GROUP, TRAJECTORY, STATES)
        if any(_holds_text(row.get(name)) for row in rows)
    )


def _holds_text(labels: Any) -> bool:
    return any(map(_holds_text, labels)) if isinstance(labels, list) else isinstance(labels, str)


def _as_text(labels: Any) -> Any:
    """Labels at any depth of lists as strings."""
    return list(map(_as_text, labels)) if isinstance(labels, list) else str(labels)


def with_one_label_type(
    rows: list[dict[str, Any]], as_text: frozenset[str]
) -> list[dict[str, Any]]:
    """Labels of one type: all of a column are strings if one is (3 and "3" are the same label).

    Example:
        >>> with_one_label_type([{"group": 3, "step_states": [1]}], frozenset({"step_states"}))
        [{'group': 3, 'step_states': ['1']}]
    """
    if not as_text:
        return rows
    return [
        {**row, **{name: _as_text(row[name]) for name in as_text if row.get(name) is not None}}
        for row in rows
    ]


def unified_schema(schemas: list[Any], as_text: frozenset[str] = frozenset()) -> Any:
    """All columns together; those of the format have the format's types."""
    import pyarrow as arrow

    known = {name: arrow.list_(arrow.float64()) for name in _SCORES}
    known |= {name: arrow.list_(arrow.int64()) for name in ("step_ends", "token_ids", "loss_mask")}
    known |= {"outcome": arrow.float64(), "format": arrow.float64()}
    known |= {"advantages": arrow.list_(arrow.float32())}
    known |= {name: arrow.string() for name in (GROUP, TRAJECTORY) if name in as_text}

    def type_of(field: Any) -> Any:
        if field.name == STATES and field.name in as_text:
            return _text_type(field.type)
        return known.get(field.name, field.type)

    typed = [
        arrow.schema([field.with_type(type_of(field)) for field in schema]) for schema in schemas
    ]
    return arrow.unify_schemas(typed, promote_options="permissive")


def _text_type(type: Any) -> Any:
    """The type of lists of strings that are as deep as a type's."""
    import pyarrow as arrow

    return arrow.list_(_text_type(type.value_type)) if arrow.types.is_list(type) else arrow.string()
