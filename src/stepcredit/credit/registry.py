"""Methods by name: registered here, or by installed packages through an entry-point group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from stepcredit.credit.estimator import Estimator
from stepcredit.errors import MethodError

ENTRY_POINTS = "stepcredit.estimators"
Cls = TypeVar("Cls", bound=type[Estimator])
_METHODS: dict[str, type[Estimator]] = {}


def register(name: str) -> Callable[[Cls], Cls]:
    """Give an estimator its method name, for the command line and every engine.

    Raises:
        MethodError: another estimator has that name.
    """

    def add(cls: Cls) -> Cls:
        other = _METHODS.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise MethodError(f"method {name!r} is already {other.__module__}.{other.__qualname__}")
        cls.name = name
        _METHODS[name] = cls
        return cls

    return add


@cache
def _plugins() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def methods() -> dict[str, type[Estimator]]:
    """All registered methods by name, those of installed packages included.

    Raises:
        MethodError: an installed package's estimator fails to load; it names the entry point.
    """
    for name in _plugins():
        _load(name)
    return dict(_METHODS)


def _load(name: str) -> None:
    point = _plugins()[name]
    if name in _METHODS:
        return
    try:
        register(name)(point.load())
    except MethodError:
        raise
    except Exception as error:
        raise MethodError(f"entry point {name!r} ({point.value}) fails to load: {error}") from error


def estimator(name: str, /, **settings: Any) -> Estimator:
    """An estimator by its method name.

    Args:
        name: as `stepcredit methods` lists them.
        settings: its fields.

    Raises:
        MethodError: an unknown method or field, or a value out of range.

    Example:
        >>> estimator("pass", k=1.0).k
        1.0
    """
    if not isinstance(name, str):
        raise MethodError(f"expected the name of a method, got {name!r}")
    if name in _plugins():
        _load(name)
    cls = _METHODS.get(name)
    if cls is None:
        raise MethodError(f"unknown method {name!r}{_hint(name, sorted(methods()))}")
    known = [declared.name for declared in fields(cls)]
    for setting in settings:
        if setting not in known:
            raise MethodError(f"{name} has no such field{_hint(setting, known)}", field=setting)
    return cls(**settings)


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else f": expected {', '.join(known)}"
