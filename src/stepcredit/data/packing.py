"""Lists, arrays and padded tensors as packed values, checked on the way: one value after another.

Nothing is converted silently: a float where an integer belongs is refused, not truncated. Tensors
and arrays are held, not copied; lists are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from stepcredit.data.forest import slot_mask
from stepcredit.errors import RolloutError

Rows = Sequence[Sequence[float] | Tensor | np.ndarray | None] | Tensor | np.ndarray
LARGEST = torch.finfo(torch.float32).max


def pack_rows(
    rows: Rows, counts: Sequence[int] | Tensor | None, field: str, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Any of the layouts as (packed values, counts).

    Args:
        rows: a list of rows, each a list or a 1-D tensor (None or [] = the row has none), packed
            1-D, or padded 2-D.
        counts: values a row; required for packed 1-D, and for padded 2-D unless every slot counts.
        field: name used in messages.
        dtype: torch.int64, or None: numbers, a tensor's own dtype, float64 for lists and integers.

    Returns:
        values (sum of counts,), counts int64 (rollout,), on the values' device.

    Raises:
        RolloutError: a value of the wrong type, or counts that do not fit.
    """
    if isinstance(rows, np.ndarray) and rows.dtype == object:
        rows = rows.tolist()
    if not isinstance(rows, Tensor | np.ndarray):
        items = items_of(rows, field, "a list of rows or a tensor")
        if counts is not None:
            raise RolloutError("counts go with tensors, not with a list of rows", field=field)
        return _pack_list(items, field, dtype)
    packed = _of_dtype(tensor_of(rows, field), field, dtype)
    if counts is None:
        if packed.ndim != 2:
            raise RolloutError("a packed 1-D tensor needs counts", field=field)
        counts = packed.new_full((packed.shape[0],), packed.shape[1], dtype=torch.int64)
    counts = _counts(counts, field).to(packed.device)
    if packed.ndim == 2:
        return _pack_padded(packed, counts, field), counts
    if packed.ndim != 1 or int(counts.sum()) != packed.numel():
        reason = f"counts sum to {int(counts.sum())}, but there are {packed.numel()} values"
        raise RolloutError(reason, field=field)
    return packed, counts


def pack_numbers(
    rows: Rows, counts: Sequence[int] | Tensor | None, field: str
) -> tuple[Tensor, Tensor]:
    """Finite numbers in any of the layouts as (packed values, counts).

    Raises:
        RolloutError: a value that is not a finite number, or counts that do not fit.
    """
    values, counts = pack_rows(rows, counts, field, None)
    check_finite(values, counts, field)
    return values, counts


def items_of(values: Any, field: str, expected: str, row: int | None = None) -> list[Any]:
    """The items of what can be listed; a string, a mapping, a set and a single value cannot.

    Raises:
        RolloutError: names what came instead.
    """
    single = isinstance(values, Tensor | np.ndarray) and values.ndim == 0
    loose = isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable)
    if single or loose:
        reason = f"expected {expected}, got {type(values).__name__}"
        raise RolloutError(reason, row=row, field=field)
    return list(values)


