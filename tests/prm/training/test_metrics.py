"""Figures against plain loops and numbers worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.prm.training.labelled import row_of

from stepcredit.errors import SettingError, StepCreditError
from stepcredit.prm.judging.evaluation import judge_scores, step_scores
from stepcredit.prm.judging.step_metrics import (
    FirstErrors,
    LabelledScores,
    calibration,
    question_intervals,
    ranking,
    weighted_auc,
)
from stepcredit.prm.labelled.labelled_rows import LabelledRow
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal

Labels = Sequence[int | None]


def loop_f1(
    labels: list[Labels], scores: list[list[float]], threshold: float
) -> tuple[float | None, float | None, float | None]:
    """F1 of the first error, as its definition reads, one solution after the other."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for own, values in zip(labels, scores, strict=True):
        truth = -1
        for index, label in enumerate(own):
            if label == 0:
                truth = index
                break
        known = own if truth < 0 else own[:truth]
        if any(label is None for label in known):
            continue
        predicted = -1
        for index, value in enumerate(values):
            if value < threshold:
                predicted = index
                break
        hits[truth >= 0].append(predicted == truth)
    shares = [sum(h) / len(h) if h else None for h in (hits[True], hits[False])]
    wrong, right = shares
    if wrong is None or right is None:
        return None, wrong, right
    return (2 * wrong * right / (wrong + right) if wrong + right else 0.0), wrong, right


def rows_of(labels: list[Labels]) -> list[LabelledRow]:
    return [row_of(own, question=f"q{number}") for number, own in enumerate(labels)]


SOLUTIONS = st.lists(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 1, None]), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=8,
)


@given(SOLUTIONS, st.sampled_from([-1.0, 0.0, 0.05, 0.1, 0.3, 0.5, 0.9, 2.0]))
def test_first_errors_as_the_loop_has_them(
    solutions: list[list[tuple[int | None, float]]], threshold: float
) -> None:
    labels = [[label for label, _ in one] for one in solutions]
    scores = [[score for _, score in one] for one in solutions]
    found = FirstErrors.of(rows_of(labels), scores).at(threshold)
    expected = loop_f1(labels, scores, threshold)
    assert tuple(found.values()) == pytest.approx(expected)


@given(SOLUTIONS)
def test_the_best_threshold_is_best(solutions: list[list[tuple[int | None, float]]]) -> None:
    """No threshold on a fine grid does better, and the curve is F1 where it says."""
    labels = [[label for label, _ in one] for one in solutions]
    scores = [[score for _, score in one] for one in solutions]
    errors = FirstErrors.of(rows_of(labels), scores)
    best = loop_f1(labels, scores, errors.best_threshold())[0] or 0.0
    grid = [number / 100 for number in range(-2, 103)]
    assert best == pytest.approx(max(loop_f1(labels, scores, t)[0] or 0.0 for t in grid))
    for threshold, f1 in zip(*errors.curve(), strict=True):
        assert f1 == pytest.approx(loop_f1(labels, scores, threshold)[0] or 0.0)


def test_f1_by_hand() -> None:
    """Of two with an error one is found, of two without one both: 2 * .5 * 1 / 1.5."""
    rows = rows_of([[1, 0, 1], [0, 1], [1, 1], [1]])
    scores = [[0.9, 0.1, 0.1], [0.8, 0.1], [0.5, 0.6], [0.7]]
    found = FirstErrors.of(rows, scores).at(0.5)
    assert found == {"f1": pytest.approx(2 / 3), "accuracy_wrong": 0.5, "accuracy_right": 1.0}


def test_labels_that_tell_no_first_error_are_left_out() -> None:
    errors = FirstErrors.of(rows_of([[None, 0], [1, None], [0, None], [1]]), [[1, 0]] * 3 + [[1]])
    assert (len(errors.low), errors.left_out) == (2, 2)


def loop_auc(right: Sequence[bool], scores: Sequence[float], times: Sequence[float]) -> float:
    """The chance that a right step scores above a wrong one, ties counting half."""
    won = total = 0.0
    for i, j in ((i, j) for i in range(len(right)) for j in range(len(right))):
        if right[i] and not right[j]:
            weight = times[i] * times[j]
            total += weight
            won += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return won / total


def test_auc_as_the_loop_has_it() -> None:
    draw = random.Random(0)
    labels = [[draw.choice([0, 1, None]) for _ in range(4)] for _ in range(12)]
    scores = [[round(draw.random(), 1) for _ in range(4)] for _ in range(12)]
    steps = LabelledScores.of(rows_of(labels), scores)
    flat = [
        (label == 1, score)
        for own, values in zip(labels, scores, strict=True)
        for label, score in zip(own, values, strict=True)
        if label is not None
    ]
    right, values = zip(*flat, strict=True)
    assert ranking(steps)["roc_auc"] == pytest.approx(loop_auc(right, values, [1.0] * len(flat)))
    times = [draw.choice([0.0, 1.0, 2.0]) for _ in flat]
    weighted = weighted_auc(steps)(np.array(times))
    assert weighted == pytest.approx(loop_auc(right, values, times))
    assert ranking(steps)["wrong_share"] == pytest.approx(1 - sum(right) / len(right))


