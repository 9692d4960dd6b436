"""Progress, returns and scores of turns, made of another signal's scores."""

from __future__ import annotations

from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import examples

from stepcredit.cli.score import map_scores
from stepcredit.errors import SettingError
from stepcredit.signals import Aggregated, CappedFiller, Difference, Discounted, Signal, Weighted
from stepcredit.signals.combine import Affine
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.responses import Response
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import BlankLine, Newline

few = examples(50)
rows_of_scores = st.lists(st.floats(-2, 2), min_size=1, max_size=8)


def lines(count: int) -> list[Response]:
    """One response of so many lines, a token each."""
    return Newline()([Response.of_text("?", "\n".join("abcdefgh"[:count]))])


def of(scores: list[float]) -> Program:
    return Program(lambda response: scores)


@few
@given(scores=rows_of_scores, start=st.floats(-2, 2))
def test_progress_adds_up_to_the_last_state_less_the_start(
    scores: list[float], start: float
) -> None:
    (found,) = Difference(of(scores), start=start).scores(lines(len(scores)))
    assert fsum(found) == pytest.approx(scores[-1] - start, abs=1e-12)
    for step in range(1, len(found) + 1):
        assert start + fsum(found[:step]) == pytest.approx(scores[step - 1], abs=1e-12)


@few
@given(scores=rows_of_scores, gamma=st.floats(0, 1))
def test_a_return_is_every_later_score_discounted(scores: list[float], gamma: float) -> None:
    (found,) = Discounted(of(scores), gamma=gamma).scores(lines(len(scores)))
    for step, value in enumerate(found):
        later = [gamma ** (at - step) * s for at, s in enumerate(scores) if at >= step]
        assert value == pytest.approx(fsum(later), abs=1e-9)


@few
@given(scores=rows_of_scores, start=st.floats(-2, 2))
def test_the_undiscounted_return_of_progress_is_what_is_still_to_come(
    scores: list[float], start: float
) -> None:
    both = Discounted(Difference(of(scores), start=start), gamma=1.0)
    (found,) = both.scores(lines(len(scores)))
    before = [start, *scores[:-1]]
    assert found == pytest.approx([scores[-1] - s for s in before], abs=1e-9)


TURNS = BlankLine()([Response.of_text("?", "a\nb\n\nc\nd\ne\n\nf")])
SCORES = [0.5, 0.25, 1.0, 3.0, 2.0, -1.0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", [0.375, 2.0, -1.0]), ("min", [0.25, 1.0, -1.0]), ("last", [0.25, 2.0, -1.0])],
)
def test_turns_of_tokens_and_of_finer_steps(how: str, expected: list[float]) -> None:
    tokens = Program(lambda response: SCORES, per="tokens")
    assert Aggregated(tokens, how=how).scores(TURNS) == [expected]
    steps = Program(lambda response: SCORES)
    assert Aggregated(steps, how=how, splitter=Newline()).scores(TURNS) == [expected]
    found = Aggregated(tokens, how=how)(TURNS)
    assert found.ends.tolist() == [1, 4, 5]


def test_a_turn_without_a_finer_step_gets_the_one_that_goes_on() -> None:
    coarse = Program(lambda response: [7.0, 9.0])
    responses = Newline()([Response.of_text("?", "a\nb\n\nc")])
    assert [r.step_ends for r in BlankLine()(responses)] == [[1, 2]]
    found = Aggregated(coarse, splitter=BlankLine()).scores(responses)
    assert found == [[7.0, 7.0, 9.0]]


class FirstSteps(Signal):
    """Scores of the first steps alone, as a model too small for the response gives."""

    grain = "steps"
    identity = {"signal": "first"}  # noqa: RUF012
    may_leave_out = True

    def __init__(self, scores: list[float]) -> None:
        self.given = scores

    def stream(self, responses):
        for index, _ in enumerate(responses):
            yield index, self.given


def test_what_was_left_out_stays_left_out() -> None:
    cut = FirstSteps([1.0, 0.5])
    three = lines(3)
    assert Difference(cut).scores(three) == [[1.0, -0.5]]
    assert Discounted(cut, gamma=0.5).scores(three) == [[1.25, 0.5]]
    assert Aggregated(cut).scores(three) == [[1.0, 0.5]]
    assert Aggregated(FirstSteps([0.5, 0.25, 1.0]), splitter="newline").scores(TURNS) == [
        [0.375, 1.0]
    ]
    assert Aggregated(FirstSteps([])).scores(three) == [[]]


def test_filler_and_repeated_steps_are_capped_by_the_rules_of_the_metrics() -> None:
    """The same steps as `filler_gap` counts; a lower score stays, and an unscored step too."""
    text = "2+2 = 4\n...\n 2+2 =  4\nwait\nWAIT"
    (split,) = Newline()([Response.of_text("?", text)])
    capped = CappedFiller(FirstSteps([0.9, 0.8, -1.0, 0.6, 0.7]), most=0.25)
    assert capped.scores([split]) == [[0.9, 0.25, -1.0, 0.6, 0.25]]
    assert CappedFiller(FirstSteps([0.9, 0.8])).scores([split]) == [[0.9, 0.0]]
    other = Newline()([Response.of_text("?", text.replace("...", "3+3"))])[0]
    assert capped.content(split) != capped.content(other)  # a cache must tell them apart


