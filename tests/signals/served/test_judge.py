"""A judge's Yes and No as scores: what is asked, and what is read of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving
from tests.signals.served.truth import CURSED

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.signal_registry import signal

PATH = "/v1/chat/completions"
TERSE = "{{ prompt }}|{{ number }}|{{ step }}"


def judge(url: str, **settings: Any) -> Judge:
    """Impatient, so that tests are fast; with a question that is easy to write by hand."""
    quick = {"timeout": 1.0, "backoff": 0.01, "attempts": 3, "concurrency": 8, "template": TERSE}
    return Judge(url, "judge", **quick | settings)


def chance(asked: str, vote: int = 0) -> float:
    """P(Yes) of a question, whose characters' sum decides it."""
    return (sum(ord(letter) for letter in asked) * (vote + 1) % 101 + 1) / 103


def asked(response: Response, number: int) -> str:
    """The terse question about a step."""
    start, end = (0, *response.steps)[number - 1 : number + 1]
    return f"{response.prompt}|{number}|{response.text[start:end]}"


def each(response: Response, score: Callable[[str], float]) -> Any:
    """A score a step."""
    numbers = range(1, len(response.steps) + 1)
    return pytest.approx([score(asked(response, number)) for number in numbers], abs=1e-12)


@pytest.mark.parametrize("per", ["step", "turns"])
def test_probability_of_yes_on_each_step(server: Misbehaving, per: str) -> None:
    responses = truth.responses(25)
    scores = judge(server.url, per=per).scores(responses)
    assert scores == [each(response, chance) for response in responses]
    assert server.count()["requests"] == sum(len(r.steps) for r in responses)


def test_votes_are_averaged(server: Misbehaving) -> None:
    responses = truth.responses(10)
    scores = judge(server.url, votes=3, temperature=0.7).scores(responses)
    mean = [
        each(r, lambda asked: sum(chance(asked, vote) for vote in range(3)) / 3) for r in responses
    ]
    assert scores == mean


def test_words_written_are_ones_and_zeros(server: Misbehaving) -> None:
    responses = truth.responses(10)
    scores = judge(server.url, read="text").scores(responses)
    assert scores == [each(r, lambda asked: float(chance(asked) >= 0.5)) for r in responses]
    assert "logprobs" not in server.count()["last"]


def test_share_of_votes_by_words(server: Misbehaving) -> None:
    responses = truth.responses(10)
    scores = judge(server.url, read="text", votes=4, temperature=1.0).scores(responses)
    share = [
        each(r, lambda asked: sum(chance(asked, v) >= 0.5 for v in range(4)) / 4) for r in responses
    ]
    assert scores == share


@pytest.mark.parametrize("read", ["logprobs", "text"])
def test_neither_word_is_half(server: Misbehaving, read: str) -> None:
    server.plan(setting={"undecided": True})
    assert judge(server.url, read=read).scores([CURSED]) == [[0.5, 0.5]]


