"""Claims: their figures, computed in another way, and what they decide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepcredit.oracles.claim import Claim
from stepcredit.oracles.identity_claims import IDENTITY_CLAIMS, credit_of_steps

CLAIMS = {decide.__name__: decide() for decide in IDENTITY_CLAIMS}


def claim(name: str) -> Claim:
    return CLAIMS[name]


def test_a_strict_minimum_never_rises_and_a_soft_one_does() -> None:
    assert claim("_strict_minimum").values == (0.0,)
    x, t = np.linspace(0, 1, 1001), 0.1
    one = np.exp(-x / t) * x / (1 + np.exp(-x / t))  # the softmin total of steps 0 and x
    twenty = 20 * np.exp(-x / t) * x / (1 + 20 * np.exp(-x / t))
    assert claim("_soft_minimum").values == pytest.approx((one.max(), twenty.max()))
    assert claim("_soft_minimum").verdict == "not held"


def test_fewer_steps_raise_a_minimum_where_the_last_is_the_worst() -> None:
    (share,) = claim("_fewer_steps").values
    assert share == pytest.approx(1 / 5, abs=4 * math.sqrt(0.16 / 2_000))


def test_the_outcome_weighs_n_to_the_1_minus_k() -> None:
    expected = (10**0.3, 10.0, 1.0, 1.0)
    assert claim("_outcome_by_the_chunk").values == pytest.approx(expected, rel=1e-5)


def test_equation_eight_is_wrong_and_the_exact_bound_is_not() -> None:
    printed, cases, first_order, exact = claim("_equation_eight").values
    assert printed > first_order > exact == 0
    assert cases == 5 * 4 * 4 * 3
    total, chunks, k, delta = 6.0, 6, 0.7, 0.6  # by hand: S = 6 / 6^0.7, k S / K = 0.2 < 0.6
    assert delta > k * total / chunks**k / chunks
    assert (total + delta) / (chunks + 1) ** k < total / chunks**k


def test_lengths_that_are_best() -> None:
    assert claim("_finite_best_length").values == (math.inf, 0)
    score = [(6 + 0.4 * m) / (6 + m) ** 0.7 for m in (0, 10, 1_000, 100_000)]
    assert score[1] < score[0] < score[2] < score[3]
    assert claim("_average_pays_good_filler").values == (math.inf,)


def test_sums_pay_by_the_step() -> None:
    assert claim("_sums_pay_for_length").values == pytest.approx((3.0, -3.0, 0.0, 0.0), abs=1e-6)
    # per_step takes 0.5 / 6 per step from the short response, and 0.5 / 3 from the long one
    gap = (0.5 - 3 * 0.5 / 6) - (0.5 - 6 * 0.5 / 3)
    found = claim("_baselines_per_step")
    assert found.values == pytest.approx((gap, -gap, -gap, 0.0), abs=1e-6)
    assert found.verdict == "held in part"


def test_pooling_silences_narrow_scores_alone() -> None:
    def share(spread: float) -> float:
        scores = [spread, 0.0, spread, 0.0, spread, 0.0]
        return float(np.std(scores, ddof=1) / np.std([*scores, 1.0, 0.0, 0.0, 0.0], ddof=1))

    assert claim("_pooling_silences").verdict == "held in part"
    assert claim("_pooling_silences").values == pytest.approx((share(0.05), share(1.0)), rel=1e-3)


def test_the_error_bound_fails_by_the_worst_score() -> None:
    assert claim("_min_error_bound").values == pytest.approx((0.5,))


def test_a_wrong_response_is_paid_under_abs_max() -> None:
    assert claim("_wrong_answer_paid").values == pytest.approx((1.0,))


def test_credit_of_steps_is_the_estimators() -> None:
    rows = credit_of_steps("grpo", [[0.1], [0.2, 0.3]], (1.0, 0.0), ddof=0, eps=0.0)
    assert rows == [[1.0], [-1.0, -1.0]]
