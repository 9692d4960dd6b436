"""Registries of classes by name, from this package, user code and entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import Any, Generic, TypeVar

from stepcredit.errors import SettingError

Thing = TypeVar("Thing")
Cls = TypeVar("Cls", bound=type)


class Registry(Generic[Thing]):
    """Dataclasses by name; an object of a class is built from its name and fields.

    Args:
        kind: the word for them in messages, such as "method".
        group: entry-point group through which installed packages add classes.
        error: raised for an unknown name or field.
        own: the built-in names and the modules that register them, imported on first use.
        adapt: turns an entry point's object into a class, for kinds where it may be another object.

    Example:
        >>> from dataclasses import dataclass
        >>> shapes = Registry[object]("shape", "stepcredit.no_such_group")
        >>> @shapes.register("ball")
        ... @dataclass(frozen=True)
        ... class Ball:
        ...     radius: float = 1.0
        >>> shapes.build("ball", {"radius": 2.0})
        Ball(radius=2.0)
    """

    def __init__(
        self,
        kind: str,
        group: str,
        error: type[SettingError] = SettingError,
        own: dict[str, str] | None = None,
        adapt: Callable[[Any], Any] = lambda thing: thing,
    ) -> None:
        self.kind, self.group, self.error = kind, group, error
        self._own, self._adapt = own or {}, adapt
        self._known: dict[str, type] = {}

    def register(self, name: str) -> Callable[[Cls], Cls]:
        """Give a class its name; it is set as the class's `name`.

        Raises:
            SettingError: the class is no dataclass, or another class has that name.
        """

        def add(cls: Cls) -> Cls:
            if not (isinstance(cls, type) and is_dataclass(cls)):
                raise self.error(f"{self.kind} {name!r} is no dataclass: {cls!r}")
            other = self._known.get(name)
            if other is not None and _address(other) != _address(cls):
                raise self.error(f"{self.kind} {name!r} is already {'.'.join(_address(other))}")
            cls.name = name  # type: ignore[attr-defined]
            self._known[name] = cls
            return cls

        return add

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """All names, without loading their classes."""
        return list(dict.fromkeys([*self._own, *self._known, *self._plugins]))

    def all(self) -> dict[str, type[Thing]]:
        """All classes by name, those of installed packages included.

        Raises:
            SettingError: an installed package's class fails to load; it names the entry point.
        """
        for name in self.names():
            self._load(name)
        return {name: self._known[name] for name in self.names() if name in self._known}

    def _load(self, name: str) -> None:
        if name in self._known:
            return
        if name in self._own:
            import_module(self._own[name])
            return
        point = self._plugins.get(name)
        if point is None:
            return
        try:
            thing = point.load()
            if name not in self._known:
                self.register(name)(self._adapt(thing))
        except SettingError:
            raise
        except Exception as error:
            reason = f"entry point {name!r} ({point.value}) fails to load: {error}"
            raise self.error(reason) from error

    def named(self, name: str) -> type[Thing]:
        """The class of that name.

        Raises:
            SettingError: there is none; the message suggests a similar name.
        """
        if not isinstance(name, str):
            raise self.error(f"expected the name of a {self.kind}, got {name!r}")
        self._load(name)
        if name not in self._known:
            raise self.error(f"unknown {self.kind} {name!r}{hint(name, sorted(self.names()))}")
        return self._known[name]

    def build(
        self,
        name: str,
        fields: Mapping[str, Any] | None = None,
        *,
        at: str | None = None,
        under: str | None = None,
    ) -> Thing:
        """Build the object of that name with the given fields.

        Args:
            name: as `names` lists it.
            fields: its fields by name.
            at: the setting that holds the name, for errors: `process_signal`, `--method pass`.
            under: the setting that holds the fields, for errors: `process_signal_fields`, `--set`.

        Raises:
            SettingError: an unknown name or field, a missing field, or a value out of range. Its
                field is the one at fault, under `under`; where no field is at fault, it is `at`.

        Example:
            >>> from stepcredit.credit.method_registry import METHODS
            >>> METHODS.build("pass", {"kk": 1.0}, at="--method pass", under="--set")
            Traceback (most recent call last):
            stepcredit.errors.MethodError: --set kk: pass has no such field, did you mean 'k'?
            >>> METHODS.build("pas", at="method", under="fields")
            Traceback (most recent call last):
            stepcredit.errors.MethodError: method: unknown method 'pas', did you mean 'pass'?
        """
        try:
            return self._built(self.named(name), name, fields or {})
        except SettingError as error:
            raise error.at(under=under if error.field else at) from error.__cause__

    def build_inner(self, value: Any, field: str) -> Thing:
        """The object that a field of another object names.

        Args:
            value: a name, or {name: fields}.
            field: the field, for errors.

        Raises:
            SettingError: neither of these, or as for `build`; it begins with the field.

        Example:
            >>> from stepcredit.credit.method_registry import METHODS
            >>> METHODS.build_inner({"pass": {"k": 1}}, "first")
            PASS(k=1)
            >>> METHODS.build_inner({"pass": {"kk": 1}}, "first")
            Traceback (most recent call last):
            stepcredit.errors.MethodError: first.kk: pass has no such field, did you mean 'k'?
        """
        name, given = self.inner_settings(value, field)
        return self.build(name, given, at=field, under=field)

    def inner_settings(self, value: Any, field: str) -> tuple[str, Mapping[str, Any]]:
        """The name and the fields that `build_inner` builds an object from.

        Args:
            value: a name, or {name: fields}.
            field: the field, for errors.

        Raises:
            SettingError: neither of these; it names the field.
        """
        name, given = value, dict[str, Any]()
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, given),) = value.items()
        if not isinstance(name, str):
            reason = f"expected the name of a {self.kind}, or {{name: fields}}, got {value!r}"
            raise self.error(reason, field=field)
        if not isinstance(given, Mapping):
            reason = f"expected the fields of {name!r} by name, got {given!r}"
            raise self.error(reason, field=field)
        return name, given

    def _built(self, cls: type[Thing], name: str, given: Mapping[str, Any]) -> Thing:
        if isabstract(cls):
            missing = ", ".join(sorted(vars(cls)["__abstractmethods__"]))
            raise self.error(f"the class of {name!r} does not define {missing}")
        known = {declared.name: declared for declared in fields(cls) if declared.init}  # type: ignore[arg-type]
        for field in map(str, given):
            if field not in known:
                reason = f"{name} has no such field{hint(field, list(known))}"
                raise self.error(reason, field=field)
        for field, declared in known.items():
            required = declared.default is declared.default_factory is MISSING
            if required and field not in given:
                raise self.error(f"{name} needs it", field=field)
        return cls(**given)


def hint(name: str, known: list[str]) -> str:
    """The end of an error about an unknown name: a similar name, or all names.

    Example:
        >>> hint("pas", ["pass", "pure"]), hint("x", ["pass", "pure"])
        (", did you mean 'pass'?", ': expected pass, pure')
    """
    near = get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else f": expected {', '.join(known)}"


def _address(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