def tensor_of(values: Tensor | np.ndarray, field: str) -> Tensor:
    """A tensor or array of real numbers, without its gradient; memory is shared.

    Raises:
        RolloutError: it holds something else.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
            raise RolloutError(f"expected numbers, got {values.dtype}", field=field)
        native = values.dtype.newbyteorder("=")
        return torch.from_numpy(np.ascontiguousarray(values, native).reshape(values.shape))
    if values.is_complex():
        raise RolloutError(f"expected numbers, got {_name(values)}", field=field)
    return values.detach()


def integers_of(values: Tensor | np.ndarray, field: str) -> Tensor:
    """A tensor or array of integers as int64.

    Raises:
        RolloutError: it holds floats or flags, which a conversion would truncate silently.
    """
    tensor = tensor_of(values, field)
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise RolloutError(f"expected integers, got {_name(tensor)}", field=field)
    return tensor.to(torch.int64)


def shown(value: Any) -> str:
    """A value in a message, on one line of at most 40 characters.

    Example:
        >>> shown("a" * 99), shown(10**400)
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...", 'an integer of 1329 bits')
    """
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."


def row_of(index: int, counts: Tensor) -> int:
    """The row that holds the packed value at `index`."""
    return int(torch.searchsorted(counts.cumsum(0), index, right=True))


def check_finite(values: Tensor, counts: Tensor, field: str) -> None:
    """Refuse NaN, infinity, and what float32 can't hold, by row.

    Raises:
        RolloutError: names the first row with such a value.
    """
    largest = min(LARGEST, torch.finfo(values.dtype).max)
    if values.numel() == 0 or bool((values.max() <= largest) & (values.min() >= -largest)):
        return
    index = int((~(values.abs() <= largest)).nonzero()[0])
    value = float(values[index])
    what = "is too large for float32" if np.isfinite(value) else "is not a finite number"
    raise RolloutError(f"{value!r} {what}", row=row_of(index, counts), field=field)


def _name(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _of_dtype(values: Tensor, field: str, dtype: torch.dtype | None) -> Tensor:
    if dtype == torch.int64:
        return integers_of(values, field)
    return values if values.is_floating_point() else values.to(torch.float64)


def _counts(given: Sequence[int] | Tensor | np.ndarray, field: str) -> Tensor:
    place = f"counts of {field}"
    if not isinstance(given, Tensor | np.ndarray):
        rows = [[value] for value in items_of(given, place, "one count a row")]
        given = _pack_lists(rows, place, torch.int64)
    counts = integers_of(given, place)
    if counts.ndim != 1:
        raise RolloutError(f"shape is {tuple(counts.shape)}, expected (rollouts,)", field=place)
    if counts.numel() and int(counts.min()) < 0:
        row = int((counts < 0).nonzero()[0])
        raise RolloutError(f"{int(counts[row])} is below 0", row=row, field=place)
    return counts


def _pack_padded(rows: Tensor, counts: Tensor, field: str) -> Tensor:
    if rows.shape[0] != counts.numel():
        raise RolloutError(f"{rows.shape[0]} rows, but {counts.numel()} counts", field=field)
    if counts.numel() and int(counts.max()) > rows.shape[1]:
        raise RolloutError(f"counts must be in 0..{rows.shape[1]}, the width", field=field)
    return rows[slot_mask(counts, rows.shape[1])]


def _pack_list(rows: list[Any], field: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """A list of rows: of tensors alone, or of lists, among which a tensor is a list as well."""
    held = [isinstance(row, Tensor | np.ndarray) and row.dtype != object for row in rows]
    if any(held) and all(ok or row is None for ok, row in zip(held, rows, strict=True)):
        return _pack_tensors(rows, field, dtype)
    what = "a list of values"
    lists = [
        row if type(row) is list else [] if row is None else items_of(row, field, what, at)
        for at, row in enumerate(rows)
    ]
    counts = torch.tensor([len(row) for row in lists], dtype=torch.int64)
    return _pack_lists(lists, field, dtype or torch.float64), counts


def _pack_tensors(rows: list[Any], field: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    parts = []
    for at, row in enumerate(rows):
        if row is not None and row.ndim != 1:
            reason = f"shape is {tuple(row.shape)}, expected (values,)"
            raise RolloutError(reason, row=at, field=field)
        if row is not None:
            parts.append(_of_dtype(tensor_of(row, field), field, dtype))
    counts = [0 if row is None else len(row) for row in rows]
    packed = torch.cat(parts)
    return packed, torch.tensor(counts, dtype=torch.int64, device=packed.device)


def _pack_lists(lists: list[list[Any]], field: str, dtype: torch.dtype) -> Tensor:
    """The values of all lists, one after the other."""
    flat = list(chain.from_iterable(lists))
    whole = dtype == torch.int64
    if not {int} | (set() if whole else {float}) >= set(map(type, flat)):
        flat = [
            _number(value, whole, row, field) for row, items in enumerate(lists) for value in items
        ]
    try:
        return torch.tensor(flat, dtype=dtype)
    except (OverflowError, RuntimeError, ValueError):
        _refuse_large(lists, field, dtype)


def _number(value: Any, whole: bool, row: int, field: str) -> float:
    """One value as a Python number: a NumPy number or a 0-d tensor is one as well."""
    single = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0)
    number = value.item() if single else value
    kind = "an integer" if whole else "a number"
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise RolloutError(f"{shown(value)} is not {kind}", row=row, field=field)
    if whole and isinstance(number, float):
        if not number.is_integer():
            raise RolloutError(f"{shown(number)} is not {kind}", row=row, field=field)
        return int(number)
    return number


def _refuse_large(lists: list[list[Any]], field: str, dtype: torch.dtype) -> NoReturn:
    for row, items in enumerate(lists):
        for value in items:
            try:
                torch.tensor(value, dtype=dtype)
            except (OverflowError, RuntimeError, ValueError):
                name = "int64" if dtype == torch.int64 else "float32"
                reason = f"{shown(value)} is too large for {name}"
                raise RolloutError(reason, row=row, field=field) from None
    raise AssertionError("every value fits alone, so all fit")
