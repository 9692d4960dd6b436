"""The unbiased pass@k against counting every draw of k samples."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from stepcredit.errors import StepCreditError
from stepcredit.evals import pass_at_k


def by_counting(correct: int, samples: int, k: int) -> float:
    answers = [1] * correct + [0] * (samples - correct)
    draws = list(combinations(answers, k))
    return sum(any(draw) for draw in draws) / len(draws)


@pytest.mark.parametrize("samples", [1, 2, 5, 9])
def test_equals_the_share_of_draws_with_a_right_answer(samples: int) -> None:
    for k in range(1, samples + 1):
        counts = range(samples + 1)
        expected = [by_counting(c, samples, k) for c in counts]
        np.testing.assert_allclose(pass_at_k(list(counts), samples, k), expected, atol=1e-12)


def test_prompts_may_have_different_numbers_of_samples() -> None:
    found = pass_at_k([1, 3, 0], [4, 9, 2], k=2)
    np.testing.assert_allclose(found, [by_counting(1, 4, 2), by_counting(3, 9, 2), 0.0])


def test_is_exactly_one_where_fewer_than_k_are_wrong_and_stays_in_bounds() -> None:
    found = pass_at_k(np.arange(257), 256, k=100)
    assert (found[157:] == 1.0).all()
    assert found.min() == 0.0
    assert (np.diff(found) >= 0).all()


def test_no_prompts_give_no_numbers() -> None:
    assert pass_at_k([], 8, k=1).shape == (0,)


@pytest.mark.parametrize(
    ("correct", "samples", "k", "line"),
    [
        ([1, 9], 8, 1, "row 1: correct: expected 0 to 8, got 9"),
        ([-1], 8, 1, "row 0: correct: expected 0 to 8, got -1"),
        ([1], 8, 9, "k: expected 1 to 8 samples, got 9"),
        ([1], 8, 0, "k: expected 1 to 8 samples, got 0"),
        ([[1]], 8, 1, "correct: expected one count per prompt, got shape (1, 1)"),
    ],
)
def test_refuses(correct: list[int], samples: int, k: int, line: str) -> None:
    with pytest.raises(StepCreditError) as error:
        pass_at_k(correct, samples, k)
    assert str(error.value) == line
