"""The path score's theory, against brute force: lists of chunk values, summed, divided, compared.

Nothing under `Reference` calls the library.
"""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepcredit.credit import theory
from stepcredit.errors import MethodError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "theory.md"
EXPONENTS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 2.0)
FAR = [10.0**power for power in range(6, 301, 6)]

values = st.lists(st.floats(-3, 3).map(lambda x: round(x, 3)), min_size=1, max_size=12)
exponents = st.sampled_from(EXPONENTS) | st.floats(0, 3)


# Reference


def score_of(chunk_values: list[float], k: float) -> float:
    return math.fsum(chunk_values) / len(chunk_values) ** k


def padded(total: float, chunks: int, filler: float, k: float, m: float) -> float:
    return (total + m * filler) * float(chunks + m) ** -k


def scan(total: float, chunks: int, filler: float, k: float, most: int = 3000) -> np.ndarray:
    """The path score at 0, 1, ..., `most` redundant chunks."""
    m = np.arange(most + 1)
    return (total + m * filler) / (chunks + m) ** k


def cases() -> list[tuple[float, int, float, float]]:
    """Totals, chunk counts, filler values and exponents whose turns lie within the scan."""
    return [
        (total, chunks, filler, k)
        for total in (-6.0, -0.5, 0.0, 0.7, 6.0, 9.0)
        for chunks in (1, 3, 6)
        for filler in (-1.1, -0.2, 0.0, 0.1, 0.4, 1.0, 2.5)
        for k in EXPONENTS
    ]


# One more chunk


@given(values, st.floats(-6, 6), exponents)
def test_admission_is_the_sign_of_the_change(chunks: list[float], delta: float, k: float) -> None:
    threshold = theory.admission_threshold(math.fsum(chunks), len(chunks), k)
    assume(abs(delta - threshold) > 1e-9 * (1 + abs(threshold)))
    raises = score_of([*chunks, delta], k) > score_of(chunks, k)
    assert raises == (delta > threshold)


@given(values, exponents)
def test_admission_threshold_is_sharp(chunks: list[float], k: float) -> None:
    threshold = theory.admission_threshold(math.fsum(chunks), len(chunks), k)
    margin = 1e-7 * (1 + abs(threshold))
    before = score_of(chunks, k)
    assert score_of([*chunks, threshold - margin], k) < before
    assert score_of([*chunks, threshold + margin], k) > before


def test_admission_threshold_beyond_float64_is_an_infinity_or_zero() -> None:
    assert theory.admission_threshold(1.0, 1, 1e6) == math.inf
    assert theory.admission_threshold(-1.0, 1, 1e6) == -math.inf
    assert theory.admission_threshold(0.0, 1, 1e6) == 0.0


@given(values, exponents)
def test_path_score_is_the_sum_over_the_count(chunks: list[float], k: float) -> None:
    ours = theory.path_score(math.fsum(chunks), len(chunks), k)
    assert ours == pytest.approx(score_of(chunks, k), rel=1e-12, abs=1e-12)


