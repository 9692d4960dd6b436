"""Logged columns that are no part of the format: they are carried into the rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from stepcredit.data.files.rows import FIELDS, TRAJECTORY


def extra_columns(fields: Mapping[str, Any], converted: Sequence[str]) -> dict[str, Any]:
    """The other logged columns; `logged_NAME` where NAME has another meaning in the rollout format.

    A column `trajectory` of strings and integers has the format's own meaning, and keeps its name.

    Example:
        >>> extra_columns({"input": "?", "length": 5.0, "acc": 1}, ["input"])
        {'logged_length': 5.0, 'acc': 1}
        >>> extra_columns({"trajectory": 3}, []), extra_columns({"trajectory": []}, [])
        ({'trajectory': 3}, {'logged_trajectory': []})
    """
    known = set(converted)
    rest = {name: value for name, value in fields.items() if name not in known}
    taken = FIELDS - {TRAJECTORY} if type(rest.get(TRAJECTORY)) in (str, int) else FIELDS
    return {f"logged_{name}" if name in taken else name: rest[name] for name in rest}


def is_writable(value: Any) -> bool:
    """Whether JSON can hold a value: it has no NaN and no Infinity."""
    if isinstance(value, dict | list):
        return all(map(is_writable, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or isfinite(value)


def writable(value: Any) -> Any:
    """The value with null in the place of NaN and Infinity."""
    if isinstance(value, dict):
        return {name: writable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return list(map(writable, value))
    return value if is_writable(value) else None
