"""Checks of the arguments of `stepcredit.credit.theory`; an error names the argument."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from stepcredit.errors import MethodError

Scores = Sequence[float] | np.ndarray[Any, np.dtype[Any]]

_MOST = 2**53  # whole numbers beyond this are not exact in float64


def finite_number(value: float, field: str) -> float:
    """The finite number `value` as a float."""
    known = isinstance(value, Real) and not isinstance(value, bool)
    if not (known and abs(value) <= sys.float_info.max):
        raise MethodError(f"expected a finite number, got {value!r}", field=field)
    return float(value)


def not_negative(value: float, field: str) -> float:
    """The finite number `value`, at least 0, as a float."""
    checked = finite_number(value, field)
    if checked < 0:
        raise MethodError(f"expected a number of at least 0, got {value!r}", field=field)
    return checked


def positive_whole(value: int, field: str) -> int:
    """The whole number `value`, at least 1, as an int."""
    known = isinstance(value, Integral) and not isinstance(value, bool)
    if not (known and 1 <= value <= _MOST):
        raise MethodError(f"expected a whole number from 1 to 2^53, got {value!r}", field=field)
    return int(value)


def vector(scores: Scores, field: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The finite scores, at least one, as a float64 vector."""
    fault = MethodError("expected a vector of finite scores, at least one", field=field)
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise fault from None
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise fault
    return values
