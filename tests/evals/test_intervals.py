"""Prompt-clustered intervals: against scipy's own, and by how often they hold the truth."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from stepcredit.errors import MissingExtra, StepCreditError
from stepcredit.evals import mean_interval


def test_without_clusters_it_is_scipys_t_interval() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_repeating_a_prompts_answers_adds_no_certainty() -> None:
    once = mean_interval([0.0, 1.0, 1.0], clusters=["a", "b", "c"])
    many = mean_interval([0.0, 1.0, 1.0] * 50, clusters=["a", "b", "c"] * 50)
    assert many == once


def test_holds_the_truth_in_95_of_100_draws_where_a_naive_interval_does_not() -> None:
    generator = np.random.default_rng(0)
    prompts, samples, truth = 40, 8, 0.5
    held = naive = 0
    for _ in range(400):
        chance = generator.beta(0.3, 0.3, prompts)
        answers = generator.random((prompts, samples)) < chance[:, None]
        clusters = np.repeat(np.arange(prompts), samples).tolist()
        found = mean_interval(answers.astype(float).ravel(), clusters)
        alone = mean_interval(answers.astype(float).ravel())
        held += found.low <= truth <= found.high
        naive += alone.low <= truth <= alone.high
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < 0.8


def test_degenerate_samples_have_defined_intervals() -> None:
    equal = mean_interval([0.25, 0.25, 0.25])
    assert (equal.mean, equal.low, equal.high) == (0.25, 0.25, 0.25)
    lone = mean_interval([0.5, 0.7], clusters=["a", "a"])
    assert (lone.mean, lone.low, lone.high) == (0.6, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "clusters", "line"),
    [
        ([], None, "values: expected one or more numbers, got shape (0,)"),
        ([1.0, math.nan], None, "row 1: values: expected a finite number, got nan"),
        ([1.0, 2.0], ["a"], "clusters: expected 2, got 1"),
    ],
)
def test_refuses(values: list[float], clusters: list[str] | None, line: str) -> None:
    with pytest.raises(StepCreditError) as error:
        mean_interval(values, clusters)
    assert str(error.value) == line


def test_names_the_extra_where_scipy_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_scipy(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(MissingExtra) as error:
        mean_interval([1.0, 2.0])
    expected = "not installed; it comes with the extra train: pip install 'stepcredit[train]'"
    assert str(error.value) == f"scipy: {expected}"
