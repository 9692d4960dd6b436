"""Read values from a server's answer; a missing or malformed one raises a `Fault` that names it."""

from __future__ import annotations

from sys import float_info
from typing import Any

from stepcredit.signals.served.failures import Fault


def member(answer: Any, *path: str | int) -> Any:
    """The value at a path of keys and positions.

    Raises:
        Fault: there is no such value.

    Example:
        >>> member({"data": [{"index": 0}]}, "data", 0, "index")
        0
        >>> member({"data": []}, "data", 0)
        Traceback (most recent call last):
        ...
        stepcredit.signals.served.failures.Fault: the answer has no data[0]
    """
    found = answer
    for key in path:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            raise Fault(f"the answer has no {_spelled(path)}") from None
    return found


def items(answer: Any, *path: str | int, expected: int | None = None, of: str = "") -> list[Any]:
    """The list at a path.

    Args:
        answer: decoded JSON.
        path: keys and positions.
        expected: how many items it must have.
        of: what the items are, for the message.

    Raises:
        Fault: it is missing, is no list, or has another length.
    """
    found = member(answer, *path)
    if not isinstance(found, list):
        raise Fault(f"{_spelled(path)} of the answer is no list")
    if expected is not None and len(found) != expected:
        raise Fault(f"the answer has {len(found)} {of}, expected {expected}")
    return found


def finite(value: Any, what: str) -> float:
    """A finite number.

    Raises:
        Fault: the value is no such number.

    Example:
        >>> finite(1, "the score of step 0")
        1.0
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not abs(value) <= float_info.max:
        raise Fault(f"{what} is {{}}, expected a finite number", repr(value))
    return float(value)


def log_probability(value: Any, what: str) -> float:
    """A finite number of at most 0 (up to rounding).

    Raises:
        Fault: the value is no such number.
    """
    found = finite(value, what)
    if found > 1e-3:
        raise Fault(f"{what} is {found:g}, expected a log-probability")
    return found


def _spelled(path: tuple[str | int, ...]) -> str:
    steps = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in path]
    return "".join(steps).removeprefix(".")
