"""Reads lists, arrays and padded tensors into packed values, and checks them.

Nothing is converted silently: a float where an integer belongs is refused, not truncated. Tensors
and arrays are held, not copied. Lists are copied, and their values are on the CPU whatever torch's
default device is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from operator import countOf
from struct import pack_into
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from stepcredit.data.containers import (
    array_like,
    integer_tensor,
    integers_of,
    is_numeric,
    tensor_of,
)
from stepcredit.data.forest import not_zero, to_packed
from stepcredit.data.rules import LARGEST, shown, why_not_float32
from stepcredit.errors import RolloutError

Rows = Sequence[Sequence[float] | Tensor | np.ndarray | None] | Tensor | np.ndarray


def pack_rows(
    rows: Rows, counts: Sequence[int] | Tensor | None, field: str, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Rows in any layout, as (packed values, counts).

    Args:
        rows: a list of rows, each a list or a 1-D tensor (None or [] = the row has none), packed
            1-D, or padded 2-D.
        counts: values per row; required for packed 1-D, and for padded 2-D unless it is full.
        field: name used in messages.
        dtype: torch.int64 for integers; None for numbers, which keep a tensor's dtype and are
            float64 for lists and integers.

    Returns:
        values (sum of counts,), counts int64 (rollout,), on the values' device.

    Raises:
        RolloutError: a value of the wrong type, or counts that do not fit.
    """
    rows = array_like(rows, field)
    if not is_numeric(rows):
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
    """Rows of finite numbers in any layout, as (packed values, counts).

    Raises:
        RolloutError: a value that is not a finite number, or counts that do not fit.
    """
    values, counts = pack_rows(rows, counts, field, None)
    check_float32(values, counts, field)
    return values, counts


def packed_numbers(values: Tensor, counts: Tensor, field: str) -> Tensor:
    """Packed values as finite floats: integers become float64.

    Args:
        values: (sum of counts,).
        counts: values per row, on the values' device.
        field: name used in messages.

    Raises:
        RolloutError: a value that is not a finite number.

    Example:
        >>> packed_numbers(torch.tensor([1, 2]), torch.tensor([2]), "scores").tolist()
        [1.0, 2.0]
    """
    numbers = _of_dtype(values, field, None)
    check_float32(numbers, counts, field)
    return numbers


def items_of(values: Any, field: str, expected: str, row: int | None = None) -> list[Any]:
    """The items of a sequence or iterable; a string, a mapping, a set or a single value is refused.

    Tensors without a dimension become Python numbers.

    Raises:
        RolloutError: another value; the message shows it.
    """
    single = isinstance(values, Tensor | np.ndarray) and values.ndim == 0
    loose = isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable)
    if single or loose:
        reason = f"expected {expected}, got {type(values).__name__}"
        raise RolloutError(reason, row=row, field=field)
    items = list(values)
    if any(isinstance(item, Tensor) and item.ndim == 0 for item in items):
        return [
            _item(item) if isinstance(item, Tensor) and not item.ndim else item for item in items
        ]
    return items


def row_numbers(rows: Any, count: int) -> Tensor:
    """Row numbers, from a list, range, array or tensor of them, or from one flag per row.

    Args:
        rows: integers from 0 to `count` - 1 in any order, or `count` flags.
        count: number of rows.

    Returns:
        int64 (taken,).

    Raises:
        RolloutError: other values, a number outside the rows, or another number of flags.

    Example:
        >>> row_numbers([2, 0], 3).tolist(), row_numbers([True, False, True], 3).tolist()
        ([2, 0], [0, 2])
    """
    rows = array_like(rows, "rows")
    given = tensor_of(rows, "rows") if is_numeric(rows) else _listed_row_numbers(rows)
    if given.ndim != 1:
        raise RolloutError(f"shape is {tuple(given.shape)}, expected (rows,)", field="rows")
    if given.dtype == torch.bool:
        if given.numel() != count:
            raise RolloutError(f"{given.numel()} flags, but {count} rollouts", field="rows")
        return given.nonzero().squeeze(1)
    numbers = integers_of(given, "rows")
    outside = (numbers < 0) | (numbers >= count)
    if bool(outside.any()):
        reason = f"{int(numbers[outside][0])} is outside 0..{count - 1}"
        raise RolloutError(reason, field="rows")
    return numbers


def _listed_row_numbers(rows: Any) -> Tensor:
    items = items_of(rows, "rows", "row numbers, or one flag per rollout")
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return torch.tensor(items, dtype=torch.bool, device="cpu")
    for item in items:
        if not isinstance(item, int | np.integer) or isinstance(item, bool):
            raise RolloutError(f"{shown(item)} is not a row number", field="rows")
    return _pack_lists([items], "rows", torch.int64)


