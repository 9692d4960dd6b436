"""Every test vector through the Python API, and through the reference that checks the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tests import reference
from tests.credit.strategies import build
from tests.vectors import FILES, cases_of

import stepcredit as sc

Cases = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def cases(shared_dir: Path) -> Cases:
    return {name: cases_of(shared_dir, name) for name in FILES}


def distance(got: list[list[float]], want: list[list[float]]) -> float:
    """Largest absolute difference, NaN counted as infinite; rows must agree in length."""
    gaps = [
        abs(a - b)
        for mine, theirs in zip(got, want, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps)


@pytest.mark.parametrize("name", FILES)
def test_all_vectors_are_there(cases: Cases, name: str) -> None:
    assert len(cases[name]) == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_api_gives_the_vectors(cases: Cases, name: str) -> None:
    wrong = {}
    for case in cases[name]:
        estimator = sc.estimator(case["method"], **case["params"])
        got = [row.tolist() for row in estimator(build(case["rollouts"])).ragged()]
        gap = distance(got, case["advantages"])
        if not gap <= 1e-5:
            wrong[case["name"]] = gap
    assert not wrong


@pytest.mark.parametrize("name", FILES)
def test_reference_gives_the_vectors(cases: Cases, name: str) -> None:
    wrong = {}
    for case in cases[name]:
        got = reference.advantages(case["method"], case["params"], case["rollouts"])
        gap = distance(got, case["advantages"])
        if not gap <= 1e-9:
            wrong[case["name"]] = gap
    assert not wrong
