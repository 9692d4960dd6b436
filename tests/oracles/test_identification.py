"""Figures of identification, beside scipy and hand computation."""

from __future__ import annotations

import numpy as np
import pytest

from stepcredit.oracles import Identification, weighted_spearman

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("seed", range(5))
def test_spearman_of_whole_weights_is_that_of_copies(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, 6, 40).astype(float), draw.standard_normal(40).round(1)
    weight = draw.integers(1, 5, 40)
    copies = stats.spearmanr(np.repeat(x, weight), np.repeat(y, weight)).statistic
    assert weighted_spearman(x, y, weight.astype(float)) == pytest.approx(copies)


def test_figures_by_hand() -> None:
    advantage = np.array([0.5, -0.5, 0.0, 0.2])
    credit = np.array([1.0, 0.0, 2.0, -1.0])
    known = Identification.of(credit, advantage, np.array([1.0, 1.0, 0.5, 1.0]))
    scale = 0.3 / 4.0  # sum w A c / sum w c^2
    missed = (0.5 - scale) ** 2 + 0.25 + 0.5 * (2 * scale) ** 2 + (0.2 + scale) ** 2
    assert known.rmse == pytest.approx((missed / 0.54) ** 0.5)
    assert known.sign == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert known.leakage == pytest.approx(2.0 / 4.0)


def test_credit_of_the_wrong_sign_and_no_credit_are_no_better_than_none() -> None:
    advantage, weight = np.array([0.5, -0.5, 0.0]), np.ones(3)
    against = Identification.of(-advantage, advantage, weight)
    assert (against.rmse, against.spearman, against.sign) == (1.0, -1.0, 0.0)
    assert Identification.of(np.zeros(3), advantage, weight) == Identification(1.0, 0.0, 0.5, 0.0)
