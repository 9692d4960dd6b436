"""PRMScore against numbers worked out by hand, thresholds of signals that may know nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.prm.training.labelled import row_of

from stepcredit.errors import SettingError
from stepcredit.prm.judging.evaluation import check_judges_text, judge_scores, step_scores
from stepcredit.prm.judging.judged_files import evaluate_signal
from stepcredit.prm.judging.prm_score import prm_score
from stepcredit.prm.judging.step_metrics import FirstErrors, LabelledScores
from stepcredit.prm.labelled.labelled_rows import LabelledRow
from stepcredit.signals.cache import Cached
from stepcredit.signals.combine import Clipped
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal
from stepcredit.signals.signal_registry import signal


def scored(labels: Sequence[int | None], scores: Sequence[float]) -> LabelledScores:
    return LabelledScores.of([row_of(labels)], [scores])


def test_prm_score_is_the_mean_of_two_f1() -> None:
    """6 right steps, 5 of them said right, and 4 wrong steps, 1 of them said right.

    Right: p = 5/6, r = 5/6, F1 = 5/6. Wrong: p = 3/4, r = 3/4, F1 = 3/4. Mean: 19/24.
    """
    labels = [1] * 6 + [0] * 4
    scores = [0.9] * 5 + [0.1] + [0.9] + [0.1] * 3
    found = prm_score(scored(labels, scores), 0.5)
    assert found == pytest.approx({"prm_score": 19 / 24, "f1_right": 5 / 6, "f1_wrong": 3 / 4})


def test_prm_score_of_a_signal_that_says_right_to_all_but_one() -> None:
    """3 right, 2 wrong; said wrong: one of the wrong ones.

    Right: p = 3/4, r = 1, F1 = 6/7. Wrong: p = 1, r = 1/2, F1 = 2/3. Mean: 16/21.
    """
    found = prm_score(scored([1, 1, 1, 0, 0, None], [0.5, 0.6, 0.7, 0.8, 0.4, 0.0]), 0.5)
    assert found["prm_score"] == pytest.approx(16 / 21)
    assert found["f1_right"] == pytest.approx(6 / 7)
    assert found["f1_wrong"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "scores", "right", "wrong"),
    [
        ([1, 1], [0.9, 0.9], 1.0, None),
        ([1, 0], [0.9, 0.9], 2 / 3, None),
        ([1, 0], [0.1, 0.9], 0.0, 0.0),
        ([0, 0], [0.1, 0.1], None, 1.0),
    ],
)
def test_an_f1_without_steps_is_none(
    labels: list[int], scores: list[float], right: float | None, wrong: float | None
) -> None:
    found = prm_score(scored(labels, scores), 0.5)
    assert (found["f1_right"], found["f1_wrong"]) == (
        right if right is None else pytest.approx(right),
        wrong,
    )
    assert (found["prm_score"] is None) == (None in (right, wrong))


def test_judgements_hold_prm_score() -> None:
    rows = [row_of((1, 0), question="a"), row_of((1, 1), question="b")]
    figures = judge_scores(rows, [[0.9, 0.2], [0.9, 0.9]], 0.5, resamples=0).figures
    assert figures["prm_bench"] == {"prm_score": 1.0, "f1_right": 1.0, "f1_wrong": 1.0}


THREE_VALUED = [
    ([1.0, 0.5], (1, 0)),
    ([1.0, 0.5], (1, 0)),
    ([1.0, 0.0], (1, 0)),
    ([1.0, 1.0], (1, 1)),
    ([1.0, 1.0], (1, 1)),
]


def test_a_step_about_which_nothing_is_known_is_no_error() -> None:
    """Without its unknown score, the best F1 counts 0.5 as wrong: 3 of 3 found against 1 of 3."""
    scores, labels = zip(*THREE_VALUED, strict=True)
    rows = [row_of(own, question=str(number)) for number, own in enumerate(labels)]
    errors = FirstErrors.of(rows, scores)
    assert errors.best_threshold() == 0.75
    assert 0.0 < errors.best_threshold(0.5) <= 0.5
    assert errors.at(errors.best_threshold(0.5))["accuracy_wrong"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "scores", [[[1.0], [1.0]], [[0.5], [1.0]], [[0.5], [0.5]], [[0.0], [0.5]], [[0.0], [0.0]]]
)
def test_wrong_steps_stay_wrong_and_unknown_ones_do_not(scores: list[list[float]]) -> None:
    rows = [row_of((0,), question="a"), row_of((1,), question="b")]
    threshold = FirstErrors.of(rows, scores).best_threshold(0.5)
    assert 0.0 < threshold <= 0.5


def sums(count: int) -> list[LabelledRow]:
    """Solutions that a sum tells right or wrong, or words that tell nothing."""
    steps = [("2 + 2 = 5", 0), ("2 + 3 = 5", 1), ("Let us see", 1), ("Let us err", 0)]
    return [
        LabelledRow(f"q{number}", (text,), (label,), f"r:{number}", f"q{number}")
        for number in range(count)
        for text, label in [steps[number % 4]]
    ]


def test_evaluation_of_arithmetic_does_not_count_neutral_steps_as_wrong(tmp_path: Path) -> None:
    figures = evaluate_signal(signal("arithmetic"), sums(80), test=0.5, validation=0.5)
    first = figures["first_error"]
    assert 0.0 < first["threshold"] <= 0.5
    assert first["accuracy_right"] == 1.0
    kept = Cached(signal("equations", neutral=0.7), tmp_path / "scores.sqlite")
    assert kept.unknown_score == 0.7


def test_other_signals_choose_freely() -> None:
    prefer = signal("callable", function=lambda response: [float("2" in response.text)])
    figures = evaluate_signal(prefer, sums(80), test=0.5, validation=0.5)
    assert figures["first_error"]["f1"] is not None
    assert prefer.unknown_score is None


@dataclass(frozen=True)
class ByIds(Signal):
    """A signal that reads token ids."""

    name = "by-ids"
    grain = "steps"
    reads_token_ids = True

    @property
    def identity(self) -> dict[str, Any]:
        return {"signal": self.name}

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        raise AssertionError("scored")
        yield


def test_signals_of_token_ids_are_refused_before_scoring() -> None:
    rows = [row_of((1, 0))]
    for one in (ByIds(), Clipped(ByIds(), low=0.0, high=1.0)):
        for judge in (
            lambda one=one: evaluate_signal(one, rows),
            lambda one=one: step_scores(one, rows),
            lambda one=one: check_judges_text(one),
        ):
            with pytest.raises(SettingError) as raised:
                judge()
            assert str(raised.value) == (
                "signal: by-ids reads the policy's token ids, which labelled rows do not have"
            )


@pytest.mark.parametrize(
    ("name", "settings", "reads"),
    [
        ("logprobs", {"model": "m"}, True),
        ("opd", {}, True),
        ("implicit", {}, True),
        ("answer-progress", {"model": "m", "reads": "ids"}, True),
        ("answer-progress", {"model": "m", "reads": "text"}, False),
        ("arithmetic", {}, False),
        ("prm", {"model": "m", "protocol": "token-classifier"}, False),
    ],
)
def test_each_signal_says_whether_it_reads_token_ids(
    name: str, settings: dict[str, Any], reads: bool
) -> None:
    assert signal(name, **settings).reads_token_ids is reads
