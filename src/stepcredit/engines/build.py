"""Builds the methods, signals and rewards that a trainer's settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stepcredit.errors import EngineError, SettingError

Thing = TypeVar("Thing")


def fields_of(given: Any, setting: str) -> dict[str, Any]:
    """The fields that a setting holds, by name; None holds no fields.

    Args:
        given: the setting's value.
        setting: its name, for errors.

    Raises:
        EngineError: it is no mapping, or a key is no string.

    Example:
        >>> fields_of({"k": 0.7}, "fields"), fields_of(None, "fields")
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


def build_named(
    build: Callable[..., Thing],
    name: Any,
    fields: Mapping[str, Any],
    setting: str,
    fields_setting: str,
) -> Thing:
    """The method, signal or reward that a setting names.

    Args:
        build: makes it from its name and fields.
        name, fields: of the thing.
        setting: the setting that holds the name.
        fields_setting: the setting that holds the fields.

    Raises:
        EngineError: an unknown name or a bad field; it begins with the setting.

    Example:
        >>> import stepcredit as sc
        >>> build_named(sc.estimator, "pass", {"k": 1.0}, "method", "fields").k
        1.0
    """
    try:
        return build(name, **fields)
    except SettingError as error:
        field = f"{fields_setting}.{error.field}" if error.field else setting
        raise EngineError(error.reason, field=field) from error
