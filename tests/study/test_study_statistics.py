"""Statistics beside scipy's own, beside formulas restated here, and beside values by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from stepcredit.errors import StepCreditError
from stepcredit.evals.intervals import rate_upper_bound
from stepcredit.study.study_statistics import (
    Estimate,
    crossed_iqm,
    crossed_mean,
    holm_adjusted,
    interquartile_mean,
    interval_verdict,
    probability_of_improvement,
    rate_estimate,
    resampled_scores,
    sign_flip_p,
)


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(1).normal(0.5, 0.1, 12)


def test_one_figure_per_run_gives_the_bootstrap_of_scipy(scores: np.ndarray) -> None:
    found = crossed_mean([scores[:, None]])
    expected = stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=3
    ).confidence_interval
    assert found.value == pytest.approx(scores.mean())
    low, high = (scores.mean() + few(12) * (end - scores.mean()) for end in expected)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.n == 12


def few(n: int) -> float:
    """How much wider than the normal's the interval of Student is, of a variance with n - 1."""
    return float((n / (n - 1)) ** 0.5 * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975))


def test_the_interval_of_normal_seeds_is_that_of_student() -> None:
    found = crossed_mean([np.random.default_rng(7).normal(0, 1, (6, 1))])
    values = np.random.default_rng(7).normal(0, 1, 6)
    expected = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert found.high - found.low == pytest.approx(expected[1] - expected[0], rel=0.06)


@pytest.mark.parametrize(("seeds", "problems"), [(3, 1), (5, 1), (10, 1), (3, 40), (5, 40)])
def test_the_interval_holds_the_true_value_in_95_of_100_studies(seeds: int, problems: int) -> None:
    generator, studies, held = np.random.default_rng(8), 500, 0
    for study in range(studies):
        matrix = generator.normal(0, 1, (seeds, 1))
        if problems > 1:
            matrix = matrix + generator.normal(0, 2, (1, problems))
            matrix = matrix + generator.normal(0, 1, (seeds, problems))
        found = crossed_mean([matrix], resamples=1000, seed=study)
        held += found.low <= 0 <= found.high
    assert 0.92 < held / studies < 0.995


@pytest.mark.parametrize("estimator", [crossed_mean, crossed_iqm])
def test_so_it_does_over_two_tasks(estimator: Callable[..., Estimate]) -> None:
    generator, studies, held = np.random.default_rng(9), 400, 0
    for study in range(studies):
        tasks = [generator.normal(0, spread, (5, 1)) for spread in (1, 2)]
        found = estimator(tasks, resamples=1000, seed=study)
        held += found.low <= 0 <= found.high
    assert 0.92 < held / studies < 0.995


def test_one_run_in_each_resample_gives_the_bootstrap_over_problems() -> None:
    """With equal seeds only the problems vary, and scipy resamples those alone."""
    row = np.random.default_rng(2).random(200)
    found = crossed_mean([np.stack([row] * 6)])
    expected = stats.bootstrap(
        (row,), np.mean, n_resamples=20_000, method="percentile", rng=3
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.004)


def test_crossed_variance_is_that_of_both_effects() -> None:
    """Additive effects of seed and problem: the two variances of the mean are added."""
    generator = np.random.default_rng(3)
    seeds, problems = generator.normal(0, 0.1, 40), generator.normal(0, 0.5, 300)
    matrix = seeds[:, None] + problems[None, :]
    drawn = resampled_scores(matrix, 8000, seed=1).mean(axis=1)
    expected = seeds.var() / 40 + problems.var() / 300
    assert drawn.var() == pytest.approx(expected, rel=0.06)


def test_strata_count_equally_and_are_resampled_apart() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.normal(0, 1, (30, 1)), generator.normal(5, 1, (10, 1))
    found = crossed_mean([a, b])
    assert found.value == pytest.approx((a.mean() + b.mean()) / 2)
    expected = 1.96 * np.sqrt(few(30) ** 2 * a.var() / 30 + few(10) ** 2 * b.var() / 10) / 2
    assert found.high - found.low == pytest.approx(2 * expected, rel=0.06)
    assert found.n == 40


def test_one_seed_has_no_interval() -> None:
    found = crossed_mean([np.ones((1, 5))])
    assert found.value == 1.0
    assert np.isnan([found.low, found.high]).all()
    assert interval_verdict(found, "greater", 0.0) == "undecided"


