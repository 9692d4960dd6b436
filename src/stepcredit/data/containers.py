"""Reads the containers of numbers: tensors, arrays, array-likes such as pandas Series, and lists.

Every container with dense, readable values is accepted. Sparse and nested tensors, tensors on the
meta device (which have no values), and masked values are refused by name.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from stepcredit.errors import RolloutError

_SIGNED = frozenset({torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8})
_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_WIDE_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})
_LARGEST = torch.iinfo(torch.int64).max


def array_like(values: Any, field: str) -> Any:
    """An array-like such as a pandas Series as an array; an array of objects as a list.

    Tensors, arrays of numbers and all other values are returned unchanged.

    Raises:
        RolloutError: a value of the array is masked.

    Example:
        >>> array_like(np.array([1, None], dtype=object), "outcome"), array_like((1, 2), "outcome")
        ([1, None], (1, 2))
    """
    if isinstance(values, Tensor | np.generic) or not hasattr(values, "__array__"):
        return values
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype != object or array.ndim == 0:
        return array
    _refuse_masked(array, field)
    return array.tolist()


def missing_as_none(values: Any) -> Any:
    """A container with a mark of its own for missing values, as a list in which they are None.

    These are Arrow's arrays, Polars' series and pandas' nullable types. In a NumPy array and in a
    pandas Series of NumPy's types NaN is a number; these, and all other values, are returned
    unchanged.

    Example:
        >>> import pyarrow as pa
        >>> missing_as_none(pa.array([1.0, None])), missing_as_none([2.0])
        ([1.0, None], [2.0])
    """
    if hasattr(values, "to_pylist"):
        return values.to_pylist()
    if hasattr(values, "null_count") and hasattr(values, "to_list"):
        return values.to_list()
    if hasattr(getattr(values, "dtype", None), "na_value") and hasattr(values, "to_numpy"):
        return values.to_numpy(dtype=object, na_value=None).tolist()
    return values


def is_numeric(given: Any) -> TypeGuard[Tensor | np.ndarray]:
    """Whether the value is a tensor, or an array of anything but Python objects."""
    return isinstance(given, Tensor) or (isinstance(given, np.ndarray) and given.dtype != object)


def tensor_of(values: Tensor | np.ndarray, field: str, row: int | None = None) -> Tensor:
    """A tensor or array of real numbers as a tensor without gradient; memory is shared.

    Raises:
        RolloutError: it holds something else, or has no readable values.
    """
    if isinstance(values, np.ndarray):
        values = _from_numpy(values, field, row)
    lack = _unreadable(values)
    if lack is not None:
        raise RolloutError(lack, row=row, field=field)
    if values.dtype in _WIDE_UNSIGNED:
        return _to_signed(values, field)
    return values.detach().resolve_neg()


def vector_of(values: Tensor | np.ndarray, field: str) -> Tensor:
    """`tensor_of` in one dimension; at most one of the dimensions may be longer than 1.

    Raises:
        RolloutError: several dimensions are longer than 1.
    """
    tensor = tensor_of(values, field)
    if sum(size != 1 for size in tensor.shape) > 1:
        raise RolloutError(f"shape is {tuple(tensor.shape)}, expected (rollouts,)", field=field)
    return tensor.reshape(-1)


def integers_of(values: Tensor | np.ndarray, field: str) -> Tensor:
    """A tensor or array of integers as int64.

    Raises:
        RolloutError: it holds floats or flags, which a conversion would truncate silently.
    """
    return integer_tensor(values, field).to(torch.int64)


def integer_tensor(values: Tensor | np.ndarray, field: str) -> Tensor:
    """A tensor or array of integers as a tensor, of its own dtype where torch computes with that.

    Raises:
        RolloutError: it holds floats or flags.
    """
    tensor = tensor_of(values, field)
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise RolloutError(f"expected integers, got {_name(tensor.dtype)}", field=field)
    return tensor


def _unreadable(values: Tensor) -> str | None:
    """The reason why a tensor's numbers cannot be read; None if they can."""
    if values.is_nested:
        return "expected a dense tensor, got a nested one"
    if values.layout != torch.strided:
        return f"expected a dense tensor, got {_name(values.layout)}"
    if values.is_meta:
        return "expected values, got a tensor on the meta device, which holds none"
    if values.dtype not in _SIGNED | _FLOATS | _WIDE_UNSIGNED:
        return f"expected numbers, got {_name(values.dtype)}"
    return None


def _from_numpy(values: np.ndarray, field: str, row: int | None) -> Tensor:
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise RolloutError(f"expected numbers, got {values.dtype}", row=row, field=field)
    _refuse_masked(values, field, row)
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(values.shape)
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def _refuse_masked(values: np.ndarray, field: str, row: int | None = None) -> None:
    if np.ma.is_masked(values):
        raise RolloutError("some values are masked: expected all of them", row=row, field=field)


def _to_signed(values: Tensor, field: str) -> Tensor:
    """Unsigned integers as int64: torch has few operations on unsigned ones."""
    signed = values.to(torch.int64)
    if values.dtype == torch.uint64 and bool((signed < 0).any()):
        raise RolloutError(f"expected integers of at most {_LARGEST}", field=field)
    return signed


def _name(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")