def test_each_is_a_signal_by_name_and_a_map() -> None:
    text = "2+2 = 4\n1+1 = 3\n1+2 = 3"
    split = Newline()([Response.of_text("?", text)])
    assert signal("equations", neutral=0.5).scores(split) == [[0.5, 0.5, 0.5]]
    named = {
        "difference": signal("difference", signal={"arithmetic": {"neutral": 0.0}}, start=1.0),
        "discounted": signal("discounted", signal="arithmetic", gamma=0.5),
        "cap-filler": signal("cap-filler", signal="arithmetic", most=-0.5),
        "aggregate": signal("aggregate", signal="arithmetic", how="last"),
        "affine": signal("affine", signal="arithmetic", scale=-1.0),
        "smooth": signal("smooth", signal="arithmetic", amount=0.5),
        "clip": signal("clip", signal="arithmetic", high=0.5),
        "weighted": signal(
            "weighted", signals=["arithmetic", {"equations": {"neutral": 0.5}}], weights=[1, 2]
        ),
    }
    assert {name: each.scores(split)[0] for name, each in named.items()} == {
        "difference": [0.0, -1.0, 1.0],
        "discounted": [1.25, 0.5, 1.0],
        "cap-filler": [1.0, 0.0, 1.0],
        "aggregate": [1.0, 0.0, 1.0],
        "affine": [-1.0, 0.0, -1.0],
        "smooth": [0.75, 0.25, 0.75],
        "clip": [0.5, 0.0, 0.5],
        "weighted": [2.0, 1.0, 2.0],
    }
    for name, each in named.items():
        assert each.name == name
        assert each.grain == "steps"
        assert [part.name for part in each.walk()][1] == "arithmetic"
    mapped = map_scores(signal("arithmetic"), ["difference:start=1", "discounted:gamma=0.5"])
    assert mapped.scores(split) == [[-0.25, -0.5, 1.0]]


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        ("difference", {}, "signal: difference needs it"),
        ("difference", {"signal": "prn"}, "signal: unknown signal 'prn', did you mean 'prm'?"),
        (
            "difference",
            {"signal": {"equations": {"nutral": 0}}},
            "signal.nutral: equations has no such field, did you mean 'neutral'?",
        ),
        (
            "difference",
            {"signal": {"equations": {}, "arithmetic": {}}},
            "signal: expected the name of a signal, or {name: fields}, got "
            "{'equations': {}, 'arithmetic': {}}",
        ),
        (
            "discounted",
            {"signal": {"equations": 3}},
            "signal: expected the fields of 'equations' by name, got 3",
        ),
        (
            "discounted",
            {"signal": "equations", "gamma": 2},
            "gamma: expected a number of at least 0 and at most 1, got 2",
        ),
        (
            "aggregate",
            {"signal": "equations", "how": "max"},
            "how: expected one of mean, min, last, got 'max'",
        ),
        (
            "aggregate",
            {"signal": "equations", "splitter": "lines"},
            "splitter: unknown splitter 'lines', did you mean 'newline'?",
        ),
        (
            "cap-filler",
            {"signal": {"callable": {"function": "math:sqrt", "per": "tokens"}}},
            "signal: expected a signal that scores steps, got one of tokens",
        ),
        (
            "weighted",
            {"signals": ["equation"]},
            "signals: unknown signal 'equation', did you mean 'equations'?",
        ),
        (
            "weighted",
            {"signals": ["equations", {"callable": {}}]},
            "signals.function: expected a function, or MODULE:FUNCTION, got None",
        ),
    ],
)
def test_bad_settings_are_named(name: str, fields: dict[str, object], line: str) -> None:
    with pytest.raises(SettingError) as raised:
        signal(name, **fields)
    assert str(raised.value) == line


def test_every_setting_is_part_of_the_identity() -> None:
    inner = signal("arithmetic")
    made = [Difference(inner), Difference(inner, start=1), Discounted(inner)]
    made += [Discounted(inner, gamma=0.5), Aggregated(inner), Aggregated(inner, how="min")]
    made += [Aggregated(inner, splitter=Newline()), Difference(Affine(inner))]
    made += [Weighted([inner, inner])]
    identities = [each.identity for each in made]
    assert all(identities.count(identity) == 1 for identity in identities)


def test_what_finer_scores_hang_on_is_part_of_the_content() -> None:
    (response,) = TURNS
    (other,) = Newline()([response])
    tokens = Aggregated(Program(lambda r: SCORES, per="tokens"))
    assert tokens.content(response) != tokens.content(other)
    steps = Aggregated(signal("arithmetic"), splitter=Newline())
    assert steps.content(response)[0] == signal("arithmetic").content(other)
