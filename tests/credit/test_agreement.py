"""How far methods agree: cosines against numpy, and the responses that are furthest apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepcredit.credit.metrics.agreement import Agreement


def of(rows: list[list[float]], lengths: list[int]) -> Agreement:
    agreement = Agreement(len(rows))
    agreement.add(np.array(rows), np.array(lengths))
    return agreement


def test_cosines_against_numpy() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 30))
    agreement = of(rows.tolist(), [10, 20])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert agreement.cosine(0, 2) == pytest.approx(unit[0] @ unit[2])
    others = unit[[0, 1, 3]].sum(0)
    expected = unit[2] @ others / np.linalg.norm(others)
    assert agreement.cosine_with_others(2) == pytest.approx(expected)


def test_a_method_without_advantages_has_no_cosine() -> None:
    agreement = of([[1.0, -1.0], [0.0, 0.0], [2.0, -2.0]], [1, 1])
    assert math.isnan(agreement.cosine(0, 1))
    assert math.isnan(agreement.cosine_with_others(1))
    assert agreement.cosine_with_others(0) == pytest.approx(1)
    assert math.isnan(of([[1.0, -1.0], [0.0, 0.0]], [1, 1]).cosine_with_others(0))


def test_two_of_three_methods_are_compared() -> None:
    rows = [[1.0, 0.0, -1.0], [1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]
    agreement = of(rows, [1, 1, 1])
    assert agreement.apart(1)[0][0] in (0, 2)
    gaps = [float(abs(means[0] - means[1])) for _, means in agreement.apart(3, among=(0, 1))]
    assert gaps == [0.0, 0.0, 0.0]
