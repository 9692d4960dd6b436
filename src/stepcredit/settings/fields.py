"""Declared fields of methods, signals and rewards: default, range and meaning in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from sys import float_info
from types import UnionType
from typing import Any

from stepcredit.errors import SettingError

LARGEST_WHOLE = 2**63 - 1
"""The largest whole number that a setting takes: the largest int64, as in tensors."""
LARGEST_SEED = 2**32 - 1
Check = Callable[[Any], str | None]


def declare(
    default: Any,
    check: Check,
    about: str,
    *,
    kw_only: bool = False,
    repr: bool = True,
    shown: Callable[[Any], str] = repr,
) -> Any:
    """A dataclass field with a check.

    Args:
        default: the field's default; MISSING if a value is required.
        check: returns what it expected, for a value that it refuses; None for any other value.
        about: the field's meaning, for listings.
        kw_only: as in `dataclasses.field`.
        repr: False leaves the field out of the instance's `repr`.
        shown: gives the text of a refused value in the error; needed where a value may be secret.
    """
    metadata = {"check": check, "about": about, "shown": shown}
    rest: dict[str, Any] = {"metadata": metadata, "kw_only": kw_only, "repr": repr}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), **rest)
    return field(default=default, **rest)


def is_number(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
) -> Check:
    """A check for finite numbers within a range."""

    def check(value: Any) -> str | None:
        if optional and value is None:
            return None
        real = isinstance(value, int | float) and not isinstance(value, bool)
        real = real and abs(value) <= float_info.max
        low = real and at_least is not None and value < at_least
        low = low or (real and above is not None and value <= above)
        if real and not low and not (at_most is not None and value > at_most):
            return None
        span = f" of at least {at_least:g}" if at_least is not None else ""
        span = f" above {above:g}" if above is not None else span
        span += f" and at most {at_most:g}" if at_most is not None else ""
        return f"a number{span}" + (" or null" if optional else "")

    return check


def checked_number(value: Any, setting: str) -> float:
    """A setting that must be a finite number.

    Args:
        value: its value.
        setting: its name, for errors.

    Raises:
        SettingError: it is something else, such as a text or NaN.

    Example:
        >>> checked_number(1, "right_above")
        1.0
        >>> checked_number("0.5", "right_above")
        Traceback (most recent call last):
        stepcredit.errors.SettingError: right_above: expected a finite number, got '0.5'
    """
    if is_number()(value):
        raise SettingError(f"expected a finite number, got {value!r}", field=setting)
    return float(value)


def is_whole(*, at_least: int = 0, optional: bool = False) -> Check:
    """A check for whole numbers."""

    def check(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool)
        if (fits and at_least <= value <= LARGEST_WHOLE) or (optional and value is None):
            return None
        most = f" and at most {LARGEST_WHOLE}" if fits and value > LARGEST_WHOLE else ""
        return f"a whole number of at least {at_least}{most}" + (" or null" if optional else "")

    return check


def is_seed(value: Any) -> str | None:
    """A check for seeds: whole numbers that NumPy and transformers take.

    Example:
        >>> is_seed(7), is_seed(-1)
        (None, 'a whole number from 0 to 4294967295')
    """
    whole_number = isinstance(value, int) and not isinstance(value, bool)
    fits = whole_number and 0 <= value <= LARGEST_SEED
    return None if fits else f"a whole number from 0 to {LARGEST_SEED}"


def check_seed(seed: Any) -> None:
    """Refuse a seed that NumPy or transformers does not take.

    Raises:
        SettingError: says what is expected.
    """
    expected = is_seed(seed)
    if expected:
        raise SettingError(f"expected {expected}, got {seed!r}", field="seed")


def is_one_of(options: Sequence[Any]) -> Check:
    """A check for one of the given values (1 and True are different values)."""

    def check(value: Any) -> str | None:
        found = any(type(value) is type(option) and value == option for option in options)
        return None if found else "one of " + ", ".join(str(option) for option in options)

    return check


def is_instance(kind: type | UnionType, expected: str) -> Check:
    """A check for values of a class.

    Args:
        kind: a class, or a union of classes.
        expected: what such a value is called in errors.

    Example:
        >>> check = is_instance(str, "a string")
        >>> check("a"), check(5)
        (None, 'a string')
    """
    return lambda value: None if isinstance(value, kind) else expected


def is_name(value: Any) -> str | None:
    """A check for strings that are not empty."""
    return None if isinstance(value, str) and value else "a string that is not empty"


def is_mapping(value: Any) -> str | None:
    """A check for mappings."""
    return None if isinstance(value, Mapping) else "an object of fields"


def is_pattern(value: Any) -> str | None:
    """A check for regular expressions."""
    if not isinstance(value, str):
        return "a regular expression"
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        return f"a regular expression ({error})"
    return None


def number(
    default: float | None,
    about: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """A finite number, within a range."""
    check = is_number(at_least=at_least, above=above, at_most=at_most, optional=optional)
    return declare(default, check, about, kw_only=kw_only)


def whole(
    default: int | None,
    about: str,
    *,
    at_least: int = 0,
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """A whole number."""
    check = is_whole(at_least=at_least, optional=optional)
    return declare(default, check, about, kw_only=kw_only)


def choice(default: Any, options: Sequence[Any], about: str, *, kw_only: bool = False) -> Any:
    """One of the given values (1 and True are different values)."""
    return declare(default, is_one_of(options), about, kw_only=kw_only)


def text(default: str | None, about: str, *, kw_only: bool = False) -> Any:
    """A string, or null."""

    def check(value: Any) -> str | None:
        return None if value is None or isinstance(value, str) else "a string or null"

    return declare(default, check, about, kw_only=kw_only)


def flag(default: bool, about: str) -> Any:
    """True or False."""
    return declare(default, lambda v: None if isinstance(v, bool) else "true or false", about)


def composed(default: Any, parse: Callable[[Any], object], about: str) -> Any:
    """A value that `parse` accepts; the error is the SettingError that `parse` raises."""

    def check(value: Any) -> str | None:
        parse(value)
        return None

    return declare(default, check, about)


class Frozen(dict[str, Any]):
    """A mapping that can be hashed but not changed, so that a setting stays as it was checked.

    Example:
        >>> hash(Frozen(a=1)) == hash(Frozen(a=1)), repr(Frozen(a=1))
        (True, "{'a': 1}")
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise TypeError("a setting cannot be changed")

    def __reduce__(self) -> tuple[type[Frozen], tuple[dict[str, Any]]]:
        return Frozen, (dict(self),)

    __ior__ = __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = _refuse  # type: ignore[assignment]