@pytest.mark.parametrize("undecided", [True, False])
def test_a_judge_that_decides_nothing_is_told_of(
    server: Misbehaving, undecided: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.plan(setting={"undecided": undecided})
    judge(server.url).scores(truth.responses(20))
    told = [record.getMessage() for record in caplog.records if "judge" in record.name]
    assert len(told) == undecided
    for line in told:
        assert line.endswith("0.5: the model hardly ever writes Yes or No; does it reason first?")


def test_plus_and_minus_as_rlhflow_has_them(server: Misbehaving) -> None:
    server.plan(setting={"yes": "+", "no": "-"})
    settings = {"system": "", "template": "{% if number == 1 %}{{ prompt }} {% endif %}{{ step }}"}
    response = truth.response("1+1?", ["First.", "Then.", "So 2."])
    scores = judge(server.url, per="turns", yes="+", no="-", **settings).scores([response])
    turns = ["1+1? First.", "Then.", "So 2."]
    assert scores == [pytest.approx([chance(turn) for turn in turns], abs=1e-12)]


def test_only_yes_among_the_likely_is_one(server: Misbehaving) -> None:
    server.plan(setting={"no": "Never"})
    assert judge(server.url).scores([CURSED]) == [[1.0, 1.0]]
    server.plan(setting={"yes": "Sure"})
    assert judge(server.url).scores([CURSED]) == [[0.0, 0.0]]


@pytest.mark.parametrize("read", ["logprobs", "text"])
def test_verdict_after_reasoning_is_the_last(server: Misbehaving, read: str) -> None:
    server.plan(setting={"reasoning": ["No", " doubt", "?", " Yes", " and", " no", ".\n", "**"]})
    responses = truth.responses(5)
    scores = judge(server.url, reasons=True, read=read).scores(responses)
    score = chance if read == "logprobs" else lambda asked: float(chance(asked) >= 0.5)
    assert scores == [each(response, score) for response in responses]
    assert "max_tokens" not in server.count()["last"]


@pytest.mark.parametrize("reasons", [False, True])
@pytest.mark.parametrize("read", ["logprobs", "text"])
def test_one_request_a_response_with_a_rubric(
    server: Misbehaving, read: str, reasons: bool
) -> None:
    response = truth.response("1+1?", ["First.\n\n", "Then.\n\n", "So 2."])
    before = ["Look", ":\n", "1", ":", " No", "\n", "2", ".", " yes", "\n\n"] if reasons else []
    server.plan(setting={"lines": 3, "reasoning": before})
    settings = {"per": "response", "template": "{{ steps | length }}", "rubric": "Be strict."}
    scores = judge(server.url, read=read, reasons=reasons, **settings).scores([response])
    chances = [chance(f"3{number}") for number in (1, 2, 3)]
    if read == "text":
        chances = [float(value >= 0.5) for value in chances]
    assert scores == [pytest.approx(chances, abs=1e-12)]
    assert server.count()["requests"] == 1


def test_votes_on_lines_are_averaged(server: Misbehaving) -> None:
    server.plan(setting={"lines": 2})
    settings = {"per": "response", "template": "?", "votes": 2, "temperature": 1.0}
    scores = judge(server.url, **settings).scores([CURSED])
    means = [(chance(f"?{n}", 0) + chance(f"?{n}", 1)) / 2 for n in (1, 2)]
    assert scores == [pytest.approx(means, abs=1e-12)]


@pytest.mark.parametrize(
    ("plan", "settings", "reason"),
    [
        ({"curse": "drop"}, {}, "the answer has 0 choices, expected 1"),
        ({"curse": "add"}, {}, "the answer has 2 choices, expected 1"),
        ({"curse": "nan"}, {}, "a log-prob is nan, expected a finite number"),
        ({"curse": "null"}, {}, "the answer has no logprobs.content"),
        ({"curse": "garbage"}, {}, "the answer is not JSON"),
        (
            {"setting": {"lines": 1}},
            {"per": "response"},
            "the answer has verdicts on steps [1], expected 1 to 2",
        ),
        (
            {"setting": {"lines": 3}},
            {"per": "response"},
            "the answer has verdicts on steps [1, 2, 3], expected 1 to 2",
        ),
        (
            {"setting": {"lines": 1, "yes": "Yes\n2: Yes", "no": "Yes\n2: Yes"}},
            {"per": "response"},
            "the verdict on step 1 is within the token 'Yes\\n2: Yes'",
        ),
        (
            {"setting": {"undecided": True, "lines": 2}},
            {"per": "response"},
            "the answer has verdicts on steps [], expected 1 to 2",
        ),
    ],
)
def test_malformed_answer_stops_the_run_by_name(
    server: Misbehaving, plan: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    cursed = {"cursed": "Why"} if "curse" in plan else {}
    server.plan(**plan, **cursed)
    with pytest.raises(SignalError) as caught:
        judge(server.url, **settings).scores([CURSED])
    line = f"rollouts.jsonl:666: {server.url}{PATH}: {reason} (attempt 3, the last)"
    assert str(caught.value) == line


def test_words_that_underflow_still_decide(server: Misbehaving) -> None:

    told = [{"token": "Yes", "logprob": -800.0}, {"token": "No", "logprob": -801.0}]
    token = {"token": "Hm", "logprob": 0.0, "top_logprobs": told}
    assert judge("http://h").verdicts.probability(token) == pytest.approx(
        1 / (1 + 2.718281828459045**-1)
    )
    far = [{"token": "Yes", "logprob": -9999.0}, {"token": "No", "logprob": -1.0}]
    assert judge("http://h").verdicts.probability({**token, "top_logprobs": far}) == 0.0


def test_word_sampled_counts_where_the_likely_leave_it_out() -> None:

    token = {"token": " no", "logprob": -1.0, "top_logprobs": [{"token": "Yes", "logprob": -1.0}]}
    assert judge("http://h").verdicts.probability(token) == 0.5


def test_no_likely_tokens_are_no_probability() -> None:
    from stepcredit.signals.served.failures import Fault

    with pytest.raises(Fault, match="has no likely tokens"):
        judge("http://h").verdicts.probability(
            {"token": "Yes", "logprob": -1.0, "top_logprobs": []}
        )


STEPWISE = """Problem:
1+1?

Steps so far:
1. First.
2. Then.

Step 3, to check:
So 2.

Is step 3 right? Yes or No:"""
CHECK = (
    "You check a solution one step at a time. If the step you are asked about is right, answer "
    "Yes, else No: this one word."
)
ALL = (
    "You check a solution step by step. For each step write one line, its number and Yes if the "
    "step is right, else No, as in `1: Yes`. Write one line for each step and nothing after them."
)
RUBRIC = "\n\nWhat makes a step right:\nNo guesses."


def messages(server: Misbehaving, **settings: Any) -> list[tuple[str, str]]:
    """The chat about the last of three steps."""
    lines = {"lines": 3} if settings.get("per") == "response" else {}
    server.plan(setting=lines)
    response = truth.response("1+1?", ["First.\n\n", "Then.\n\n", "So 2."])
    judge(server.url, **{"template": None, "concurrency": 1} | settings).scores([response])
    return [(turn["role"], turn["content"]) for turn in server.count()["last"]["messages"]]


def test_question_about_a_step(server: Misbehaving) -> None:
    assert messages(server) == [("system", CHECK), ("user", STEPWISE)]
    assert messages(server, rubric="No guesses.")[0] == ("system", CHECK + RUBRIC)
    assert messages(server, system="")[0] == ("user", STEPWISE)
    assert messages(server, system="{{ yes }}/{{ no }}")[0] == ("system", "Yes/No")


def test_question_about_the_first_step(server: Misbehaving) -> None:
    judge(server.url, template=None).scores([truth.response("1+1?", ["So 2."])])
    content = server.count()["last"]["messages"][-1]["content"]
    lines = ["Problem:", "1+1?", "", "Step 1, to check:", "So 2.", ""]
    assert content == "\n".join([*lines, "Is step 1 right? Yes or No:"])


def test_question_in_turns(server: Misbehaving) -> None:
    turns = [("user", "1+1?\n\nFirst."), ("assistant", "Yes"), ("user", "Then.")]
    turns += [("assistant", "Yes"), ("user", "So 2.")]
    assert messages(server, per="turns") == [("system", CHECK), *turns]


def test_question_about_a_response(server: Misbehaving) -> None:
    lines = ["Problem:", "1+1?", "", "Solution:", "1. First.", "2. Then.", "3. So 2.", ""]
    user = "\n".join([*lines, "Write 3 lines, one a step."])
    told = messages(server, per="response", rubric="No guesses.")
    assert told == [("system", ALL + RUBRIC), ("user", user)]


def test_template_in_a_response_is_only_text(server: Misbehaving) -> None:
    response = truth.response("{{ 7 * 7 }}", ["{% raw %}", "{{ steps.__class__ }}"])
    judge(server.url, concurrency=1).scores([response])
    content = server.count()["last"]["messages"][-1]["content"]
    assert content == "{{ 7 * 7 }}|2|{{ steps.__class__ }}"


def test_half_a_character_is_sent_as_it_is(server: Misbehaving) -> None:
    response = Response("?", "\ud83d", ((0, 1),), (1,))
    assert judge(server.url).scores([response]) == [each(response, chance)]


def test_request_carries_what_is_set(server: Misbehaving) -> None:
    extra = {"seed": 1, "chat_template_kwargs": {"enable_thinking": False}}
    judge(server.url, extra=extra, top_logprobs=5).scores([truth.response("?", ["So."])])
    last = server.count()["last"]
    del last["messages"]
    assert last == {
        "model": "judge",
        "n": 1,
        "temperature": 0.0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 5,
        **extra,
    }


def test_empty_response(server: Misbehaving) -> None:
    empty = truth.response("?", [" "], name="r.jsonl:4")
    with pytest.raises(RolloutError) as caught:
        judge(server.url).scores([empty])
    reason = "text: is empty: learned models score it high; empty='score' lets them"
    assert str(caught.value) == f"r.jsonl:4: {reason}"
    assert judge(server.url, empty="score").scores([empty]) == [each(empty, chance)]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"no": " YES "}, "no: expected another word than yes, got ' YES '"),
        (
            {"votes": 3},
            "temperature: expected a number above 0: at 0 all 3 votes are the same",
        ),
        ({"per": "token"}, "per: expected one of step, turns, response, got 'token'"),
        (
            {"template": "{{ answer }}"},
            "template: unknown variable answer: expected prompt, steps, earlier, step, number, "
            "rubric, yes, no",
        ),
        (
            {"system": "{% if %}"},
            "system: line 1 does not parse: Expected an expression, got 'end of statement block'",
        ),
        ({"extra": [1]}, "extra: expected an object of fields, got [1]"),
        (
            {"extra": {"a": {1}}},
            "extra: expected an object of fields that JSON can hold, got {'a': {1}}",
        ),
        (
            {"extra": {"a": float("inf")}},
            "extra: expected an object of fields that JSON can hold, got {'a': inf}",
        ),
    ],
)
def test_bad_setting(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as caught:
        judge("http://h", **settings)
    assert str(caught.value) == line


def test_identity_holds_the_question_and_not_the_address() -> None:
    one, two = judge("http://a:1"), judge("http://b:2", timeout=5.0)
    assert one.identity == two.identity
    assert one.identity != judge("http://a:1", rubric="Strict.").identity
    assert TERSE in one.identity.values()
    assert STEPWISE[:8] in judge("http://a:1", template=None).identity["template"]
    assert json.loads(json.dumps(one.identity)) == one.identity
    assert signal("judge", url="http://a:1", model="judge").name == "judge"