@given(values, st.floats(-3, 3), st.integers(0, 50), exponents)
def test_path_score_of_a_padded_response(
    chunks: list[float], filler: float, padding: int, k: float
) -> None:
    ours = theory.path_score(math.fsum(chunks), len(chunks), k, filler=filler, padding=padding)
    assert ours == pytest.approx(score_of(chunks + [filler] * padding, k), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("k", [0.3, 0.5, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("delta", [-0.2, 0.1, 0.9])
def test_first_order_law_is_first_order_and_eq8_is_not(k: float, delta: float) -> None:
    def relative_errors(chunks: int) -> tuple[float, float]:
        response = [0.5] * chunks
        true = score_of([*response, delta], k) - score_of(response, k)
        ours = theory.first_order_change(0.5 * chunks, chunks, delta, k)
        paper = theory.eq8_change(0.5 * chunks, chunks, delta, k)
        return abs(ours / true - 1), abs(paper / true - 1)

    (ours, paper), (ours_later, paper_later) = relative_errors(2_000), relative_errors(20_000)
    assert ours < 0.01
    assert ours_later == pytest.approx(ours / 10, rel=0.1)
    missing = abs(k * 0.5 / (delta - k * 0.5))  # the term Eq. 8 loses as K grows
    assert paper_later > 0.9 * missing
    assert paper > 0.7 * missing


@given(values, st.floats(-3, 3), exponents)
def test_eq8_is_right_at_one_chunk_or_exponent_zero(
    chunks: list[float], delta: float, k: float
) -> None:
    total = math.fsum(chunks)
    assert theory.eq8_change(chunks[0], 1, delta, k) == theory.first_order_change(
        chunks[0], 1, delta, k
    )
    exact = score_of([*chunks, delta], 0) - score_of(chunks, 0)
    assert theory.eq8_change(total, len(chunks), delta, 0) == pytest.approx(exact, abs=1e-9)


def test_eq8_admits_chunks_that_lower_the_score() -> None:
    wrong = [
        delta
        for delta in np.linspace(0, 1, 101)
        if theory.eq8_change(10.0, 20, delta, 0.7) > 0
        and score_of([0.5] * 20 + [delta], 0.7) < score_of([0.5] * 20, 0.7)
    ]
    assert len(wrong) == 30  # 0.05 ... 0.34: k S/K = 0.043, the exact threshold 0.347


# Padding


def test_turning_point_is_where_the_scan_turns() -> None:
    turns = 0
    for case in cases():
        turn = theory.turning_point(*case)
        path = scan(*case)
        slopes = np.sign(np.diff(path)[np.abs(np.diff(path)) > 1e-13 * np.abs(path[1:])])
        if turn is None:
            assert len(set(slopes)) <= 1, case
            continue
        turns += 1
        assert turn < 2000, case
        at = padded(*case, turn)
        either_side = [padded(*case, turn + step) - at for step in (-min(turn, 0.5), 0.5)]
        sign = 1 if (case[2] > 0) == (case[3] < 1) else -1  # a minimum or a maximum
        assert all(sign * difference > 0 for difference in either_side), case
        assert (sign * (path - at) >= -1e-12).all(), case
    assert turns > 100


@pytest.mark.parametrize("worst", [False, True])
def test_best_and_worst_padding_against_a_scan(worst: bool) -> None:
    seen = set()
    for total, chunks, filler, k in cases():
        sign = -1 if worst else 1
        find = theory.worst_padding if worst else theory.best_padding
        best = find(total, chunks, filler, k)
        near = sign * scan(total, chunks, filler, k)
        far = [sign * padded(total, chunks, filler, k, m) for m in FAR]
        tolerance = 1e-11 * np.abs(near).max()
        if best == math.inf:
            assert far[-1] > near.max(), (total, chunks, filler, k)
        else:
            assert best == int(best)
            assert near[int(best)] >= near.max() - tolerance, (total, chunks, filler, k)
            assert near[int(best)] >= max(far) - tolerance, (total, chunks, filler, k)
            assert (near[: int(best)] < near[int(best)]).all(), (total, chunks, filler, k)
        seen.add(best == math.inf)
    assert seen == {False, True}


def test_the_first_padding_that_pays_against_a_scan() -> None:
    for total, chunks, filler, k in cases():
        scores = scan(total, chunks, filler, k, most=20_000)
        paying = np.flatnonzero(scores > scores[0] + 1e-12 * abs(scores[0]))
        found = theory.paying_padding(total, chunks, filler, k)
        expected = float(paying[0]) if len(paying) else math.inf
        assert found == expected or found > 20_000, (total, chunks, filler, k)
        assert found < math.inf or not len(paying), (total, chunks, filler, k)


@given(st.floats(0.01, 10), st.integers(1, 30), st.floats(0.01, 3), st.floats(0, 0.99))
def test_no_finite_best_length_below_one(
    total: float, chunks: int, filler: float, k: float
) -> None:
    assert theory.best_padding(total, chunks, filler, k) == math.inf
    assert theory.path_score_limit(total, filler, k) == math.inf
    growth = padded(total, chunks, filler, k, 1e18) / (filler * 1e18 ** (1 - k))
    assert growth == pytest.approx(1, rel=1e-9)


@given(st.integers(-50, 50), st.integers(1, 30), st.integers(-20, 20))
def test_best_length_at_one_is_finite_unless_filler_beats_the_mean(
    total: int, chunks: int, filler: int
) -> None:
    best = theory.best_padding(total, chunks, filler, 1.0)
    assert best == (math.inf if filler * chunks > total else 0)


def test_a_tie_hidden_by_rounding_is_a_tie() -> None:
    assert theory.best_padding(0.3, 3, 0.1, 1.0) == 0
    assert theory.worst_padding(0.3, 3, 0.1, 1.0) == 0


@given(st.floats(-10, 10), st.integers(1, 30), st.floats(0.01, 3), st.floats(1.01, 3))
def test_best_length_above_one_is_finite(
    total: float, chunks: int, filler: float, k: float
) -> None:
    best = theory.best_padding(total, chunks, filler, k)
    assert best < math.inf
    reached = padded(total, chunks, filler, k, best)
    assert reached >= max(padded(total, chunks, filler, k, m) for m in FAR) - 1e-12


@pytest.mark.parametrize("k", [0.0, 0.5, 0.9, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("filler", [-0.4, 0.0, 0.4])
@pytest.mark.parametrize("total", [-5.0, 0.0, 5.0])
def test_limit_against_the_score_far_out(k: float, filler: float, total: float) -> None:
    limit, far = theory.path_score_limit(total, filler, k), padded(total, 6, filler, k, 1e150)
    if math.isinf(limit):
        assert math.copysign(1, limit) * far > 1e14
    else:
        assert far == pytest.approx(limit, abs=1e-14)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@given(k=exponents)
def test_outcome_weight_is_the_divided_return_of_a_constant(n: int, k: float) -> None:
    assert theory.outcome_weight(n, k) == pytest.approx(sum([1.0] * n) / n**k)


# Arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theory.path_score(math.nan, 3, 0.7),
            "total: expected a finite number, got nan",
        ),
        (
            lambda: theory.path_score(1.0, 3, 0.7, padding=-1),
            "padding: expected a number of at least 0, got -1",
        ),
        (
            lambda: theory.admission_threshold(10**400, 3, 0.7),
            f"total: expected a finite number, got {10**400}",
        ),
        (
            lambda: theory.admission_threshold(1.0, 0, 0.7),
            "chunks: expected a whole number from 1 to 2^53, got 0",
        ),
        (
            lambda: theory.eq8_change(1.0, 2.0, 0.1, 0.7),  # type: ignore[arg-type]
            "chunks: expected a whole number from 1 to 2^53, got 2.0",
        ),
        (
            lambda: theory.first_order_change(1.0, 3, True, 0.7),
            "delta: expected a finite number, got True",
        ),
        (
            lambda: theory.turning_point(1.0, 3, 0.1, -0.5),
            "k: expected a number of at least 0, got -0.5",
        ),
        (
            lambda: theory.worst_padding("1", 3, 0.1, 0.5),  # type: ignore[arg-type]
            "total: expected a finite number, got '1'",
        ),
        (
            lambda: theory.outcome_weight(2**53 + 1, 0.5),
            "residual_chunks: expected a whole number from 1 to 2^53, got 9007199254740993",
        ),
    ],
)
def test_arguments_out_of_range(call, message: str) -> None:
    with pytest.raises(MethodError) as caught:
        call()
    assert str(caught.value) == message


# The page


def test_the_numbers_on_the_theory_page() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted >= 20
    assert result.failed == 0  # the differences are on standard output
