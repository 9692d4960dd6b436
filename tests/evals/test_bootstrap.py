"""Bootstrap intervals beside scipy's, and by how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stepcredit.errors import StepCreditError
from stepcredit.evals import bootstrap_interval


@pytest.mark.parametrize("size", [20, 300])
def test_is_the_percentile_bootstrap_of_scipy(size: int) -> None:
    values = np.random.default_rng(size).beta(0.5, 1.0, size)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    found = bootstrap_interval(values, draws=20_000)
    error = values.std() / math.sqrt(size)
    assert found.mean == pytest.approx(values.mean())
    low, high = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * error)


def test_holds_the_truth_in_about_95_of_100_draws() -> None:
    generator, held = np.random.default_rng(0), 0
    for seed in range(300):
        right = generator.random(60) < 0.3
        found = bootstrap_interval(right.astype(float), draws=1000, seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_degenerate_samples_have_defined_intervals() -> None:
    assert bootstrap_interval([0.25] * 3).as_dict() == {"mean": 0.25, "low": 0.25, "high": 0.25}
    assert bootstrap_interval([0.5]).low == -math.inf
    for wrong in ([], [math.nan], [[0.5]]):
        with pytest.raises(StepCreditError, match="expected one or more finite numbers"):
            bootstrap_interval(wrong)  # type: ignore[arg-type]
