"""Every kind of client against every kind of bad server, alone and beside a good one.

Each cell has one of two outcomes: the same scores as without the fault, or one line that names the
server and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from tests.signals.served import answers, truth
from tests.signals.served.conftest import Misbehaving, running_server
from tests.signals.served.test_client import free_port, prm

from stepcredit.errors import SettingError, SignalError
from stepcredit.prm.served_prm import ServedPRM
from stepcredit.signals.combine import Weighted
from stepcredit.signals.responses import Response
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.served.teacher import ServedLogProbs
from stepcredit.signals.server_statistics import (
    ServedStatistics,
    ServerStatistics,
    sum_statistics,
)

QUICK = {"timeout": 20.0, "backoff": 0.01, "attempts": 2, "concurrency": 4}
RESPONSES = truth.responses(24)
ALWAYS = {"share": 1.0, "times": 99}


def verdicts(response: Response) -> list[float]:
    """What the served judge gives each step, by the question that it is asked."""
    judge = Judge(url="http://a", model="judge")
    asked = (body["messages"][-1]["content"] for body in judge.bodies(response))
    return [answers.yes_chance(text) for text in asked]


@dataclass(frozen=True)
class Kind:
    """A kind of client: how it is made, its endpoint, and what its scores are."""

    path: str
    build: Callable[..., Served]
    scores: Callable[[Response], list[float]]
    setting: dict[str, Any]


KINDS = {
    "prm": Kind(
        "/pooling",
        lambda url: ServedPRM(
            url=url,
            model="prm",
            protocol="qwen2.5-math-prm",
            tokenizer=truth.tokenizer(),
            **QUICK,
        ),
        truth.step_scores,
        {"step_tag_id": truth.TAG},
    ),
    "teacher": Kind(
        "/v1/completions",
        lambda url: ServedLogProbs(url=url, model="teacher", **QUICK),
        truth.token_scores,
        {"alphabet": truth.ALPHABET},
    ),
    "judge": Kind(
        "/v1/chat/completions",
        lambda url: Judge(url=url, model="judge", **QUICK),
        verdicts,
        {},
    ),
}
NOTHING = free_port()
"""A port at which nobody listens."""


def bad(kind: Kind, name: str) -> dict[str, Any]:
    """The plan of a bad server, by its name."""
    plans: dict[str, dict[str, Any]] = {
        "flaps": {"share": 0.5, "kinds": ["refuse", "error", "torn", "garbage"]},
        "slow": {"delay": 0.05},
        "wrong model": {"serves": "other", "models": ["other"]},
        "wrong protocol": {"paths": ["/v1/embeddings"]},
        "wrong counts": {"kinds": ["drop"], **ALWAYS},
        "NaN": {"kinds": ["nan"], **ALWAYS},
        "dies": {"dies_after": 6},
    }
    return {"setting": kind.setting, **plans[name]}


LINES = {
    "wrong model": r"HTTP 404: The model `\w+` does not exist\.",
    "wrong protocol": "HTTP 404: Not Found",
    "wrong counts": r"the answer has \d+ [\w -]+, expected \d+ \(attempt 2, the last\)",
    "NaN": r".* is nan, expected a finite number \(attempt 2, the last\)",
    "dies": r".* \(attempt 2, the last\)",
}
"""The line of a bad server that is alone, after its address."""


def expected(kind: Kind) -> list[Any]:
    """The scores without any fault."""
    return [pytest.approx(kind.scores(response), abs=1e-9) for response in RESPONSES]


def refusal(signal: Served) -> str:
    """The line that ends the run."""
    with pytest.raises(SignalError) as caught:
        signal.scores(RESPONSES)
    line = str(caught.value)
    assert line.startswith("rollouts.jsonl:")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", ["flaps", "slow", *LINES])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_bad_server_alone(server: Misbehaving, kind: Kind, name: str) -> None:
    with ExitStack() as opened:
        one = opened.enter_context(running_server()) if name == "dies" else server
        one.plan(**bad(kind, name))
        signal = kind.build(one.url)
        if name not in LINES:
            assert signal.scores(RESPONSES) == expected(kind)
            return
        line = refusal(signal).partition(": ")[2]
    assert line.startswith(f"{one.url}{kind.path}: ")
    assert re.fullmatch(LINES[name], line.removeprefix(f"{one.url}{kind.path}: "))


@pytest.mark.parametrize("name", ["flaps", "slow", "wrong counts", "NaN", "dies"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_bad_server_beside_a_good_one_changes_nothing(
    server: Misbehaving, second: Misbehaving, kind: Kind, name: str
) -> None:
    with ExitStack() as opened:
        one = opened.enter_context(running_server()) if name == "dies" else second
        one.plan(**bad(kind, name))
        server.plan(setting=kind.setting)
        signal = kind.build([one.url, server.url])
        assert signal.scores(RESPONSES) == expected(kind)
    counts = {each.url: each for each in signal.own_statistics.servers}
    assert counts[server.url].failed == 0
    if name not in ("slow",):
        assert counts[one.url].failed > 0
    if name in ("wrong counts", "NaN"):
        assert counts[one.url].sent == counts[one.url].failed


@pytest.mark.parametrize("name", ["wrong model", "wrong protocol"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_another_model_or_protocol_is_refused_before_anything_is_scored(
    server: Misbehaving, second: Misbehaving, kind: Kind, name: str
) -> None:
    second.plan(**bad(kind, name))
    server.plan(setting=kind.setting)
    signal = kind.build([server.url, second.url])
    for _ in range(2):  # and again, for a caller that goes on
        given: dict[int, list[float]] = {}
        with pytest.raises(SignalError) as caught:
            given.update(signal.stream(RESPONSES))
        assert given == {}
        reason = f"serves the model other, not {signal.model}"
        reason = reason if name == "wrong model" else "HTTP 404: Not Found"
        assert str(caught.value).endswith(f": {second.url}{kind.path}: {reason}")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_dead_names_every_server_and_its_reason(server: Misbehaving, kind: Kind) -> None:
    server.plan(fail=[503, "", {}])
    dead = f"http://127.0.0.1:{NOTHING}"
    line = refusal(kind.build([dead, server.url])).partition(": ")[2]
    one, two = f"{dead}{kind.path}: connection refused", f"{server.url}{kind.path}: HTTP 503"
    assert line == f"{one}; {two} (attempt 2, the last)"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_server_that_comes_back_is_used_again(server: Misbehaving, kind: Kind) -> None:
    server.plan(setting=kind.setting, delay=0.02)
    port = free_port()
    signal = kind.build([f"http://127.0.0.1:{port}", server.url])
    assert signal.scores(RESPONSES) == expected(kind)
    late = signal.own_statistics.servers[0]
    assert late.sent == late.failed > 0
    with running_server(port) as back:
        back.plan(setting=kind.setting, delay=0.02)
        assert signal.scores(RESPONSES * 3) == expected(kind) * 3
        assert back.count()["requests"] > 0
    now = signal.own_statistics.servers[0]
    assert now.sent - late.sent > now.failed - late.failed


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_server_that_comes_back_with_another_model_is_left_alone(
    server: Misbehaving, kind: Kind
) -> None:
    server.plan(setting=kind.setting)
    port = free_port()
    signal = kind.build([f"http://127.0.0.1:{port}", server.url])
    signal.scores(RESPONSES[:3])
    with running_server(port) as back:
        back.plan(setting=kind.setting, models=["other"])
        assert signal.scores(RESPONSES * 2) == expected(kind) * 2
        assert back.count()["requests"] == 0
    fault = signal.own_statistics.servers[0].last_fault
    assert fault == f"serves the model other, not {signal.model}"


def test_requests_go_to_the_server_with_the_fewest_under_way(
    server: Misbehaving, second: Misbehaving
) -> None:
    kind = KINDS["prm"]
    server.plan(setting=kind.setting, delay=0.3)
    second.plan(setting=kind.setting)
    signal = kind.build([server.url, second.url])
    assert signal.scores(RESPONSES * 3) == expected(kind) * 3
    assert server.count()["most"] <= 2  # of four places, at most half while both have requests
    slow, fast = (each.sent for each in signal.own_statistics.servers)
    assert fast > 2 * slow > 0


def test_servers_that_name_no_model_are_compared(server: Misbehaving, second: Misbehaving) -> None:
    setting = KINDS["teacher"].setting
    server.plan(setting=setting, models=["models/32b"])
    second.plan(setting=setting, models=["models/32b"])
    urls = [server.url, second.url]
    signal = ServedLogProbs(url=urls, model="teacher", api="sglang", **QUICK)
    assert signal.scores(RESPONSES) == expected(KINDS["teacher"])
    second.plan(setting=setting, models=["models/7b"])
    other = ServedLogProbs(url=urls, model="teacher", api="sglang", **QUICK)
    line = refusal(other)
    assert "/generate: serves the model models/" in line
    assert "models/7b" in line
    assert "models/32b" in line


def test_servers_are_asked_their_models_again_in_every_stream(
    server: Misbehaving, second: Misbehaving
) -> None:
    setting = KINDS["teacher"].setting
    server.plan(setting=setting, models=["models/32b"])
    second.plan(setting=setting, models=["models/32b"])
    signal = ServedLogProbs(url=[server.url, second.url], model="teacher", api="sglang", **QUICK)
    assert signal.scores(RESPONSES) == expected(KINDS["teacher"])
    second.plan(setting=setting, models=["models/7b"])
    assert signal.scores(RESPONSES) == expected(KINDS["teacher"])
    assert second.count()["requests"] == 0
    own = signal.own_statistics.servers[1]
    assert own.last_fault == f"serves the model models/7b, not models/32b as {server.url}"
    server.plan(setting=setting, models=["models/32b"], share=1.0, kinds=["error"])
    assert signal.scores(RESPONSES[:1]) == expected(KINDS["teacher"])[:1]
    assert second.count()["requests"] == 0


def test_a_refused_server_does_not_say_which_models_are_right(
    server: Misbehaving, second: Misbehaving
) -> None:
    setting = KINDS["teacher"].setting
    urls = [server.url, second.url]
    for wrong, right in ((server, second), (second, server)):
        signal = ServedLogProbs(url=urls, model="teacher", api="sglang", **QUICK)
        wrong.plan(setting=setting, models=["models/7b"])
        right.plan(setting=setting, models=["models/32b"])
        assert "models/7b" in refusal(signal)
        wrong.plan(setting=setting, models=["models/32b"])
        assert signal.scores(RESPONSES) == expected(KINDS["teacher"])


@pytest.mark.parametrize("models", [None, ["other"]])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_server_started_anew_between_batches_is_set_aside(
    server: Misbehaving, second: Misbehaving, kind: Kind, models: list[str] | None
) -> None:
    listed = models and ["prm", "teacher", "judge"]
    server.plan(setting=kind.setting, models=listed)
    second.plan(setting=kind.setting, models=listed)
    signal = kind.build([server.url, second.url])
    signal.scores(RESPONSES)
    second.plan(setting=kind.setting, models=models, serves="other")
    assert signal.scores(RESPONSES) == expected(kind)
    fault = signal.own_statistics.servers[1].last_fault or ""
    unlisted = f"HTTP 404: The model `{signal.model}` does not exist."
    assert fault == (f"serves the model other, not {signal.model}" if models else unlisted)


def test_a_request_that_the_deadline_ends_is_a_fault_of_its_server(
    server: Misbehaving, second: Misbehaving
) -> None:
    for each in (server, second):
        each.plan(setting=KINDS["prm"].setting, kinds=["hang"], **ALWAYS)
    urls = [server.url, second.url]
    signal = prm(urls, timeout=1.0, deadline=1.7)
    with pytest.raises(SignalError) as caught:
        signal.scores(RESPONSES[:1])
    line = str(caught.value)
    own = signal.own_statistics
    assert own.failed == own.sent == 3  # each is asked first, then one of them again
    late = [each.url for each in own.servers if each.last_fault == "no answer before the deadline"]
    assert line.endswith(f"not scored within 1.7 s, last: {late[0]}: no answer before the deadline")


def test_a_timeout_that_leaves_no_time_for_another_server() -> None:
    assert prm("http://a", timeout=2.0, deadline=2.0).timeout == 2.0
    with pytest.raises(SettingError) as caught:
        prm(["http://a", "http://b"], timeout=2.0, deadline=2.0)
    why = "several addresses, so that another server can answer when one hangs"
    assert str(caught.value) == f"timeout: expected less than deadline (2) with {why}, got 2"


def test_counts_of_requests(server: Misbehaving, second: Misbehaving) -> None:
    kind = KINDS["prm"]
    server.plan(setting=kind.setting)
    second.plan(setting=kind.setting)
    signal = kind.build([server.url, second.url])
    assert signal.own_statistics.sent == 0
    signal.scores(RESPONSES)
    found = signal.served_statistics()
    assert found is not None
    assert found.sent == len(RESPONSES) + 2  # the first request goes to both servers before
    assert (found.retried, found.failed) == (0, 0)
    assert found.largest_queue >= len(RESPONSES) - QUICK["concurrency"]
    assert found.waited_seconds > 0
    assert found.served_seconds > 0
    signal.scores(RESPONSES)
    later = signal.served_statistics()
    assert later is not None
    assert later.since(found).sent == len(RESPONSES)
    assert Weighted((signal, signal)).served_statistics() == later  # one signal in two places


def test_sums_keep_the_last_fault_that_is_known() -> None:
    failed = ServedStatistics((ServerStatistics("http://a", sent=1, failed=1, last_fault="why"),))
    good = ServedStatistics((ServerStatistics("http://a", sent=1),))
    for parts in ([failed, good], [good, failed]):
        [found] = sum_statistics(parts).servers
        assert (found.sent, found.failed, found.last_fault) == (2, 1, "why")


def test_one_server_is_asked_nothing_beside_the_requests(server: Misbehaving) -> None:
    kind = KINDS["prm"]
    server.plan(setting=kind.setting)
    signal = kind.build([server.url])
    signal.scores(RESPONSES)
    assert signal.own_statistics.sent == server.count()["requests"] == len(RESPONSES)


def test_what_fails_is_counted(server: Misbehaving) -> None:
    kind = KINDS["prm"]
    server.plan(setting=kind.setting, share=1.0, kinds=["error"])
    signal = kind.build(server.url)
    signal.scores(RESPONSES)
    found = signal.own_statistics
    count = len(RESPONSES)
    assert (found.sent, found.retried, found.failed) == (2 * count, count, count)
    assert found.servers[0].last_fault == "HTTP 503: error on purpose"


A_AND_B = '"http://a:8000", "http://b:8000"'


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ([], "url: expected an http:// or https:// address, or a list of them, got []"),
        (["http://a", "b"], "url: expected an http:// or https:// address, got ['http://a', 'b']"),
        (
            ["http://a", "http://a/"],
            "url: expected each address once, got ['http://a', 'http://a/'",
        ),
        (
            ["http://a:80", "http://A"],
            "url: expected each address once, got ['http://a:80', 'http://A'",
        ),
        *(
            (url, f"url: expected one address (several addresses are a list: [{A_AND_B}]), got ")
            for url in ("http://a,http://b", "http://a,b:8000", "http://a:8000,http://b:8000")
        ),
        (
            ["http://a", "http://me:sk-1@b"],
            "url: expected an address without user, query and fragment (api_key_env names where a "
            "key is), got another (not shown: it may hold a secret)",
        ),
    ],
)
def test_bad_addresses(url: Any, line: str) -> None:
    with pytest.raises(SettingError) as caught:
        KINDS["prm"].build(url)
    assert str(caught.value).startswith(line)


def test_addresses_are_no_part_of_the_identity() -> None:
    build = KINDS["prm"].build
    assert build("http://a").identity == build(["http://b", "http://c"]).identity
    assert build(["http://a/", "http://b"]).urls == ("http://a", "http://b")
