"""The min-form's bounds, against random search, a numerical optimiser and loops of plain floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import lambertw

import stepcredit as sc
from stepcredit.credit import theory
from stepcredit.errors import MethodError

scores = st.lists(st.floats(-2, 2), min_size=1, max_size=12)
temperatures = st.sampled_from((0.01, 0.1, 0.3, 1.0))


# Reference


def softmin_total(values: list[float], temperature: float) -> float:
    """Softmin-weighted sum of step scores, by the definition."""
    lowest = min(values)
    weights = [math.exp(-(value - lowest) / temperature) for value in values]
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)


def strict_returns(values: list[float]) -> list[float]:
    """Return-to-go of the strict min-form: the minimum sits at the first worst step."""
    worst = values.index(min(values))
    rewards = [value if step == worst else 0.0 for step, value in enumerate(values)]
    return [sum(rewards[step:]) for step in range(len(values))]


def discounted(values: list[float], gamma: float) -> float:
    return math.fsum(gamma**step * value for step, value in enumerate(values))


@st.composite
def estimates(draw: st.DrawFn) -> tuple[list[float], list[float], float]:
    """True scores, estimates of them, and the largest error among the steps."""
    true = draw(scores)
    epsilon = draw(st.sampled_from((0.0, 0.01, 0.1, 0.5)))
    errors = draw(st.lists(st.floats(-epsilon, epsilon), min_size=len(true), max_size=len(true)))
    return true, [s + e for s, e in zip(true, errors, strict=True)], epsilon


# The softmin's bias


@given(scores, temperatures)
def test_bias_is_the_total_above_the_minimum(values: list[float], temperature: float) -> None:
    expected = softmin_total(values, temperature) - min(values)
    assert theory.softmin_bias(values, temperature) == pytest.approx(expected, abs=1e-12)


@given(scores, temperatures)
def test_bias_never_exceeds_its_bound(values: list[float], temperature: float) -> None:
    bias = softmin_total(values, temperature) - min(values)
    assert -1e-12 <= bias <= theory.softmin_bias_bound(len(values), temperature) + 1e-12


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_an_optimiser_reaches_the_bound_and_not_more(steps: int) -> None:
    bound = theory.softmin_bias_bound(steps, 0.1)
    draws = np.random.default_rng(steps)
    found = [
        -minimize(
            lambda x: -(softmin_total([0.0, *np.abs(x)], 0.1)),
            draws.uniform(0, 0.4, steps - 1),
            options={"gtol": 1e-9},
        ).fun
        for _ in range(5)
    ]
    assert max(found) == pytest.approx(bound, abs=1e-7)
    assert max(found) <= bound + 1e-12


@pytest.mark.parametrize("steps", [1, 2, 10, 200, 4000])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_the_worst_scores_attain_the_bound(steps: int, temperature: float) -> None:
    worst = theory.softmin_worst_scores(steps, temperature)
    bound = theory.softmin_bias_bound(steps, temperature)
    assert len(worst) == steps
    assert softmin_total(worst, temperature) - min(worst) == pytest.approx(bound, rel=1e-12)
    gaps = np.linspace(0, 12 * temperature, 20_001)  # one worst step, the others alike above it
    weight = (steps - 1) * np.exp(-gaps / temperature)
    grid = gaps * weight / (1 + weight)
    assert grid.max() == pytest.approx(bound, rel=1e-5)


def test_published_figures_of_the_bias() -> None:
    assert round(theory.softmin_bias_bound(10, 0.1), 3) == 0.110
    assert round(theory.softmin_bias_bound(200, 0.1), 3) == 0.315
    draws = np.random.default_rng(0).uniform(-1, 1, (4000, 200))  # a PRM's range
    biases = [softmin_total(list(row), 0.1) - row.min() for row in draws]
    assert np.mean(biases) == pytest.approx(0.093, abs=1e-3)  # standard error 2e-4


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 1000, 10**6, 2**53])
def test_the_bound_is_lamberts(steps: int) -> None:
    expected = 0.1 * lambertw((steps - 1) / math.e).real
    assert theory.softmin_bias_bound(steps, 0.1) == pytest.approx(expected, rel=1e-13)


def test_degenerate_bias() -> None:
    assert theory.softmin_bias([0.4], 0.1) == 0.0
    assert theory.softmin_bias([0.4, 0.4, 0.4], 0.1) == 0.0
    assert theory.softmin_bias([0.4, 0.1], 0.0) == 0.0
    assert theory.softmin_bias([1e30, -1e30, 1e-30], 0.1) == 0.0
    assert theory.softmin_bias([1e308, -1e308], 0.1) == 0.0
    assert theory.softmin_bias_bound(1, 0.1) == 0.0
    assert theory.softmin_bias_bound(10, 0.0) == 0.0


# An error of the scores


@given(estimates(), st.sampled_from((0.0, 0.5, 0.9, 1 - 1e-12, 1.0)))
def test_the_sum_errs_by_its_bound_at_most(case, gamma: float) -> None:
    true, guess, epsilon = case
    for step in range(len(true)):
        error = abs(discounted(true[step:], gamma) - discounted(guess[step:], gamma))
        bounds = theory.error_bounds(epsilon, len(true) - step, gamma=gamma)
        assert error <= bounds.discounted_sum + 1e-12


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.99, 1 - 1e-12, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_the_sum_attains_its_bound(gamma: float, steps: int) -> None:
    error = discounted([0.1] * steps, gamma)  # every score off by epsilon, the same way
    bounds = theory.error_bounds(0.1, steps, gamma=gamma)
    assert bounds.discounted_sum == pytest.approx(error, rel=1e-12)


@given(estimates())
def test_the_minimum_to_go_errs_by_epsilon_at_most(case) -> None:
    true, guess, epsilon = case
    for step in range(len(true)):
        error = abs(min(true[step:]) - min(guess[step:]))
        assert error <= theory.error_bounds(epsilon, len(true) - step).minimum + 1e-12


@given(estimates())
def test_the_future_min_of_pure_errs_by_epsilon_at_most(case) -> None:
    """Beside a response of one score 0, which is its baseline, the process part is the minimum."""
    true, guess, epsilon = case
    method = sc.PURE(form="future_min", baseline="rollout")
    found = [
        method(sc.Rollouts([0, 0], process=sc.Tokens([values, [0.0]]))).ragged()[0].tolist()
        for values in (true, guess)
    ]
    assert found[0] == pytest.approx([min(true[j:]) for j in range(len(true))], abs=1e-6)
    assert max(abs(a - b) for a, b in zip(*found, strict=True)) <= epsilon + 1e-6


@given(estimates(), temperatures)
def test_the_softmin_total_errs_by_epsilon_and_the_bias_at_most(case, temperature: float) -> None:
    true, guess, epsilon = case
    error = softmin_total(guess, temperature) - min(true)
    bounds = theory.error_bounds(epsilon, len(true), temperature=temperature)
    assert -epsilon - 1e-12 <= error <= bounds.softmin_total + 1e-12


def test_the_softmin_total_attains_its_bound() -> None:
    true = theory.softmin_worst_scores(10, 0.1)
    error = softmin_total([score + 0.05 for score in true], 0.1) - min(true)
    assert error == pytest.approx(theory.error_bounds(0.05, 10).softmin_total, abs=1e-12)


@given(estimates())
def test_the_strict_return_is_bounded_off_the_exposed_steps_only(case) -> None:
    true, guess, epsilon = case
    exposed = theory.strict_min_exposed(true, guess)
    returns = list(zip(strict_returns(true), strict_returns(guess), strict=True))
    for step, (ours, theirs) in enumerate(returns):
        if step in exposed:
            assert sorted((ours, theirs), key=abs) in ([0.0, min(true)], [0.0, min(guess)])
        else:
            assert abs(ours - theirs) <= epsilon + 1e-12


def test_the_counterexample_to_the_strict_bound() -> None:
    true, guess = [-0.5, -0.49], [-0.49, -0.5]
    errors = [abs(a - b) for a, b in zip(strict_returns(true), strict_returns(guess), strict=True)]
    assert errors == [0.0, 0.5]
    assert theory.error_bounds(0.01, 2).minimum == 0.01
    assert list(theory.strict_min_exposed(true, guess)) == [1]


def test_random_search_breaks_the_strict_bound_often() -> None:
    draws = np.random.default_rng(0)
    true = draws.uniform(-1, -0.2, (2000, 10))
    guess = true + draws.uniform(-0.05, 0.05, true.shape)
    exposed = [len(theory.strict_min_exposed(t, g)) > 0 for t, g in zip(true, guess, strict=True)]
    worst = [
        max(
            abs(a - b)
            for a, b in zip(strict_returns(list(t)), strict_returns(list(g)), strict=True)
        )
        for t, g in zip(true, guess, strict=True)
    ]
    assert [error > 0.05 for error in worst] == exposed
    assert 0.05 < np.mean(exposed) < 0.3


# Arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theory.softmin_bias([], 0.1),
            "scores: expected a vector of finite scores, at least one",
        ),
        (
            lambda: theory.softmin_bias([0.1, math.inf], 0.1),
            "scores: expected a vector of finite scores, at least one",
        ),
        (
            lambda: theory.softmin_bias([[0.1], [0.2, 0.3]], 0.1),  # type: ignore[list-item]
            "scores: expected a vector of finite scores, at least one",
        ),
        (
            lambda: theory.softmin_bias([0.1], -0.1),
            "temperature: expected a number of at least 0, got -0.1",
        ),
        (
            lambda: theory.softmin_bias_bound(0, 0.1),
            "steps: expected a whole number from 1 to 2^53, got 0",
        ),
        (
            lambda: theory.softmin_worst_scores(True, 0.1),
            "steps: expected a whole number from 1 to 2^53, got True",
        ),
        (
            lambda: theory.error_bounds(-0.1, 3),
            "epsilon: expected a number of at least 0, got -0.1",
        ),
        (
            lambda: theory.error_bounds(0.1, 3, gamma=1.5),
            "gamma: expected a number in [0, 1], got 1.5",
        ),
        (
            lambda: theory.strict_min_exposed([0.1, 0.2], [0.1]),
            "estimated: expected 2 scores, got 1",
        ),
    ],
)
def test_arguments_out_of_range(call, message: str) -> None:
    with pytest.raises(MethodError) as caught:
        call()
    assert str(caught.value) == message