def python_values(value: Any) -> Any:
    """Numbers of NumPy and torch as Python numbers, also inside mappings, lists and tuples.

    An array becomes a list.

    Example:
        >>> import numpy as np
        >>> python_values({"k": np.float32(0.5), "sizes": np.array([1, 2])})
        {'k': 0.5, 'sizes': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {key: python_values(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(python_values(inner) for inner in value)
    to_list = getattr(value, "tolist", None)
    if not callable(to_list) or not isinstance(getattr(value, "ndim", None), int):
        return value
    try:
        listed = to_list()
    except (RuntimeError, NotImplementedError):  # a tensor that holds no values
        return value
    return value if listed is None else listed  # None: a masked value


def frozen(value: Any) -> Any:
    """Mappings and lists, also nested ones, as values that can be hashed."""
    if isinstance(value, Mapping):
        return Frozen({key: frozen(inner) for key, inner in value.items()})
    return tuple(frozen(inner) for inner in value) if isinstance(value, list) else value


def full_repr(instance: Any) -> str:
    """A text of a dataclass with all its fields, also those at their default.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(repr=False)
        ... class Ball:
        ...     radius: float = 1.0
        >>> full_repr(Ball())
        'Ball(radius=1.0)'
    """
    return _repr_of(instance, [declared for declared in fields(instance) if declared.repr])


def short_repr(instance: Any) -> str:
    """A text of a dataclass with the fields that are not at their default.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(repr=False)
        ... class Ball:
        ...     radius: float = 1.0
        ...     colour: str = "red"
        >>> short_repr(Ball()), short_repr(Ball(colour="blue"))
        ('Ball()', "Ball(colour='blue')")
    """
    shown = [declared for declared in fields(instance) if declared.repr]
    return _repr_of(instance, [declared for declared in shown if _is_set(instance, declared)])


def _is_set(instance: Any, declared: Field[Any]) -> bool:
    """Whether a field's value differs from its default."""
    default = declared.default
    if declared.default_factory is not MISSING:
        default = declared.default_factory()
    value = getattr(instance, declared.name)
    return type(value) is not type(frozen(default)) or bool(value != frozen(default))


def _repr_of(instance: Any, shown: Sequence[Field[Any]]) -> str:
    values = ", ".join(
        f"{declared.name}={getattr(instance, declared.name)!r}" for declared in shown
    )
    return f"{type(instance).__qualname__}({values})"


def check_fields(instance: Any, error: type[SettingError] = SettingError) -> None:
    """Run the checks of all declared fields, and freeze their mappings and lists.

    Numbers of NumPy and torch are stored as Python numbers.

    Args:
        instance: a dataclass whose fields were declared here.
        error: the class of the error to raise.

    Raises:
        SettingError: the first field refused, with what was expected.
    """
    for declared in fields(instance):
        check = declared.metadata.get("check")
        value = getattr(instance, declared.name)
        value = python_values(value) if check else value
        expected = check(value) if check else None
        if expected:
            got = " ".join(declared.metadata["shown"](value).split())
            raise error(f"expected {expected}, got {got}", field=declared.name)
        object.__setattr__(instance, declared.name, frozen(value))
