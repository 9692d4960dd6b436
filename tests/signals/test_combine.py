"""Signals made of signals, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stepcredit.errors import SettingError, SignalError
from stepcredit.signals.cache import Cached
from stepcredit.signals.combine import Affine, Clipped, Smoothed, Weighted, rescaled
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal
from stepcredit.signals.splitting import Newline

RESPONSES = Newline()([Response.of_text("?", "a b\nc\nd"), Response.of_text("?", "e f")])


def steps(*rows: Sequence[float]) -> Program:
    """A signal with given scores."""
    given = dict(zip((r.text for r in RESPONSES), rows, strict=True))
    return Program(lambda response: given[response.text])


LOW = steps([0.0, 0.25, 1.0], [0.5])
HIGH = steps([-1.0, 1.0, 0.5], [2.0])


@dataclass(frozen=True)
class GroupMean(Signal):
    """Scores that depend on the other responses; given last to first."""

    grain = "tokens"
    cacheable: ClassVar[bool] = False
    identity: ClassVar[dict[str, Any]] = {"signal": "group-mean"}  # type: ignore[misc]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        for index in reversed(range(len(responses))):
            yield index, [float(len(responses))] * responses[index].num_tokens


CASES: dict[str, tuple[Signal, list[list[float]]]] = {
    "affine": (Affine(LOW, scale=2, shift=-1), [[-1.0, -0.5, 1.0], [0.0]]),
    "affine alone": (Affine(HIGH), [[-1.0, 1.0, 0.5], [2.0]]),
    "to -1..1": (rescaled(LOW, (0, 1), (-1, 1)), [[-1.0, -0.5, 1.0], [0.0]]),
    "from -1..1": (rescaled(HIGH, (-1, 1)), [[0.0, 1.0, 0.75], [1.5]]),
    "from 0..4": (rescaled(LOW, (0, 4), (2, 10)), [[2.0, 2.5, 4.0], [3.0]]),
    "smoothed": (Smoothed(LOW, amount=0.5), [[0.25, 0.375, 0.75], [0.5]]),
    "smoothed away": (Smoothed(LOW, amount=1), [[0.5, 0.5, 0.5], [0.5]]),
    "clipped": (Clipped(HIGH, low=-0.5, high=0.75), [[-0.5, 0.75, 0.5], [0.75]]),
    "mean": (Weighted([LOW, HIGH]), [[-0.5, 0.625, 0.75], [1.25]]),
    "weighted": (Weighted([LOW, HIGH], [2, -1]), [[1.0, -0.5, 1.5], [-1.0]]),
    "nested": (
        Clipped(Weighted([Affine(LOW, shift=1), HIGH], [1, 1]), low=0, high=2),
        [[0.0, 2.0, 2.0], [2.0]],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_worked_out_by_hand(case: str) -> None:
    signal, expected = CASES[case]
    assert signal.scores(RESPONSES) == expected
    assert signal(RESPONSES).counts.tolist() == [3, 1]


def test_exact_sums_do_not_depend_on_the_order() -> None:
    tenths = [steps([0.1, 0.1, 0.1], [0.1])] * 10
    assert Weighted(tenths, [1] * 10).scores(RESPONSES) == [[1.0, 1.0, 1.0], [1.0]]


@pytest.mark.parametrize(
    "wrap", [Affine, Smoothed, Clipped, lambda signal: Weighted([signal, signal])]
)
def test_grain_and_cacheability_are_those_of_the_parts(
    wrap: Callable[[Signal], Signal], tmp_path: Path
) -> None:
    group, alone = wrap(GroupMean()), wrap(LOW)
    assert (group.grain, group.cacheable) == ("tokens", False)
    assert (alone.grain, alone.cacheable) == ("steps", True)
    assert len(group.scores(RESPONSES)[0]) == RESPONSES[0].num_tokens
    with pytest.raises(SettingError):
        Cached(group, tmp_path / "scores.sqlite")
    cached = Cached(alone, tmp_path / "scores.sqlite")
    assert cached.scores(RESPONSES) == alone.scores(RESPONSES) == cached.scores(RESPONSES)


def test_one_group_signal_among_others_forbids_a_cache() -> None:
    tokens = Program(lambda response: [1.0] * response.num_tokens, per="tokens")
    assert not Weighted([tokens, GroupMean()]).cacheable
    assert Weighted([tokens, GroupMean()]).scores(RESPONSES)[1] == [1.5, 1.5]


def test_every_setting_is_part_of_the_identity() -> None:
    made = [Affine(LOW), Affine(LOW, scale=2), Affine(LOW, shift=2), Affine(HIGH), Smoothed(LOW)]
    made += [Smoothed(LOW, amount=0.2), Clipped(LOW), Clipped(LOW, low=0), Weighted([LOW, HIGH])]
    made += [Weighted([HIGH, LOW]), Weighted([LOW, HIGH], [1, 2]), Clipped(Affine(LOW))]
    identities = [signal.identity for signal in made]
    assert all(identities.count(identity) == 1 for identity in identities)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Affine("prm"), "signal.model: prm needs it"),
        (
            lambda: Affine(5),
            "signal: expected the name of a signal, or {name: fields}, got 5",
        ),
        (lambda: Affine(LOW, scale=float("inf")), "scale: expected a number, got inf"),
        (
            lambda: Smoothed(LOW, amount=1.5),
            "amount: expected a number of at least 0 and at most 1, got 1.5",
        ),
        (
            lambda: Smoothed(LOW, amount=-0.1),
            "amount: expected a number of at least 0 and at most 1, got -0.1",
        ),
        (lambda: Clipped(LOW, low=1, high=0), "high: expected at least 1, got 0"),
        (lambda: rescaled(LOW, (1, 1)), "source: expected two ranges, got (1, 1) and (0.0, 1.0)"),
        (
            lambda: rescaled(LOW, (0, 1), (1, 0)),
            "source: expected two ranges, got (0, 1) and (1, 0)",
        ),
        (lambda: Weighted([]), "signals: expected signals, got []"),
        (lambda: Weighted([LOW, 5]), f"signals: expected signals, got {[LOW, 5]}"),
        (
            lambda: Weighted([LOW, GroupMean()]),
            f"signals: expected signals of one grain, got {[LOW, GroupMean()]}",
        ),
        (lambda: Weighted([LOW], [1, 2]), "weights: expected 1 weights, got (1, 2)"),
        (lambda: Weighted([LOW], ["a"]), "weights: expected numbers, got ['a']"),
        (lambda: Weighted([LOW], [float("nan")]), "weights: expected numbers, got [nan]"),
        (lambda: Weighted([LOW], 1), "weights: expected numbers, got 1"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], Signal], line: str) -> None:
    with pytest.raises(SettingError) as raised:
        make()
    assert str(raised.value) == line


def test_a_map_out_of_range_is_an_error() -> None:
    with pytest.raises(SignalError) as raised:
        Affine(LOW, scale=1e300).scores(RESPONSES)
    assert str(raised.value) == "row 0: the score of step 1 is 2.5e+299, too large for float32"


@dataclass(frozen=True)
class Odd(Signal):
    """A signal that gives what it is told to."""

    given: tuple[IndexedScores, ...]
    grain = "steps"
    identity: ClassVar[dict[str, Any]] = {"signal": "odd"}  # type: ignore[misc]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        yield from self.given


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (((1, [0.0]),), "row 0: was not scored"),
        (((0, [0.0, 0.0, 0.0]), (0, [1.0, 1.0, 1.0])), "row 0: was scored twice"),
        (((1, [0.0]), (0, [0.0])), "row 0: 1 scores for 3 steps"),
        (((1, [float("-inf")]),), "row 1: the score of step 0 is -inf"),
    ],
)
def test_a_signal_that_forgets_or_repeats_is_refused(
    given: tuple[IndexedScores, ...], line: str
) -> None:
    with pytest.raises(SignalError) as raised:
        Odd(given).scores(RESPONSES)
    assert str(raised.value) == line
    assert Odd(((1, [2.0]), (0, [1.0, 1.0, 1.0]))).scores(RESPONSES) == [[1.0, 1.0, 1.0], [2.0]]
