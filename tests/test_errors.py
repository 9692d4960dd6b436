"""An error is placed by whoever knows the place, and keeps what it is."""

from __future__ import annotations

import pickle
from copy import copy
from typing import Any

import pytest

from stepcredit import errors
from stepcredit.errors import (
    FileError,
    MethodError,
    MissingExtra,
    RolloutError,
    RowError,
    SettingError,
    SeveralErrors,
    SignalError,
    StepCreditError,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, StepCreditError)
    if kind not in (RowError, SeveralErrors)
]


class TimedOutError(SignalError):
    """A user's own, whose constructor takes other arguments than its base's."""

    def __init__(self, seconds: float, *, url: str) -> None:
        super().__init__(f"no answer after {seconds:g} s", field="url")
        self.seconds, self.url = seconds, url


@pytest.mark.parametrize(
    ("given", "place", "line"),
    [
        ({}, {}, "bad"),
        ({"row": 3}, {}, "row 3: bad"),
        ({"row": 3}, {"row": 5}, "row 5: bad"),
        ({"row": 3}, {"place": "r.jsonl:4"}, "r.jsonl:4: bad"),
        ({"row": 3}, {"place": ""}, "bad"),
        ({"place": "step 2"}, {"place": "r.jsonl:4"}, "r.jsonl:4: step 2: bad"),
        ({"place": "step 2"}, {"row": 5}, "row 5: step 2: bad"),
        ({"place": "step 2"}, {"place": ""}, "step 2: bad"),
        ({}, {"row": 5, "place": "r.jsonl:6"}, "r.jsonl:6: bad"),
    ],
)
def test_a_place_is_put_before_the_place_and_replaces_a_row(
    given: dict[str, Any], place: dict[str, Any], line: str
) -> None:
    assert str(RolloutError("bad", **given).at(**place)) == line


def test_the_row_is_the_callers_or_none() -> None:
    error = RolloutError("bad", row=3)
    assert error.at(row=5).row == 5
    assert error.at(row=5, place="r.jsonl:6").row == 5
    assert error.at(place="r.jsonl:4").row is None
    assert error.at(under="outcome").row == error.row == 3


@pytest.mark.parametrize(
    ("field", "place", "expected"),
    [
        (None, {"under": "fields"}, "fields"),
        (None, {"field": "k"}, "k"),
        ("k", {"field": "gamma"}, "gamma"),
        ("k", {"under": "fields"}, "fields.k"),
        ("k", {"under": "--set"}, "--set k"),
        ("k", {"field": "gamma", "under": "fields"}, "fields.gamma"),
        ("k", {"under": ""}, "k"),
    ],
)
def test_a_field_is_replaced_or_nested(
    field: str | None, place: dict[str, str], expected: str
) -> None:
    error = SettingError("bad", field=field).at(**place)
    assert (error.field, str(error)) == (expected, f"{expected}: bad")


def test_prefixes_nest() -> None:
    error = MethodError("bad", field="k").at(under="judge").at(under="fields").at(under="--set")
    assert (
        str(error.at(place="run 1").at(place="sweep")) == "sweep: run 1: --set fields.judge.k: bad"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_stays_what_it_is(kind: type[StepCreditError]) -> None:
    error = kind("bad", field="k")
    placed = error.at(place="here", under="fields")
    assert type(placed) is kind
    assert (str(error), str(placed)) == ("k: bad", "here: fields.k: bad")
    assert (placed.reason, placed.place, placed.field) == ("bad", "here", "fields.k")


@pytest.mark.parametrize(
    "error", [TimedOutError(3.0, url="http://x"), copy(TimedOutError(3.0, url="http://x"))]
)
def test_attributes_of_subclasses_are_kept(error: TimedOutError) -> None:
    placed = error.at(place="r.jsonl:2")
    assert type(placed) is TimedOutError
    assert (placed.seconds, placed.url) == (3.0, "http://x")
    assert str(placed) == "r.jsonl:2: url: no answer after 3 s"


def test_a_row_of_a_file_stays_one() -> None:
    error = RowError("bad", path="r.jsonl", line=4, field="outcome", more=2)
    placed = error.at(place="train", under="signals")
    assert (placed.path, placed.line, placed.row, placed.more) == ("r.jsonl", 4, 3, 2)
    assert str(placed) == "train: r.jsonl:4: signals.outcome: bad (and 2 more faults)"


def test_what_caused_an_error_causes_it_at_its_place() -> None:
    cause = OSError("no disk")
    with pytest.raises(RolloutError) as raised:
        raise RolloutError("bad") from cause
    assert raised.value.at(place="here").__cause__ is cause
    assert raised.value.at_line("r.jsonl", 4).__cause__ is cause
    assert not RolloutError("bad").at(place="here").__suppress_context__


@pytest.mark.parametrize(
    "error",
    [
        RolloutError("bad", row=3, field="outcome"),
        RowError("bad", path="r.jsonl", line=4, field="outcome", more=2),
        SignalError("bad").at(place="http://x"),
        FileError("bad", field="r.jsonl"),
        MissingExtra("bad", field="trl"),
        TimedOutError(3.0, url="http://x"),
    ],
)
def test_errors_cross_processes_whole(error: StepCreditError) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert (str(there), vars(there)) == (str(error), vars(error))
    assert str(there.at(place="rank 1")) == str(error.at(place="rank 1"))
