"""The comparison of two checkouts: equal results are equal, and every kind of change is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import same_results

    return same_results


def compared(same: Any, one: Any, other: Any, groups: Any = None) -> Any:
    return same.compare({"x": (one, groups)}, {"x": (other, groups)})


def test_a_checkout_gives_the_same_as_itself() -> None:
    command = [sys.executable, "benchmarks/same_results.py", "--beside", str(ROOT)]
    run = subprocess.run([*command, "--batches", "4"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    counts = [line.split("│")[2:6] for line in run.stdout.splitlines() if line.startswith("│")]
    assert sum(int(row[0]) for row in counts if row[0].strip()) > 400
    assert {cell.strip() for row in counts for cell in row[1:]} <= {"0", ""}


def test_one_unit_of_the_largest_of_the_group_is_counted_as_one(same: Any) -> None:
    one = np.array([1.0, 0.001, 100.0], np.float32)
    other = one.copy()
    other[1] += np.float32(2.0**-23)
    groups = np.array([0, 0, 1])
    found = compared(same, one, other, groups)
    assert found.largest == pytest.approx(1.0, rel=1e-3)
    assert "at 1 of 3" in found.lines["x"]
    assert (same.beyond(found, 0), same.beyond(found, 2)) == (["x"], [])
    moved = compared(same, one, np.array([1.0, 0.001, 200.0], np.float32), groups)
    assert same.beyond(moved, 2) == ["x"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("RolloutError: row 0", "RolloutError: row 1"),
        ("an error", np.zeros(2)),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2, np.float32), np.zeros(2, np.float64)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([0.0, np.nan]), np.array([np.nan, 0.0])),
    ],
)
def test_other_texts_types_shapes_and_whole_numbers_are_beyond_any_distance(
    same: Any, one: Any, other: Any
) -> None:
    assert same.beyond(compared(same, one, other), 1e9) == ["x"]


def test_the_sign_of_zero_is_a_bit(same: Any) -> None:
    found = compared(same, np.array([0.0]), np.array([-0.0]))
    assert (same.beyond(found, 0), same.beyond(found, 1)) == (["x"], [])


def test_a_result_that_one_checkout_lacks_is_a_difference(same: Any) -> None:
    assert same.beyond(same.compare({"x": ("a", None)}, {}), 1) == ["x"]


def test_a_method_that_the_other_checkout_does_not_know_is_counted_apart(same: Any) -> None:
    own = {"mix, batch 0: packed": (np.zeros(1), None), "pass, batch 0: packed": ("a", None)}
    refused = "MethodError: chunks: unknown chunker 'cut_points': expected auto"
    other = {"mix, batch 0: error": (refused, None), "pass, batch 0: packed": ("b", None)}
    found = same.compare(own, other)
    assert (found.results, found.new, list(found.distances)) == (1, 2, ["pass, batch 0: packed"])
