"""Edits change one thing, say when they can't, and draw by key alone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from stepcredit.audit.attack.editable import AddedTexts, EditableSteps, EditedSteps, NotEditable
from stepcredit.audit.attack.edited_response import Cutter, edited_response
from stepcredit.audit.attack.edits import EDITS, edits_named, pad_to_limit
from stepcredit.errors import SettingError
from stepcredit.signals.offsets import spans_of_pieces
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Newline

STEPS = ("He has 48/2=<<48/2=24>>24 left.\n", "Then 24 + 6 = 30.\n", "So 30 remain.\n", "A: 30")
RESPONSE = EditableSteps(STEPS, "How many?", others=(("She has 2*2=4.\n", "A: 4"),), limit=400)


def applied(name: str, response: EditableSteps = RESPONSE) -> EditedSteps:
    """The response after an edit that can be applied."""
    found = EDITS[name].apply(response)
    assert isinstance(found, EditedSteps)
    return found


def reason(name: str, response: EditableSteps) -> str:
    """Why an edit can't be applied."""
    found = EDITS[name].apply(response)
    assert isinstance(found, NotEditable)
    return found.reason


@pytest.mark.parametrize("name", EDITS)
def test_sources_name_the_unchanged_steps_and_the_edit_is_seen_at_its_place(name: str) -> None:
    found = applied(name)
    assert len(found.steps) == len(found.sources)
    for text, source in zip(found.steps, found.sources, strict=True):
        assert source is None or text == STEPS[source]
    kept = [source for source in found.sources if source is not None]
    assert kept == sorted(set(kept))
    assert found.at < len(found.steps)
    assert found.at < len(STEPS)
    if found.sources.count(None) == 1:
        assert found.sources[found.at] is None
    assert found.steps != STEPS


@pytest.mark.parametrize("name", EDITS)
def test_draws_depend_on_the_seed_and_the_response_alone(name: str) -> None:
    assert EDITS[name].apply(RESPONSE) == EDITS[name].apply(replace(RESPONSE))
    drawn = {applied(name, replace(RESPONSE, seed=seed)).steps for seed in range(40)}
    fixed = {"restate-question", "delete-decisive", "pad-to-limit", "double-check", "address-judge"}
    assert (len(drawn) == 1) == (name in fixed)


def test_what_fixed_edits_write() -> None:
    assert applied("restate-question").steps == ("How many?\n", *STEPS)
    assert applied("delete-decisive").steps == (STEPS[0], *STEPS[2:])
    assert applied("double-check").steps[3].startswith("Let me double-check")
    assert applied("address-judge").steps[1:] == STEPS
    padded = applied("pad-to-limit")
    length = sum(map(len, padded.steps))
    longest = max(map(len, AddedTexts().contentless)) + 1
    assert 400 - longest <= length <= 400
    assert padded.steps[-1] == "A: 30"


def test_stopping_early_leaves_the_first_steps() -> None:
    for seed in range(20):
        found = applied("stop-early", replace(RESPONSE, seed=seed))
        assert found.steps == STEPS[: found.at + 1]
        assert len(found.steps) < len(STEPS)


def test_broken_arithmetic_is_wrong_everywhere_in_the_step() -> None:
    at = set()
    for seed in range(30):
        found = applied("break-arithmetic", replace(RESPONSE, seed=seed))
        at.add(found.at)
        numbers = [int(digits) for digits in re.findall(r"\d+", found.steps[found.at])]
        if found.at == 0:
            *_, left, right, result, shown = numbers
            assert (left, right) == (48, 2)
            assert result == shown != 24
        else:
            assert numbers[:2] == [24, 6]
            assert numbers[2] != 30
    assert at == {0, 1}  # the other two have no equation


def test_known_truth_decides_which_step_is_right() -> None:
    found = applied("break-arithmetic", replace(RESPONSE, right=(False, True, None, None)))
    assert found.at == 1
    odd = EditableSteps(("7*2=4\n", "<4>"), right=(True, True))
    assert applied("break-arithmetic", odd).steps[0] in {f"7*2={digit}\n" for digit in range(10)}
    assert "known to be right" in reason("break-arithmetic", replace(odd, right=()))


def test_thousands_and_decimals_change_in_their_last_digit() -> None:
    money = EditableSteps(("It costs 1,000 + 250 = $1,250, which is much.\n", "A: 1,250"))
    assert re.search(r"= \$1,25[1-9], which", applied("break-arithmetic", money).steps[0])
    decimal = EditableSteps(("So 1.5 * 3 = 4.5.\n", "A: 4.5"))
    assert re.search(r"= 4\.[0-46-9]\.\n", applied("break-arithmetic", decimal).steps[0])


def test_edits_say_why_they_cannot_be_applied() -> None:
    single = EditableSteps(("Four",))
    for name in ("repeat-step", "swap-step", "stop-early"):
        assert reason(name, single) == "the response has one step only"
    assert reason("restate-question", single) == "the question is unknown"
    assert reason("break-arithmetic", single).startswith("no step has an equation")
    assert reason("delete-decisive", single) == "its last step has no number"
    assert reason("pad-to-limit", single) == "it is among the longest responses of the file"
    alone = replace(RESPONSE, others=())
    assert reason("swap-step", alone).startswith("no other response of the group")
    early = EditableSteps(("I think.\n", "A: 30"))
    assert reason("delete-decisive", early).startswith("no step before the last")
    for name in ("insert-contentless", "double-check", "address-judge"):
        assert len(applied(name, single).steps) == 2


def test_steps_of_a_tool_stay() -> None:
    agent = replace(RESPONSE, own=(True, False, True, True))
    for seed in range(30):
        drawn = replace(agent, seed=seed)
        assert applied("break-arithmetic", drawn).at == 0
        assert applied("repeat-step", drawn).steps.count(STEPS[1]) == 1
        assert applied("swap-step", drawn).steps[1] == STEPS[1]


def test_new_steps_have_the_tags_of_the_others() -> None:
    tagged = EditableSteps(("<step>a</step>\n", "<step>b</step>\n", "<answer>4</answer>"), "Q?")
    assert applied("restate-question", tagged).steps[0] == "<step>Q?</step>\n"
    assert applied("double-check", tagged).steps[2].endswith("correct.</step>\n")


def test_padding_is_bounded() -> None:
    found = pad_to_limit(replace(RESPONSE, limit=10**9))
    assert isinstance(found, EditedSteps)
    assert len(found.steps) == len(STEPS) + 50


def test_names_of_edits() -> None:
    assert [edit.name for edit in edits_named([])] == list(EDITS)
    with pytest.raises(SettingError, match="no edit 'bribe': there are insert-contentless"):
        edits_named(["bribe"])


def test_unchanged_steps_keep_their_tokens() -> None:
    pieces = ("2+", "2=4\n", "", "So", " 4", "")
    response = Response("2+2?", "2+2=4\nSo 4", spans_of_pieces(pieces), name="f:1")
    response = Newline().split(replace(response, own=(True, True, True, True, False, True)))
    edited = EditedSteps(("new 2+\n", "2+2=4\n", "So 4"), (None, 0, 1), 0)
    cutter = Cutter(vocabulary=frozenset({"2+", "new", " ", "ne"}))
    made = edited_response(response, edited, cutter, "x")
    assert isinstance(made, Response)
    assert made.token_texts == ["new", " ", "2+", "\n", *pieces]
    assert made.own == (*[True] * 7, True, False, True)
    assert made.step_ends == [3, 6, 9]
    assert (made.name, made.token_ids, made.facts["text"]) == ("f:1 (x)", None, made.text)