def test_the_interquartile_mean_of_all_runs(scores: np.ndarray) -> None:
    assert interquartile_mean(scores) == pytest.approx(np.sort(scores)[3:9].mean())
    tasks = [scores[:4, None], scores[4:, None]]
    found = crossed_iqm(tasks)
    assert found.value == pytest.approx(np.sort(scores)[3:9].mean())
    generator, draws = np.random.default_rng(5), []
    for _ in range(4000):  # rliable: each task's runs are drawn anew, and all are trimmed together
        drawn = [generator.choice(task[:, 0], len(task)) for task in tasks]
        draws.append(stats.trim_mean(np.concatenate(drawn), 0.25))
    variances = [task.var() / len(task) for task in tasks]
    wide = sum(v * few(len(task)) ** 2 for v, task in zip(variances, tasks, strict=True))
    factor = np.sqrt(wide / sum(variances))
    low, high = (
        found.value + factor * (e - found.value) for e in np.percentile(draws, [2.5, 97.5])
    )
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)


def test_probability_of_improvement_by_counting() -> None:
    generator = np.random.default_rng(6)
    x, y = generator.integers(0, 5, 11), generator.integers(0, 5, 9)
    expected = np.mean([(a > b) + (a == b) / 2 for a in x for b in y])
    assert probability_of_improvement(x, y) == pytest.approx(expected)


def test_sign_flips_by_enumeration() -> None:
    differences = np.array([0.03, -0.01, 0.05, 0.02, 0.04])
    patterns = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    for margin in (0.0, 0.02):
        shifted = differences - margin
        expected = np.mean(patterns @ shifted >= shifted.sum() - 1e-12)
        assert sign_flip_p(differences, margin) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    assert holm_adjusted([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm_adjusted([]) == []


def test_rates_by_the_beta_distribution() -> None:
    found = rate_estimate(3, 20)
    low, high = stats.beta.ppf(0.025, 3, 18), stats.beta.ppf(0.975, 4, 17)
    assert (found.value, found.low, found.high) == pytest.approx((0.15, low, high))
    assert rate_upper_bound(0, 40) == pytest.approx(1 - 0.05 ** (1 / 40))
    assert rate_upper_bound(0, 300) == pytest.approx(3 / 300, rel=0.01)


@pytest.mark.parametrize(
    ("low", "high", "kind", "margin", "expected"),
    [
        (0.01, 0.05, "greater", 0.0, "held"),
        (0.01, 0.05, "greater", 0.02, "undecided"),
        (-0.05, -0.01, "greater", 0.0, "not held"),
        (-0.02, 0.05, "greater", -0.03, "held"),
        (0.01, 0.05, "less", 0.0, "not held"),
        (0.01, 0.05, "less", 0.06, "held"),
        (-0.02, 0.03, "tied", 0.03, "held"),
        (-0.02, 0.04, "tied", 0.03, "undecided"),
        (0.04, 0.09, "tied", 0.03, "not held"),
        (-0.09, -0.04, "tied", 0.03, "not held"),
    ],
)
def test_verdicts(low: float, high: float, kind: str, margin: float, expected: str) -> None:
    assert interval_verdict(Estimate(0.0, low, high, 10), kind, margin) == expected


def test_a_bad_claims_file_is_one_clear_line(tmp_path) -> None:
    from stepcredit.study.claims import read_claims_file

    path = tmp_path / "claims.yaml"
    claim = "{id: a, claim: c, source: s, published: p, presets: [main], compare: [pass, grpo], "
    path.write_text("definitions: {}\nclaims:\n  - " + claim + "kind: larger, margin: 0}")
    with pytest.raises(StepCreditError, match="claim a: kind: expected one of greater, less"):
        read_claims_file(path)
    path.write_text("definitions: {}\nclaims:\n  - " + claim + "kind: greater}")
    with pytest.raises(StepCreditError, match="claim a: margin: is missing"):
        read_claims_file(path)
    path.write_text("definitions: {}\nclaims:\n  - " + claim + "kind: never, margin: 0}")
    with pytest.raises(StepCreditError, match="claim a: compare: expected 1 labels, got 2"):
        read_claims_file(path)
