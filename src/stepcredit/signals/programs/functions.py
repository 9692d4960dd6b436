"""Import functions by name and fingerprint them for a cache."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from types import CodeType
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.modules import object_named


def is_function(value: Any) -> str | None:
    """A check for functions and their names.

    Example:
        >>> is_function(len), is_function("math:fsum")
        (None, None)
        >>> is_function("math:")
        'a function, or MODULE:FUNCTION'
    """
    named = isinstance(value, str) and all(value.partition(":"))
    return None if named or callable(value) else "a function, or MODULE:FUNCTION"


def function_of(value: Any, field: str) -> Callable[..., Any]:
    """The function that a name stands for; a class is called without arguments to make one.

    Args:
        value: a function, or MODULE:NAME of a function or of a class that can be called.
        field: the setting that errors name.

    Raises:
        SettingError: it can't be imported, made or called.

    Example:
        >>> function_of("math:fsum", "reward")([0.5, 0.5])
        1.0
    """
    if not isinstance(value, str):
        found: Callable[..., Any] = value
        return found
    try:
        named = object_named(value)
        found = named() if isinstance(named, type) else named
    except Exception as error:
        raise SettingError(f"{value}: {type(error).__name__}: {error}", field=field) from error
    if not callable(found):
        raise SettingError(f"{value} is no function: {found!r}", field=field)
    return found


def fingerprint_of_function(function: Any) -> str:
    """A digest that identifies a function in a cache.

    It covers the function's name, code and defaults, and the closure or object state that it holds.

    The functions that it calls are not part of the digest: a change in them is not noticed.

    Example:
        >>> def power(exponent):
        ...     return lambda base: base**exponent
        >>> first, again, other = map(fingerprint_of_function, map(power, (2, 2, 3)))
        >>> first == again != other
        True
    """
    return hashlib.sha256(repr(_digested(function)).encode()).hexdigest()


def _digested(function: Any) -> list[Any]:
    if isinstance(function, partial):
        return [_digested(function.func), function.args, function.keywords]
    if inspect.ismethod(function):
        return [_digested(function.__func__), _state(function.__self__)]
    if inspect.isfunction(function):
        held = inspect.getclosurevars(function).nonlocals
        defaults = [function.__defaults__, function.__kwdefaults__]
        return [_name(function), _code(function.__code__), held, *defaults]
    if hasattr(function, "__qualname__"):
        return [_name(function)]
    return [_digested(type(function).__call__), _state(function)]


def _state(value: Any) -> list[Any]:
    """An object's class and its attributes."""
    by_repr = isinstance(value, type) or is_dataclass(value) or not hasattr(value, "__dict__")
    return [_name(type(value)), repr(value) if by_repr else vars(value)]


def _code(code: CodeType) -> list[Any]:
    return [code.co_code, code.co_names, list(map(_constant, code.co_consts))]


def _constant(value: Any) -> Any:
    """A constant as text, without memory addresses and with sets in a fixed order."""
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def _name(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}"