def grid_of(values: Any, field: str, dtype: torch.dtype | None = None) -> Tensor:
    """A (rollout, column) table of numbers: a tensor, an array, or lists of one length.

    Args:
        values: the table.
        field: name used in messages.
        dtype: torch.int64 for integers, None for numbers. A tensor keeps its dtype; lists become
            int64 or float64.

    Raises:
        RolloutError: rows of different lengths, or values that are not numbers.

    Example:
        >>> grid_of([[1, 0], [1, 1]], "mask").tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    values = array_like(values, field)
    if is_numeric(values):
        return integer_tensor(values, field) if dtype == torch.int64 else tensor_of(values, field)
    items = items_of(values, field, "a (rollout, token) table")
    packed, counts = _pack_list(items, field, dtype)
    wrong = (counts != counts[:1]).nonzero()
    if wrong.numel():
        row = int(wrong[0])
        reason = f"{int(counts[row])} values, but row 0 has {int(counts[0])}"
        raise RolloutError(reason, row=row, field=field)
    return packed.view(len(items), -1) if packed.numel() else packed.new_zeros(len(items), 0)


def trained_of(mask: Any, field: str = "mask") -> Tensor:
    """Which tokens a mask trains, as a boolean table.

    A mask holds flags, or numbers: 0 for a token that is not trained, any other integer for one
    that is.

    Raises:
        RolloutError: a float or a list's value that is neither 0 nor 1, or a mask that is not a
            (rollout, token) table.

    Example:
        >>> trained_of([[True, False]]).tolist(), trained_of(torch.tensor([[0, 2]])).tolist()
        ([[True, False]], [[False, True]])
    """
    mask = array_like(mask, field)
    if not is_numeric(mask):
        rows = items_of(mask, field, "a (rollout, token) table")
        mask = [_without_flags(row, field, at) for at, row in enumerate(rows)]
    table = grid_of(mask, field)
    if table.ndim != 2:
        reason = f"shape is {tuple(table.shape)}, expected (rollouts, tokens)"
        raise RolloutError(reason, field=field)
    if table.is_floating_point():
        _refuse_shares(table.flatten(), torch.full((len(table),), table.shape[1]), field)
    return table if table.dtype == torch.bool else not_zero(table)


def mask_rows(mask: Any, field: str = "mask") -> tuple[Tensor, Tensor]:
    """Which tokens a mask trains, as packed flags and the number of flags per row.

    Args:
        mask: a list of one row of flags per rollout.
        field: name used in messages.

    Raises:
        RolloutError: a value that is neither 0 nor 1.

    Example:
        >>> values, counts = mask_rows([[1, 0, 1], [True]])
        >>> values.tolist(), counts.tolist()
        ([True, False, True, True], [3, 1])
    """
    rows = items_of(mask, field, "one row of flags per rollout")
    if rows and all(_is_flags(row) for row in rows):
        counts = torch.tensor([len(row) for row in rows], device=rows[0].device)
        return torch.cat([row.to(rows[0].device) for row in rows]), counts
    values, counts = pack_rows(
        [_without_flags(row, field, at) for at, row in enumerate(rows)], None, field, None
    )
    _refuse_shares(values, counts, field)
    return values != 0, counts


def _is_flags(row: Any) -> bool:
    return isinstance(row, Tensor) and row.dtype == torch.bool and row.ndim == 1


def _without_flags(row: Any, field: str, at: int) -> Any:
    """A list of flags as a list of integers."""
    if is_numeric(row):
        return row
    items = items_of(row, field, "a list of flags", at)
    return [int(item) if isinstance(item, bool | np.bool_) else item for item in items]


def _refuse_shares(values: Tensor, counts: Tensor, field: str) -> None:
    """Refuse NaN and weights, which do not say whether a token is trained."""
    neither = (values != 0) & (values != 1)
    if bool(neither.any()):
        index = int(neither.nonzero()[0])
        reason = f"{float(values[index])!r} is neither 0 nor 1"
        raise RolloutError(reason, row=row_of(index, counts), field=field)


def whole_number(value: Any, field: str) -> int:
    """Check a count: a Python or NumPy integer of at least 0.

    Raises:
        RolloutError: another value; the message shows it.

    Example:
        >>> whole_number(np.int64(3), "width")
        3
    """
    single = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0)
    number = _item(value) if single else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        reason = f"expected a whole number of at least 0, got {shown(value)}"
        raise RolloutError(reason, field=field)
    return number


def row_of(index: int, counts: Tensor) -> int:
    """The row that holds the packed value at `index`."""
    return int(torch.searchsorted(counts.cumsum(0), index, right=True))


def check_float32(values: Tensor, counts: Tensor | None, field: str) -> None:
    """Refuse NaN, infinity, and numbers that float32 can't hold.

    Args:
        values: packed numbers.
        counts: how many each row has; None: one each.
        field: name used in messages.

    Raises:
        RolloutError: names the first row with such a value.
    """
    largest = min(LARGEST, torch.finfo(values.dtype).max)
    if values.numel() == 0:
        return
    low, high = torch.stack(torch.aminmax(values)).tolist()
    if low >= -largest and high <= largest:
        return
    index = int((~(values.abs() <= largest)).nonzero()[0])
    value = float(values[index])
    reason = f"{value!r} {why_not_float32(value)}"
    row = index if counts is None else row_of(index, counts)
    raise RolloutError(reason, row=row, field=field)


def _of_dtype(values: Tensor, field: str, dtype: torch.dtype | None) -> Tensor:
    if dtype == torch.int64:
        return integers_of(values, field)
    return values if values.is_floating_point() else values.to(torch.float64)


def _counts(given: Sequence[int] | Tensor | np.ndarray, field: str) -> Tensor:
    place = f"counts of {field}"
    given = array_like(given, place)
    if not is_numeric(given):
        rows = [[value] for value in items_of(given, place, "one count per row")]
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
    return to_packed(rows, counts)


def _pack_list(rows: list[Any], field: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Pack a list of rows. If all rows are tensors they stay tensors; otherwise all are lists."""
    held = [is_numeric(row) for row in rows]
    if any(held) and all(ok or row is None for ok, row in zip(held, rows, strict=True)):
        return _pack_tensors(rows, field, dtype)
    what = "a list of values"
    lists = [
        row if type(row) is list else [] if row is None else items_of(row, field, what, at)
        for at, row in enumerate(rows)
    ]
    counts = torch.tensor([len(row) for row in lists], dtype=torch.int64, device="cpu")
    return _pack_lists(lists, field, dtype or torch.float64), counts


