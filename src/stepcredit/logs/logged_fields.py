"""How the fields of a log are read whose names or forms differ between logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepcredit.logs.conversation import value_in_text
from stepcredit.logs.logged_response import Record

_GOLDS = ("target", "ground_truth", "answer", "gold")


def first_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of the names that the fields have; None if they have none."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def gold_in(given: Any) -> Any:
    """A gold answer; of an object such as Search-R1's `{"target": [...]}`, what it holds.

    Example:
        >>> gold_in({"target": ["Paris"]}), gold_in("7")
        (['Paris'], '7')
        >>> gold_in("{'target': ['Paris']}")
        ['Paris']
    """
    if isinstance(given, str) and given.startswith(("{'target'", '{"target"', "{'ground_truth'")):
        given = value_in_text(given) or given
    while isinstance(given, dict) and (inner := first_of(given, _GOLDS)) is not None:
        given = inner
    return given


def response_text(record: Record, name: str) -> str:
    """The text of a field, which is empty where it is null.

    Raises:
        RowError: the field is absent, or something else.
    """
    if name in record.fields and record.fields[name] is None:
        return ""
    return str(record.needed(name, str))
