"""Import paths of release 0.1 still work, and say where each thing is now."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import pytest

from stepcredit import _moved

EXTRAS = {"verl"}
CHANGELOG = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()


def test_every_old_module_that_the_changelog_names_still_works() -> None:
    table = CHANGELOG.partition("| old module | new module |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    names = [name for cell in cells for name in re.findall(r"`([a-z_]+\.[a-z_.]+)`", cell)]
    assert len(names) > 20
    for name in names:
        import_module(f"stepcredit.{name}")


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
    with pytest.warns(DeprecationWarning, match=f"is now stepcredit.{new_module}.{new_name}"):
        assert getattr(import_module(f"stepcredit.{module}"), name) == new


def test_the_warning_names_the_line_that_imports() -> None:
    code = "from stepcredit.signals.prm import LocalPRM; print(LocalPRM.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "stepcredit.prm.local\n"
    line = "<string>:1: DeprecationWarning: stepcredit.signals.prm.LocalPRM is now stepcredit.prm."
    assert done.stderr.startswith(line)


@pytest.mark.parametrize("name", ["evals.pass_at_k", "signals.training.judge"])
def test_an_old_module_hides_no_function_of_its_name(name: str) -> None:
    """The name is the function's before and after the import of the module, in a new process."""
    package, _, function = name.rpartition(".")
    code = (
        f"from stepcredit.{package} import {function} as before\n"
        f"import stepcredit.{name}\n"
        f"from stepcredit.{package} import {function}\n"
        f"from stepcredit.{name} import {function} as by_old_path\n"
        f"assert callable(before) and before is {function} is by_old_path\n"
        f"assert stepcredit.{name} is before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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


def test_an_old_keyword_still_works_and_the_new_one_does_not_warn() -> None:
    @_moved.reads_old_keyword("told", "progress")
    def scored(rows: int, *, progress: int = 0) -> int:
        return rows + progress

    with pytest.warns(DeprecationWarning, match="scored: the argument told is now progress"):
        assert scored(1, told=2) == 3  # type: ignore[call-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (scored(1, progress=2), scored(1)) == (3, 1)
    with pytest.raises(TypeError, match="give one of the two"):
        scored(1, told=2, progress=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "function",
    [
        "rewards.reward_file:reward_file",
        "signals.score_file:score_file",
        "prm.training.pipeline:train_prm",
    ],
)
def test_functions_of_release_0_1_still_take_told(function: str) -> None:
    module, _, name = function.partition(":")
    called = getattr(import_module(f"stepcredit.{module}"), name)
    new = "extra" if name == "train_prm" else "progress"
    warned = pytest.warns(DeprecationWarning, match=f"{name}: the argument told is now {new}")
    with warned, pytest.raises(TypeError, match="required positional argument"):
        called(told=None)
