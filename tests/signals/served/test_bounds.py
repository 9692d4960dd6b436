"""What a server's answer may cost: bytes, nesting, time; and numbers that are none."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving
from tests.signals.served.test_client import STEP, prm
from tests.signals.served.truth import CURSE, CURSED

from stepcredit.errors import SettingError, SignalError
from stepcredit.signals.served.client import retry_after
from stepcredit.signals.served.llm_judge import Judge


def refusal(signal: Any, path: str = "/pooling") -> str:
    """Why a response is not scored."""
    with pytest.raises(SignalError) as caught:
        signal.scores([CURSED])
    line = str(caught.value)
    place = f"rollouts.jsonl:666: {signal.url}{path}: "
    assert line.startswith(place)
    assert "\n" not in line
    return line.removeprefix(place)


def test_body_that_never_ends(server: Misbehaving) -> None:
    server.plan(cursed=CURSE, curse="flood")
    signal = prm(server.url, max_body=2_000_000, timeout=60.0)
    assert refusal(signal) == "the answer is longer than max_body allows: 2000000 bytes"
    count = server.count()
    assert count["requests"] == 1
    assert count["flooded"] < 20_000_000


def test_body_at_the_limit(server: Misbehaving) -> None:
    server.plan(setting=STEP)
    scores = prm(server.url).scores([CURSED])
    rows = [[1 - score, score] for score in truth.step_scores(CURSED)]
    data = [{"index": 0, "object": "pooling", "data": rows}]
    size = len(json.dumps({"id": "pool-1", "object": "list", "model": "prm", "data": data}))
    assert prm(server.url, max_body=size).scores([CURSED]) == scores
    reason = f"the answer is longer than max_body allows: {size - 1} bytes"
    assert refusal(prm(server.url, max_body=size - 1)) == reason


def test_limit_holds_for_an_errors_body_too(server: Misbehaving) -> None:
    server.plan(fail=[500, "x" * 1000, {}])
    reason = "the answer is longer than max_body allows: 999 bytes"
    assert refusal(prm(server.url, max_body=999)) == reason


def test_limit_is_a_number_of_bytes() -> None:
    with pytest.raises(SettingError, match=r"\Amax_body: expected a whole number of at least 1"):
        prm("http://h", max_body=0)


def test_body_that_drips(server: Misbehaving) -> None:
    server.plan(cursed=CURSE, curse="drip")
    reason = "no answer within 0.2 s (attempt 3, the last)"
    assert refusal(prm(server.url, timeout=0.2)) == reason


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_compressed_body_is_not_unpacked(server: Misbehaving, coding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000).decode("latin-1")
    server.plan(fail=[200, bomb, {"Content_Encoding": coding}])
    reason = f"the answer is compressed ({coding}), although no compression was requested"
    assert refusal(prm(server.url)) == reason
    assert server.count()["headers"]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 500 + "1" + "}" * 500,
        "[" * 101 + "]" * 101,
        '{"data": [{"data": ' + "[" * 98 + "]" * 98 + "}]}",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_nested_body(server: Misbehaving, body: str, status: int) -> None:
    server.plan(fail=[status, body, {}])
    reason = refusal(prm(server.url))
    if status == 400:
        assert reason.startswith("HTTP 400: ")
    else:
        deep = "the answer nests lists and objects more than 100 deep (attempt 3, the last)"
        assert reason == deep


def test_nesting_within_the_limit_is_read(server: Misbehaving) -> None:
    server.plan(fail=[200, '{"data": ' + "[" * 99 + "]" * 99 + "}", {}])
    assert refusal(prm(server.url)) == "the answer has no data[0].data (attempt 3, the last)"


NUMBER = "the score of step 0 is {}, expected a finite number"
HUGE = 10**400


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1e999", NUMBER.format("inf")),
        ("-1e999", NUMBER.format("-inf")),
        ("NaN", NUMBER.format("nan")),
        (str(HUGE), NUMBER.format(str(HUGE)[:299] + "…")),
        ("1" * 10_000, "the answer has a number of too many digits"),
        ('"\\ud800"', NUMBER.format("'\\ud800'")),
        ('"\\u001b[1m"', NUMBER.format("'\\x1b[1m'")),
        ("true", NUMBER.format("True")),
        ('{"a": 1, "a": 2}', "the answer has an object with two members of one name"),
    ],
)
def test_value_that_is_no_number(server: Misbehaving, value: str, reason: str) -> None:
    server.plan(fail=[200, f'{{"data": [{{"data": [[{value}, 0.5], [0.5, 0.5]]}}]}}', {}])
    assert refusal(prm(server.url)) == f"{reason} (attempt 3, the last)"


@pytest.mark.parametrize("body", ['"\\ud800 \\u001b[1m"', '{"error": "\\ud800 \\u001b[1m"}'])
def test_halves_of_characters_are_spelled_out(server: Misbehaving, body: str) -> None:
    server.plan(fail=[400, body, {}])
    assert refusal(prm(server.url)) == "HTTP 400: \\ud800 \\x1b[1m"


@pytest.mark.parametrize(
    "header",
    [
        "Thu, 01 Jan 99999999999 00:00:00 GMT",
        "Thu, 99 Jan 2020 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +9999",
        "Mon, 01 Jan 9999 00:00:00 -2359",
        "1e9",
        "-5",
        ",",
        "",
        "²",
    ],
)
def test_retry_after_that_is_no_date(header: str) -> None:
    assert retry_after(header) >= 0.0


def test_lines_of_a_hostile_judge_are_read_in_linear_time() -> None:
    judge = Judge("http://h", "m", per="response", read="text")
    for filler in (
        "\n" * 200_000,
        "- \n" * 70_000,
        "1\n" * 100_000,
        "step " * 40_000,
        " " * 200_000,
    ):
        written = f"{filler}\n1: Yes\n{filler}\n2: no"
        answer = {"choices": [{"message": {"content": written}}]}
        assert judge.verdicts.of_lines(2, answer) == [1.0, 0.0]


def test_step_number_of_many_digits_is_none(server: Misbehaving) -> None:
    body = {"choices": [{"message": {"content": "1" * 5000 + ": Yes\n1: Yes\n2: No"}}]}
    server.plan(fail=[200, json.dumps(body), {}])
    judge = Judge(server.url, "m", per="response", read="text")
    assert judge.scores([CURSED]) == [[1.0, 0.0]]
