"""A deprecated name works until the version that is written beside it, and not longer."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter

import pytest
from packaging.version import Version

import stepcredit as sc
from stepcredit._deprecations import DEPRECATIONS, Deprecation


def is_there(place: str) -> bool:
    """Whether a MODULE, or a MODULE:NAME, exists."""
    module, _, name = place.partition(":")
    if find_spec(module) is None:
        return False
    try:
        return not name or attrgetter(name)(import_module(module)) is not NotImplemented
    except AttributeError:
        return False


def overdue(version: str) -> list[str]:
    """The places of deprecated names that a release must not have any more."""
    return [
        each.place
        for each in DEPRECATIONS
        if Version(version) >= Version(each.gone) and is_there(each.place)
    ]


def test_no_name_is_kept_past_its_version() -> None:
    assert overdue(sc.__version__) == [], "remove these, and their rows in _deprecations.py"


def test_the_next_minor_release_must_remove_them() -> None:
    pytest.importorskip("trl")
    places = [each.place for each in DEPRECATIONS]
    assert overdue("0.2.0") == overdue("1.0.0") == places
    assert overdue("0.1.9") == overdue("0.2.0rc1") == []


@pytest.mark.parametrize("each", DEPRECATIONS, ids=lambda each: each.place)
def test_a_row_has_a_reason_to_be_there(each: Deprecation) -> None:
    """A row whose name is gone is removed with it, and each is one minor release long at least."""
    if "trl" in each.place:
        pytest.importorskip("trl")
    assert is_there(each.place)
    assert Version(each.since).release[:2] < Version(each.gone).release[:2]


def test_places_that_are_gone_are_found_out() -> None:
    assert not is_there("stepcredit.no_such_module")
    assert not is_there("stepcredit._moved:no_such_name")
