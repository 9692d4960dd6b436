"""What trainers' settings name, such as methods and signals, each with fields of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stepcredit.errors import EngineError, SettingError

Thing = TypeVar("Thing")


def fields_of(given: Any, setting: str) -> dict[str, Any]:
    """Fields by name; None has none.

    Args:
        given: what the setting holds.
        setting: for the message.

    Raises:
        EngineError: no mapping, or a key that is no name.

    Example:
        >>> fields_of({"k": 0.7}, "estimator_fields"), fields_of(None, "estimator_fields")
        ({'k': 0.7}, {})
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise EngineError(f"expected fields, got {given!r}", field=setting)
    for name in given:
        if not isinstance(name, str):
            raise EngineError(f"expected names, got {name!r}", field=setting)
    return dict(given)


def built(
    build: Callable[..., Thing], name: Any, fields: Mapping[str, Any], setting: str, own: str
) -> Thing:
    """A thing by its name.

    Args:
        build: makes it of its name and fields.
        name, fields: of it.
        setting: what named it.
        own: the setting that holds its fields.

    Raises:
        EngineError: it is refused; it begins with the setting, or the field.

    Example:
        >>> import stepcredit as sc
        >>> built(sc.estimator, "pass", {"k": 1.0}, "estimator", "estimator_fields").k
        1.0
    """
    try:
        return build(name, **fields)
    except SettingError as error:
        field = f"{own}.{error.field}" if error.field else setting
        raise EngineError(error.reason, field=field) from error
