"""Fields that check themselves, frozen settings, and things built by name."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import torch

from stepcredit.errors import MethodError, SettingError
from stepcredit.settings import registry
from stepcredit.settings.fields import (
    Frozen,
    check_fields,
    choice,
    declare,
    flag,
    frozen,
    is_pattern,
    number,
    text,
    whole,
)
from stepcredit.settings.registry import Registry


@dataclass(frozen=True)
class Thing:
    ratio: float = number(0.5, "a share", at_least=0.0, at_most=1.0)
    above: float | None = number(None, "a bound", above=0.0, optional=True)
    count: int | None = whole(2, "a count", at_least=1, optional=True)
    mode: Any = choice("a", ("a", 1, None), "a mode")
    name: str | None = text(None, "a name")
    on: bool = flag(True, "a switch")
    pattern: str = declare("x", is_pattern, "a pattern")
    extra: Any = declare({"a": [1]}, lambda _: None, "more")

    def __post_init__(self) -> None:
        check_fields(self)


SHARE = "ratio: expected a number of at least 0 and at most 1"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"ratio": -0.1}, f"{SHARE}, got -0.1"),
        ({"ratio": 1.1}, f"{SHARE}, got 1.1"),
        ({"ratio": True}, f"{SHARE}, got True"),
        ({"ratio": "1"}, f"{SHARE}, got '1'"),
        ({"ratio": float("nan")}, f"{SHARE}, got nan"),
        ({"above": 0}, "above: expected a number above 0 or null, got 0"),
        ({"above": 10**400}, f"above: expected a number above 0 or null, got {10**400}"),
        ({"count": 0}, "count: expected a whole number of at least 1 or null, got 0"),
        ({"count": 1.0}, "count: expected a whole number of at least 1 or null, got 1.0"),
        ({"count": True}, "count: expected a whole number of at least 1 or null, got True"),
        ({"mode": True}, "mode: expected one of a, 1, None, got True"),
        ({"name": 5}, "name: expected a string or null, got 5"),
        ({"on": 1}, "on: expected true or false, got 1"),
        ({"pattern": 5}, "pattern: expected a regular expression, got 5"),
        (
            {"pattern": "["},
            "pattern: expected a regular expression (unterminated character set at position 0), "
            "got '['",
        ),
    ],
)
def test_a_value_out_of_range_is_named(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as raised:
        Thing(**fields)
    assert str(raised.value) == line


def test_values_at_the_bounds_are_taken() -> None:
    thing = Thing(ratio=1, above=1e-300, count=None, mode=None, name="", on=False)
    assert (thing.ratio, thing.above, thing.count, thing.mode) == (1, 1e-300, None, None)
    assert Thing(ratio=0).extra == {"a": (1,)}


def test_settings_can_be_hashed_copied_and_pickled_but_not_changed() -> None:
    thing = Thing(extra={"a": {"b": [1, [2]]}})
    assert hash(thing) == hash(Thing(extra={"a": {"b": [1, [2]]}}))
    for other in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
        assert other == thing
        assert type(other.extra) is type(other.extra["a"]) is Frozen
    for change in (
        lambda held: held.update(b=1),
        lambda held: held.__setitem__("b", 1),
        lambda held: held.__delitem__("a"),
        lambda held: held.__ior__({"b": 1}),
        lambda held: held.pop("a"),
        lambda held: held.popitem(),
        lambda held: held.setdefault("b", 1),
        lambda held: held.clear(),
    ):
        with pytest.raises(TypeError, match=r"\Aa setting cannot be changed\Z"):
            change(thing.extra)
    assert frozen([{"a": [1]}]) == ({"a": (1,)},)


@dataclass(frozen=True)
class Ball:
    size: int
    colour: str
    weight: float = 1.0


def shapes() -> Registry[Any]:
    made = Registry[Any]("shape", "stepcredit.no_such_group")
    made.register("ball")(Ball)
    made.register("thing")(Thing)
    return made


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        ("bal", {}, "unknown shape 'bal', did you mean 'ball'?"),
        ("zzz", {}, "unknown shape 'zzz': expected ball, thing"),
        (5, {}, "expected the name of a shape, got 5"),
        ("ball", {"wieght": 1}, "wieght: ball has no such field, did you mean 'weight'?"),
        ("ball", {"q": 1}, "q: ball has no such field: expected size, colour, weight"),
        ("ball", {}, "size: ball needs it"),
        ("ball", {"size": 1}, "colour: ball needs it"),
        ("thing", {"ratio": 2}, f"{SHARE}, got 2"),
    ],
)
def test_what_cannot_be_built_is_named(name: Any, fields: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as raised:
        shapes().build(name, fields)
    assert str(raised.value) == line


@pytest.mark.parametrize(
    ("name", "fields", "field", "line"),
    [
        ("bal", {"size": 1}, "shape", "shape: unknown shape 'bal', did you mean 'ball'?"),
        (5, {}, "shape", "shape: expected the name of a shape, got 5"),
        (
            "ball",
            {"q": 1},
            "--set q",
            "--set q: ball has no such field: expected size, colour, weight",
        ),
        (
            "ball",
            {7: 1},
            "--set 7",
            "--set 7: ball has no such field: expected size, colour, weight",
        ),
        ("ball", {"size": 1}, "--set colour", "--set colour: ball needs it"),
        ("thing", {"ratio": 2}, "--set ratio", f"--set {SHARE}, got 2"),
    ],
)
def test_the_setting_at_fault_is_named(name: Any, fields: Any, field: str, line: str) -> None:
    with pytest.raises(SettingError) as raised:
        shapes().build(name, fields, at="shape", under="--set")
    assert (raised.value.field, str(raised.value)) == (field, line)


def test_a_class_that_refuses_without_a_field_blames_the_name() -> None:
    @dataclass(frozen=True)
    class Picky:
        size: int = 1

        def __post_init__(self) -> None:
            raise MethodError("not today") from OSError("no disk")

    made = Registry[Any]("shape", "stepcredit.no_such_group")
    made.register("picky")(Picky)
    with pytest.raises(MethodError) as raised:
        made.build("picky", {"size": 2}, at="--shape picky", under="--set")
    assert str(raised.value) == "--shape picky: not today"
    assert isinstance(raised.value.__cause__, OSError)


def test_a_name_is_taken_once_but_a_module_may_be_imported_anew() -> None:
    made = shapes()
    assert made.register("ball")(Ball) is Ball
    with pytest.raises(SettingError) as raised:
        made.register("ball")(Thing)
    assert str(raised.value) == f"shape 'ball' is already {__name__}.Ball"
    assert made.build("ball", {"size": 1, "colour": "red"}) == Ball(1, "red")
    assert (made.names(), made.all()) == (["ball", "thing"], {"ball": Ball, "thing": Thing})


def test_own_modules_load_with_the_first_use() -> None:
    made = Registry[Any]("shape", "stepcredit.no_such_group", own={"lazy": "no_such_module"})
    made.register("ball")(Ball)
    assert made.names() == ["lazy", "ball"]
    assert made.named("ball") is Ball
    with pytest.raises(ModuleNotFoundError):
        made.named("lazy")


def test_an_installed_package_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("fraction", "fractions:Fraction", "g"),
        EntryPoint("broken", "no_such_module:Thing", "g"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "g" else [])
    made = Registry[Any]("shape", "g")
    assert made.names() == ["fraction", "broken"]
    with pytest.raises(SettingError) as raised:
        made.named("broken")
    reason = "entry point 'broken' (no_such_module:Thing) fails to load: "
    assert str(raised.value) == f"{reason}No module named 'no_such_module'"


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"ratio": np.float32(0.5)}, 0.5),
        ({"ratio": np.int8(1)}, 1),
        ({"ratio": torch.tensor(0.25)}, 0.25),
        ({"ratio": np.array(0.25)}, 0.25),
        ({"count": np.uint64(3)}, 3),
        ({"count": torch.tensor(3)}, 3),
        ({"mode": np.int64(1)}, 1),
        ({"mode": np.str_("a")}, "a"),
        ({"on": np.False_}, False),
        ({"on": torch.tensor(True)}, True),
        ({"extra": {"a": np.float64(2)}}, {"a": 2.0}),
        ({"extra": [np.int64(2), (np.float32(0.5),)]}, (2, (0.5,))),
        ({"extra": np.array([1.0, 2.0])}, (1.0, 2.0)),
    ],
)
def test_numbers_of_numpy_and_torch_are_stored_as_pythons_own(
    given: dict[str, Any], stored: Any
) -> None:
    (name, value), thing = next(iter(given.items())), Thing(**given)
    kept = getattr(thing, name)
    assert kept == stored
    assert type(kept) is type(stored) or isinstance(kept, Frozen)
    assert thing == Thing(**{name: stored}), value
    assert hash(thing) == hash(Thing(**{name: stored}))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"ratio": np.True_}, f"{SHARE}, got True"),
        ({"ratio": torch.tensor(True)}, f"{SHARE}, got True"),
        ({"ratio": np.float32("nan")}, f"{SHARE}, got nan"),
        ({"ratio": np.complex64(1)}, f"{SHARE}, got (1+0j)"),
        ({"ratio": np.ones(2)}, f"{SHARE}, got [1.0, 1.0]"),
        ({"ratio": torch.ones(2, 2)}, f"{SHARE}, got [[1.0, 1.0], [1.0, 1.0]]"),
        ({"ratio": np.ma.masked}, f"{SHARE}, got masked"),
        (
            {"ratio": torch.ones((), device="meta")},
            f"{SHARE}, got tensor(..., device='meta', size=())",
        ),
        ({"ratio": "0.5"}, f"{SHARE}, got '0.5'"),
        (
            {"count": np.float64(2)},
            "count: expected a whole number of at least 1 or null, got 2.0",
        ),
        ({"on": np.int64(1)}, "on: expected true or false, got 1"),
    ],
)
def test_other_values_of_numpy_and_torch_are_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as raised:
        Thing(**fields)
    assert str(raised.value) == line


def test_a_class_that_lacks_a_method_is_refused_when_it_is_built():
    from abc import ABC, abstractmethod

    class Shape(ABC):
        @abstractmethod
        def area(self) -> float: ...

    shapes = Registry[Shape]("shape", "stepcredit.no_such_group")

    @shapes.register("blob")
    @dataclass(frozen=True)
    class Blob(Shape):
        pass

    with pytest.raises(SettingError) as refused:
        shapes.build("blob", at="kind")
    assert str(refused.value) == "kind: the class of 'blob' does not define area"
