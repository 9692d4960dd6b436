"""Import paths of release 0.1 still work, and say where each thing is now."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter

import pytest

from stepcredit import _moved

EXTRAS = {"verl"}


@pytest.mark.parametrize("old", sorted(_moved.MOVED))
def test_an_old_module_leads_to_a_module_that_exists(old: str) -> None:
    assert find_spec(f"stepcredit.{_moved.MOVED[old]}") is not None
    import_module(f"stepcredit.{old}")


@pytest.mark.parametrize("old", sorted(_moved.RENAMED))
def test_an_old_name_gives_what_has_the_new_one(old: str) -> None:
    new_module, _, new_name = _moved.RENAMED[old].partition(":")
    module, _, name = old.partition(":")
    try:
        new = attrgetter(new_name)(import_module(f"stepcredit.{new_module}"))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"{error.name} is not installed")
    if f"{module}.{name}" in _moved.MOVED:  # the import of a module of this name has hidden it
        vars(import_module(f"stepcredit.{module}")).pop(name, None)
    with pytest.warns(DeprecationWarning, match=f"is now stepcredit.{new_module}.{new_name}"):
        assert getattr(import_module(f"stepcredit.{module}"), name) == new


def test_the_warning_names_the_line_that_imports() -> None:
    code = "from stepcredit.signals.prm import LocalPRM; print(LocalPRM.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "stepcredit.prm.local\n"
    line = "<string>:1: DeprecationWarning: stepcredit.signals.prm.LocalPRM is now stepcredit.prm."
    assert done.stderr.startswith(line)


def test_modules_that_were_functions_can_be_called() -> None:
    for room, name in (("credit", "estimator"), ("signals", "signal")):
        called = getattr(import_module(f"stepcredit.{room}"), name)
        with pytest.warns(DeprecationWarning, match=f"call sc.{name}"):
            called({"estimator": "pass", "signal": "equations"}[name])
    methods = import_module("stepcredit.credit").methods
    with pytest.warns(DeprecationWarning, match="call sc.methods"):
        assert "pass" in methods()


def test_an_unknown_name_is_no_attribute() -> None:
    old = import_module("stepcredit.credit.streams")
    with pytest.raises(AttributeError, match="no_such_thing"):
        old.no_such_thing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match=r"stepcredit\.credit\.no_such_module"):
        import_module("stepcredit.credit.no_such_module")


def test_new_paths_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for new in set(_moved.MOVED.values()):
            if "verl" not in new:
                import_module(f"stepcredit.{new}")
