"""Converts the columns of a Parquet file to JSON values, and refuses what JSON can't hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from stepcredit.errors import RolloutError

_OUT_OF_RANGE = "<value out of range"


def has_json_form(type: Any) -> bool:
    """Whether JSON can hold a column's values: not bytes, durations or intervals.

    Example:
        >>> import pyarrow as pa
        >>> has_json_form(pa.list_(pa.date32())), has_json_form(pa.list_(pa.binary()))
        (True, False)
    """
    import pyarrow as pa

    kinds = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
        pa.types.is_duration,
        pa.types.is_interval,
    )
    return not any(kind(part) for part in _types_in(type) for kind in kinds)


def values_of(column: Any) -> list[Any]:
    """A column's values as JSON values; dates, times (in UTC) and decimals are text.

    Raises:
        ValueError: a value that can't be read, such as text that is not UTF-8.

    Example:
        >>> import pyarrow as pa
        >>> values_of(pa.array([0, None], pa.timestamp("s", "Asia/Tokyo")))
        ['1970-01-01 00:00:00', None]
    """
    as_text = _with_leaves(column.type, _text_of_dates)
    if as_text == column.type:
        values: list[Any] = column.to_pylist()
        return values
    values = column.cast(_with_leaves(column.type, _in_utc)).cast(as_text).to_pylist()
    if _OUT_OF_RANGE in repr(values):
        raise RolloutError("a date that is not within the years 1 to 9999")
    return values


def plain_bytes(column: Any) -> int:
    """Bytes of a column with its dictionaries unpacked, or as JSON, whichever is more.

    In Arrow, nulls, booleans and empty lists take almost no memory.

    Example:
        >>> import pyarrow as pa
        >>> plain_bytes(pa.array(["a" * 1000] * 100).dictionary_encode())
        100400
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    type, held = column.type, max(int(column.nbytes), _least_json(column))
    if isinstance(type, pa.BaseExtensionType):
        return plain_bytes(column.storage)
    if pa.types.is_dictionary(type):
        held = int(column.indices.nbytes)
        if pa.types.is_string(type.value_type) or pa.types.is_large_string(type.value_type):
            sizes = pc.cast(pc.binary_length(column.dictionary), pa.int64())
            held += pc.sum(sizes.take(column.indices)).as_py() or 0
        return held
    if pa.types.is_struct(type):
        return sum(map(plain_bytes, column.flatten()))
    if pa.types.is_map(type):
        first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
        parts = (column.keys, column.items)
        return sum(plain_bytes(part.slice(first, last - first)) for part in parts)
    if _is_list(type):
        return _least_json(column) + plain_bytes(column.flatten())
    return held


def _least_json(column: Any) -> int:
    """The fewest bytes that the column's values take as JSON, each with a comma."""
    import pyarrow as pa

    short = not (pa.types.is_null(column.type) or pa.types.is_boolean(column.type))
    return len(column) * (2 if short else 5)


def plain_type(type: Any) -> Any:
    """A column's type, with dictionaries and extension types replaced by the type that they hold.

    Example:
        >>> import pyarrow as pa
        >>> plain_type(pa.list_(pa.dictionary(pa.int8(), pa.string())))
        ListType(list<item: string>)
    """
    return _with_leaves(type, lambda leaf: leaf)


def _types_in(type: Any) -> Iterator[Any]:
    """A column's type and all types inside it."""
    yield type
    for part in _parts_of(type):
        yield from _types_in(part)


def _parts_of(type: Any) -> list[Any]:
    storage = _storage(type)
    if storage is not type:
        return [storage]
    return [type.field(index).type for index in range(type.num_fields)]


def _storage(type: Any) -> Any:
    """The type that an extension type or a dictionary holds; any other type itself."""
    import pyarrow as pa

    if isinstance(type, pa.BaseExtensionType):
        return type.storage_type
    return type.value_type if pa.types.is_dictionary(type) else type


def _is_list(type: Any) -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map)
    return any(kind(type) for kind in kinds)


def _with_leaves(type: Any, leaf: Callable[[Any], Any]) -> Any:
    """The type with its innermost types replaced."""
    import pyarrow as pa

    storage = _storage(type)
    if storage is not type:
        return _with_leaves(storage, leaf)
    if pa.types.is_map(type):
        return pa.map_(_with_leaves(type.key_type, leaf), _with_leaves(type.item_type, leaf))
    if pa.types.is_struct(type):
        return pa.struct([field.with_type(_with_leaves(field.type, leaf)) for field in type])
    if _is_list(type):
        value = type.value_field.with_type(_with_leaves(type.value_type, leaf))
        return pa.large_list(value) if pa.types.is_large_list(type) else pa.list_(value)
    return leaf(type)


def _in_utc(type: Any) -> Any:
    """Timestamps without a time zone: printing them then needs no list of time zones."""
    import pyarrow as pa

    return pa.timestamp(type.unit) if pa.types.is_timestamp(type) else type


def _text_of_dates(type: Any) -> Any:
    import pyarrow as pa

    is_text = pa.types.is_temporal(type) or pa.types.is_decimal(type)
    return pa.string() if is_text else type