def _pack_tensors(rows: list[Any], field: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    parts = []
    for at, row in enumerate(rows):
        if row is not None and row.ndim != 1:
            reason = f"shape is {tuple(row.shape)}, expected (values,)"
            raise RolloutError(reason, row=at, field=field)
        if row is not None:
            parts.append(_of_dtype(tensor_of(row, field, at), field, dtype))
    counts = [0 if row is None else len(row) for row in rows]
    packed = torch.cat([part.to(parts[0].device) for part in parts])
    return packed, torch.tensor(counts, dtype=torch.int64, device=packed.device)


def _pack_lists(lists: list[list[Any]], field: str, dtype: torch.dtype) -> Tensor:
    """The values of all lists as one tensor."""
    whole = dtype == torch.int64
    packed = None if whole else _pack_floats(lists)
    if packed is not None:
        return packed
    flat = list(chain.from_iterable(lists))
    if not {int} | (set() if whole else {float}) >= set(map(type, flat)):
        flat = [
            _number(value, whole, row, field) for row, items in enumerate(lists) for value in items
        ]
    try:
        return torch.tensor(flat, dtype=dtype, device="cpu")
    except (OverflowError, RuntimeError, ValueError):
        _refuse_large(lists, field, dtype)


def _pack_floats(lists: list[list[Any]]) -> Tensor | None:
    """The values of all lists as float64; None where one of them is no Python float.

    `struct` copies floats in a fifth of the time that `torch.tensor` needs.
    """
    packed = torch.empty(sum(map(len, lists)), dtype=torch.float64, device="cpu")
    memory: Any = packed.numpy()
    start = 0
    for values in lists:
        count = len(values)
        if countOf(map(type, values), float) != count:
            return None
        pack_into(f"{count}d", memory, start * memory.itemsize, *values)
        start += count
    return packed


def _number(value: Any, whole: bool, row: int, field: str) -> float:
    """One value as a Python number; NumPy numbers and 0-d tensors are converted."""
    single = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0)
    number = _item(value) if single else value
    kind = "an integer" if whole else "a number"
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise RolloutError(f"{shown(value)} is not {kind}", row=row, field=field)
    if whole and isinstance(number, float):
        if not number.is_integer():
            raise RolloutError(f"{shown(number)} is not {kind}", row=row, field=field)
        return int(number)
    return number


def _item(value: np.generic | Tensor) -> Any:
    """The value as a Python number, or itself if it has none (a tensor on the meta device)."""
    try:
        return value.item()
    except (RuntimeError, NotImplementedError):
        return value


def _refuse_large(lists: list[list[Any]], field: str, dtype: torch.dtype) -> NoReturn:
    for row, items in enumerate(lists):
        for value in items:
            try:
                torch.tensor(value, dtype=dtype, device="cpu")
            except (OverflowError, RuntimeError, ValueError):
                name = "int64" if dtype == torch.int64 else "float32"
                reason = f"{shown(value)} is too large for {name}"
                raise RolloutError(reason, row=row, field=field) from None
    raise AssertionError("every value fits alone, so all fit")
