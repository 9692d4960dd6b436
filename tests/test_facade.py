"""The public surface: what `dir(sc)` shows, and with which signatures."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import stepcredit as sc

PINNED = Path(__file__).with_name("public_surface.json")


def signature_of(name: str) -> str:
    """A public name's signature: what a caller may pass, with the defaults."""
    thing = getattr(sc, name)
    if inspect.isclass(thing) and inspect.isabstract(thing) and not is_dataclass(thing):
        return "abstract"
    shown = inspect.signature(thing)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in shown.parameters.values()
        if parameter.name != "self"
    ]
    return str(shown.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_the_public_surface_is_the_one_written_down() -> None:
    """A change here is a change for every user: write it into the changelog, then into the file."""
    found = {name: signature_of(name) for name in sc.__all__}
    assert found == json.loads(PINNED.read_text())


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    for name in sc.__all__:
        getattr(sc, name)
    assert dir(sc) == sorted([*sc.__all__, "__version__"])
    assert len(set(dir(sc))) == len(dir(sc))


def test_every_public_name_is_documented() -> None:
    assert [name for name in sc.__all__ if not (getattr(sc, name).__doc__ or "").strip()] == []


def test_most_public_names_have_an_example() -> None:
    shown = [name for name in sc.__all__ if ">>>" in (getattr(sc, name).__doc__ or "")]
    assert len(shown) >= 0.8 * len(sc.__all__), sorted(set(sc.__all__) - set(shown))


def test_a_module_is_what_its_import_gives() -> None:
    code = (
        "import stepcredit as sc; sc.estimator('pass'); sc.signal('equations'); sc.methods()\n"
        "import stepcredit.credit.estimator as a, stepcredit.signals.signal as b\n"
        "import stepcredit.credit.methods as c, stepcredit.signals as d, stepcredit.rewards as e\n"
        "print([type(m).__mro__[-2].__name__ for m in (a, b, c, d, e)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["module"] * 5)
