"""The rules of the house, measured on the source by `tools/house.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "house.py"


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """The script as a module."""
    pytest.importorskip("networkx")
    spec = importlib.util.spec_from_file_location("house", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


def test_the_source_keeps_the_rules(house: ModuleType) -> None:
    figures = house.measure(house.OURS)
    assert figures.shared == {}
    assert figures.circles == []
    assert figures.hidden == []
    assert figures.same_file == {}
    assert figures.probes == []
    assert not figures.broken
    assert figures.returns == figures.public_functions


def test_a_package_that_breaks_every_rule_is_measured(house: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "untidy"
    for folder in (root, root / "one", root / "two"):
        folder.mkdir()
    (root / "__init__.py").write_text("from untidy.one.thing import one\n")
    (root / "one" / "__init__.py").write_text("")
    (root / "two" / "__init__.py").write_text("")
    (root / "one" / "thing.py").write_text(
        "def one():\n    from untidy.two import thing\n\n    return getattr(estimator, 'weights')\n"
    )
    (root / "two" / "thing.py").write_text(
        "from untidy.one import thing\n\n\ndef one() -> int:\n    '''One.'''\n    return 1\n"
    )
    figures = house.measure(root)
    assert figures.shared == {"one": ["untidy.one.thing", "untidy.two.thing"]}
    assert figures.circles == [["untidy.one.thing", "untidy.two.thing"]]
    assert figures.hidden == ["untidy.one"]
    assert figures.same_file == {"thing": ["untidy.one.thing", "untidy.two.thing"]}
    assert figures.probes == ["untidy.one.thing"]
    assert (figures.documented, figures.public, figures.returns) == (1, 2, 1)
    assert figures.broken
