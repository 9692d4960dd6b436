"""State keys: which calls are the same, which state a step was taken in, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import pytest

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Newline, Turns
from stepcredit.signals.state_keys import (
    START,
    ToolCallStates,
    state_function,
    step_keys,
    tool_call_key,
)

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": %s, "b": 2}}\n</tool_call>'


def agent(*turns, name="r:1"):
    """A response of the policy's turns and, in brackets, tools' answers; a token is a character."""
    text = "".join(turns)
    own = tuple(turn[0] != "[" for turn in turns for _ in turn)
    spans = tuple((i, i + 1) for i in range(len(text)))
    return Turns().split(Response("?", text, spans, own=own, name=name))


SAME = [
    {"a": 2, "b": {"c": [1, 2.0], "d": None}},
    {"b": {"d": None, "c": [1.0, 2]}, "a": 2.0},
    '{"b": {"c": [1, 2], "d": null}, "a": 2}',
    ' { "a" : 2.0 ,\n"b":{"d":null,"c":[1,2]} } ',
    {"a": 2, "b": '{"d": null, "c": [1, 2]}'},
]
OTHERS = [
    {"a": 2},
    {"a": "2", "b": {"c": [1, 2], "d": None}},
    {"a": 2, "b": {"c": [2, 1], "d": None}},
    {"a": 2, "b": {"c": [1, 2], "d": False}},
    [2],
    "2",
    2,
    None,
    True,
    "",
]


def test_a_call_has_one_key_however_it_is_written():
    assert len({tool_call_key("add", arguments) for arguments in SAME}) == 1
    assert tool_call_key(" add ", SAME[0]) == tool_call_key("add", SAME[0])


def test_other_calls_have_other_keys():
    keys = [tool_call_key("add", arguments) for arguments in [SAME[0], *OTHERS]]
    assert len(set(keys)) == len(keys)
    assert tool_call_key("sub", SAME[0]) != keys[0]


def test_the_key_is_the_same_in_every_process():
    digest = blake2b(b'{"a":2,"b":3}', digest_size=8).hexdigest()
    assert tool_call_key("add", {"b": 3, "a": 2.0}) == f"add:{digest}"


def test_a_steps_state_is_the_call_before_it():
    response = agent(CALL % 1, "[3]", CALL % 1, "[3]", CALL % 5, "[7]", "Done.")
    one, five = (tool_call_key("add", {"a": a, "b": 2}) for a in (1, 5))
    assert ToolCallStates()(response) == [START, one, one, one, one, five, five]


def test_two_calls_and_several_keys():
    response = agent(CALL % 1, "[3]", CALL % 5, "[7]", CALL % 1, "[3]", "Done.")
    other = agent(CALL % 9, "[x]", CALL % 5, "[7]", CALL % 1, "[3]", "Done.")
    two = [ToolCallStates(last=2)(each) for each in (response, other)]
    assert [a == b for a, b in zip(*two, strict=True)] == [True, *[False] * 3, False, True, True]
    levels = ToolCallStates(last=(2, 1))(response)
    assert levels == [list(pair) for pair in zip(two[0], ToolCallStates()(response), strict=True)]
    assert levels[0] == [START, START]
    assert levels[1][0] == levels[1][1]


def test_calls_in_a_tools_answer_are_none():
    assert ToolCallStates()(agent("I look.", "[<tool_call>{}</tool_call>]", "Done.")) == [START] * 3


def test_a_call_that_is_no_json_is_its_text():
    texts = ["<tool_call>\n<function=a>\n x </tool_call>", "<tool_call><function=a> x</tool_call>"]
    first, second = (ToolCallStates()(agent(text, "[ok]", "End"))[2] for text in texts)
    assert first == second != START


def test_calls_in_tags_of_their_own():
    response = agent("<search> who? </search>", "[Ann]", "<search>who?</search>", "[Ann]", "Ann.")
    states = ToolCallStates(tags=("search",))(response)
    assert states == [START, *[tool_call_key("search", "who?")] * 4]


def test_a_function_gives_the_states():
    response = Newline().split(Response.of_text("?", "a\nb\na"))
    states = state_function(lambda response: [text.strip() for text in response.step_texts])
    assert step_keys(response, states) == ["a", "b", "a"]
    assert step_keys(response, lambda _: [["x", 1], ["y", 1], ["x", 1]])[1] == ["y", "1"]
    assert state_function("tests.signals.test_state_keys:agent") is agent


@pytest.mark.parametrize(
    ("states", "line"),
    [
        (lambda _: ["a"], "r:1: step_states: 1 state, but 2 steps"),
        (lambda _: ["a", "b", "c"], "r:1: step_states: 3 states, but 2 steps"),
        (lambda _: ["a", 1.5], "r:1: step_states: 1.5 is neither a string nor an integer"),
        (
            lambda _: [["a"], ["a", "b"]],
            "r:1: step_states: step 1 has 2 keys, but step 0 has 1 key",
        ),
    ],
)
def test_states_that_do_not_fit_are_named(states, line):
    response = replace(Newline().split(Response.of_text("?", "a\nb")), name="r:1")
    with pytest.raises(RolloutError) as caught:
        step_keys(response, states)
    assert str(caught.value) == line


def test_a_function_that_fails_is_named():
    response = Newline().split(Response.of_text("?", "a", name="r:1"))
    with pytest.raises(SignalError) as caught:
        step_keys(response, lambda response: response.facts["room"])
    assert str(caught.value) == "r:1: states: KeyError: 'room'"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nothing",), "states: expected tool-calls, or a function, or MODULE:FUNCTION, got 'not"),
        (("no_such:thing",), "states: no_such:thing: ModuleNotFoundError: No module named"),
        (("tool-calls", 0), "last: expected a whole number of at least 1, or several that fall,"),
        (("tool-calls", (1, 2)), "last: expected a whole number of at least 1, or several that"),
        (("tool-calls", 1, ("a b",)), "tags: expected names of tags, such as tool_call, got"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(arguments, line):
    with pytest.raises(SettingError) as caught:
        state_function(*arguments)
    assert str(caught.value).startswith(line)