def test_average_precision_is_of_the_wrong_steps() -> None:
    """By score, lowest first: wrong, right, wrong. Precision 1 at half, 2/3 at the other."""
    steps = LabelledScores.of(rows_of([[0, 1, 0]]), [[0.1, 0.2, 0.3]])
    assert ranking(steps)["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_calibration_by_hand() -> None:
    """Bins [0.1, 0.2): 0.1 and 0.15, half right; [0.9, 1]: 0.9, 1 and 1, two of three right."""
    steps = LabelledScores.of(rows_of([[1, 0], [1, 1, 0]]), [[0.1, 0.15], [0.9, 1.0, 1.0]])
    found = calibration(steps)
    first, second = abs(0.5 - 0.125), abs(2 / 3 - 2.9 / 3)
    assert found["ece"] == pytest.approx((2 * first + 3 * second) / 5)
    brier = (0.9**2 + 0.15**2 + 0.1**2 + 0 + 1) / 5
    assert found["brier"] == pytest.approx(brier)
    assert [(b["low"], b["high"], b["steps"]) for b in found["bins"]] == [
        (0.1, 0.2, 2),
        (0.9, 1, 3),
    ]


def test_scores_outside_0_to_1_are_not_calibrated() -> None:
    steps = LabelledScores.of(rows_of([[1, 0]]), [[-0.5, 0.5]])
    assert calibration(steps) == {"ece": None, "brier": None, "bins": []}


def test_one_kind_of_step_has_no_auc() -> None:
    found = judge_scores(rows_of([[1, 1]]), [[0.1, 0.2]], 0.5).figures
    assert found["steps"] == {"roc_auc": None, "average_precision": None, "wrong_share": 0.0}
    assert found["first_error"]["f1"] is None
    assert found["first_error"]["accuracy_right"] == 0.0
    assert found["intervals"] == {"f1": None, "roc_auc": None}


def test_no_label_is_refused() -> None:
    with pytest.raises(StepCreditError, match=r"^rows: no step is labelled$"):
        judge_scores(rows_of([[None]]), [[0.1]], 0.5)


def test_intervals_take_a_question_for_the_unit() -> None:
    """The mean of 40 questions' values: near 1.96 standard errors to each side."""
    values = np.random.default_rng(0).normal(size=40)

    def mean(weights: np.ndarray) -> dict[str, float | None]:
        return {"mean": float((weights * values).sum() / weights.sum()), "none": None}

    found = question_intervals(mean, 40, 2000, np.random.default_rng(1))
    assert found["none"] is None
    assert found["mean"] is not None
    half = 1.96 * values.std() / math.sqrt(40)
    assert found["mean"] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_copies_of_a_question_narrow_nothing() -> None:
    """Ten copies of every row, under its question: the same figures and intervals."""
    labels: list[Labels] = [[1, 0], [1, 1], [0, 1], [1, 1, 0], [1]]
    scores = [[0.9, 0.4], [0.8, 0.7], [0.6, 0.9], [0.5, 0.9, 0.8], [0.3]]
    once = judge_scores(rows_of(labels), scores, 0.5, resamples=200).figures
    often = judge_scores(rows_of(labels) * 10, scores * 10, 0.5, resamples=200).figures
    assert often["first_error"]["f1"] == pytest.approx(once["first_error"]["f1"])
    assert often["steps"]["roc_auc"] == pytest.approx(once["steps"]["roc_auc"])
    assert often["intervals"] == once["intervals"]


class Positions(Signal):
    """A score a token: its index, from 1."""

    grain = "tokens"
    identity = {"signal": "positions"}  # noqa: RUF012

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        for index, response in enumerate(responses):
            yield index, [float(token + 1) for token in range(response.num_tokens)]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [("sum", [6, 9]), ("mean", [2, 4.5]), ("min", [1, 4]), ("last", [3, 5])],
)
def test_tokens_are_pooled_by_step(pool: str, expected: list[float]) -> None:
    rows = [row_of([1, 0], steps=["a b c", "d e"]), row_of([1], steps=["a"])]
    assert step_scores(Positions(), rows, pool) == [expected, [1]]


def test_an_unknown_pool() -> None:
    with pytest.raises(SettingError, match=r"^pool: expected one of sum, mean, min, last"):
        step_scores(Positions(), [row_of([1])], "max")
