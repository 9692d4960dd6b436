"""Questions to a server that misbehaves: asked again or given up by name, never answered by us."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import SCRIPT, Misbehaving
from tests.signals.served.truth import CURSE, CURSED

from stepcredit.errors import MissingExtra, SettingError, SignalError
from stepcredit.prm.served_prm import ServedPRM

TRANSIENT = ["refuse", "hang", "error", "busy", "late", "torn", "garbage"]
MALFORMED = ["drop", "add", "nan", "null", "range", "logits"]
TOKENIZER = truth.tokenizer()
STEP = {"step_tag_id": truth.TAG}


def prm(url: str, **settings: Any) -> ServedPRM:
    """Impatient, so that tests are fast."""
    quick = {"timeout": 1.0, "backoff": 0.01, "attempts": 3, "concurrency": 8}
    known = {"model": "prm", "protocol": "qwen2.5-math-prm", "tokenizer": TOKENIZER}
    return ServedPRM(url, **known | quick | settings)


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sockets() -> int:
    """Sockets this process has open, where the system tells."""
    if not os.path.isdir("/proc/self/fd"):
        return 0
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.islink(link) and "socket" in os.readlink(link) for link in links)


@pytest.mark.parametrize("kind", TRANSIENT + MALFORMED)
def test_fault_that_passes_changes_nothing(server: Misbehaving, kind: str) -> None:
    server.plan(share=1.0, kinds=[kind], setting=STEP)
    responses = truth.responses(12)
    timeout = 0.3 if kind == "hang" else 5.0
    scores = prm(server.url, timeout=timeout, concurrency=12).scores(responses)
    assert scores == [pytest.approx(truth.step_scores(r), abs=1e-12) for r in responses]
    assert server.count()["faults"] == {kind: 12}


REASONS = {
    "refuse": "connection reset",
    "hang": "no answer within 0.2 s",
    "error": "HTTP 503: error on purpose",
    "busy": "HTTP 429: busy on purpose",
    "torn": "peer closed connection without sending complete message body "
    "(received {got} bytes, expected {size})",
    "garbage": "the answer is not JSON",
    "drop": "the answer has 1 rows of scores, expected 2",
    "add": "the answer has 3 rows of scores, expected 2",
    "nan": "the score of step 0 is nan, expected a finite number",
    "null": "the score of step 0 is None, expected a finite number",
    "range": "the row of step 0 is [-3.5, 4.5], expected two probabilities",
    "logits": "the row of step 0 is [0.25, 0.9], expected two probabilities",
}


@pytest.mark.parametrize("kind", REASONS)
def test_fault_that_stays_stops_the_run_by_name(server: Misbehaving, kind: str) -> None:
    server.plan(cursed=CURSE, curse=kind, setting=STEP)
    responses = truth.responses(30)
    stream = prm(server.url, timeout=0.2).stream([*responses[:20], CURSED, *responses[20:]])
    given = {}
    with pytest.raises(SignalError) as caught:
        given.update(stream)
    reason = REASONS[kind]
    if kind == "torn":
        size = len(json.dumps(_answer_to_cursed()))
        reason = reason.format(got=size - 10, size=size)
    place = f"rollouts.jsonl:666: {server.url}/pooling: "
    assert str(caught.value) == f"{place}{reason} (attempt 3, the last)"
    assert server.count()["faults"] == {kind: 3}
    assert 20 not in given


def _answer_to_cursed() -> dict[str, Any]:
    rows = [[1 - score, score] for score in truth.step_scores(CURSED)]
    data = [{"index": 0, "object": "pooling", "data": rows}]
    return {"id": "pool-1", "object": "list", "model": "prm", "data": data}


def test_results_before_a_failure_are_right_and_none_is_invented(server: Misbehaving) -> None:
    server.plan(cursed=CURSE, delay=0.01, setting=STEP)
    responses = [*truth.responses(100), CURSED, *truth.responses(200, seed=1)]
    given: dict[int, list[float]] = {}
    with pytest.raises(SignalError):
        given.update(prm(server.url).stream(responses))
    assert len(given) >= 90
    for index, scores in given.items():
        assert scores == pytest.approx(truth.step_scores(responses[index]), abs=1e-12)
    assert server.count()["requests"] < 200


def test_nobody_listening(server: Misbehaving) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SignalError) as caught:
        prm(url, concurrency=1).scores(truth.responses(3))
    place = f"rollouts.jsonl:1: {url}/pooling"
    assert str(caught.value) == f"{place}: connection refused (attempt 3, the last)"


def test_server_that_comes_up_late(server: Misbehaving) -> None:
    port, responses = free_port(), truth.responses(3)
    starting = f"import time; time.sleep(0.7); exec(open({str(SCRIPT)!r}).read())"
    arguments = [sys.executable, "-c", f"__file__ = {str(SCRIPT)!r}; {starting}", str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as late:
        signal = prm(f"http://127.0.0.1:{port}", pooling="all", attempts=40, backoff=0.2)
        scores = signal.scores(responses)
        late.kill()
    assert scores == [pytest.approx(truth.step_scores(r), abs=1e-12) for r in responses]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, '{"error": {"message": "longer than\\n 4096 tokens"}}', ": longer than 4096 tokens"),
        (401, '{"error": "Unauthorized"}', ": Unauthorized"),
        (403, "", ""),
        (403, " \n", ""),
        (404, '{"object": "error", "message": "no model `prm`"}', ": no model `prm`"),
        (422, '{"detail": [{"loc": ["body"]}]}', ": [{'loc': ['body']}]"),
        (302, "<p>elsewhere</p>", ": <p>elsewhere</p>"),
        (413, "x" * 400, ": " + "x" * 299 + "…"),
    ],
)
def test_final_word_is_told_at_once(server: Misbehaving, status: int, body: str, said: str) -> None:
    server.plan(fail=[status, body, {}])
    with pytest.raises(SignalError) as caught:
        prm(server.url, concurrency=1).scores(truth.responses(5))
    assert str(caught.value) == f"rollouts.jsonl:1: {server.url}/pooling: HTTP {status}{said}"
    assert server.count()["requests"] == 1


def test_retry_after_is_waited_for(server: Misbehaving) -> None:
    server.plan(share=1.0, kinds=["busy"], wait=1, setting=STEP)
    start = time.monotonic()
    prm(server.url).scores(truth.responses(4))
    assert time.monotonic() - start >= 1.0


def test_retry_after_beyond_the_deadline_is_not_waited_for(server: Misbehaving) -> None:
    server.plan(share=1.0, kinds=["busy"], wait=60, setting=STEP)
    with pytest.raises(SignalError) as caught:
        prm(server.url, deadline=5.0).scores(truth.responses(1))
    reason = "HTTP 429: busy on purpose (attempt 1 within 5 s, the last)"
    assert str(caught.value) == f"rollouts.jsonl:1: {server.url}/pooling: {reason}"
    assert server.count()["requests"] == 1


def test_deadline_ends_a_request_under_way(server: Misbehaving) -> None:
    server.plan(cursed=CURSE, curse="hang", setting=STEP)
    with pytest.raises(SignalError) as caught:
        prm(server.url, timeout=0.4, deadline=0.6).scores([CURSED])
    reason = "not scored within 0.6 s, last: no answer within 0.4 s"
    assert str(caught.value) == f"rollouts.jsonl:666: {server.url}: {reason}"


def test_requests_are_bounded_and_connections_reused(server: Misbehaving) -> None:
    server.plan(delay=0.02, setting=STEP)
    prm(server.url, concurrency=7).scores(truth.responses(150))
    count = server.count()
    assert count["most"] == 7
    assert count["connections"] == 7
    assert count["requests"] == 150


def test_fewer_responses_than_connections(server: Misbehaving) -> None:
    server.plan(setting=STEP)
    assert prm(server.url).scores([]) == []
    prm(server.url).scores(truth.responses(2))
    assert server.count()["connections"] <= 2


def test_results_come_as_they_are_done(server: Misbehaving) -> None:
    responses = [CURSED, *truth.responses(5)]
    server.plan(cursed=CURSE, curse="late", setting=STEP)
    order = [index for index, _ in prm(server.url, timeout=5.0).stream(responses)]
    assert order[-1] == 0
    assert sorted(order) == list(range(6))


@pytest.mark.timeout(25)  # less than the 30 seconds that the request under way would take
@pytest.mark.parametrize("end", ["close", "throw", "drop", "failure"])
def test_stopping_leaves_nothing_behind(server: Misbehaving, end: str) -> None:
    server.plan(delay=0.05, cursed=CURSE, curse="hang", setting=STEP)
    threads, before = threading.active_count(), sockets()
    stream = prm(server.url, timeout=30.0).stream([*truth.responses(200), CURSED])
    assert [len(next(stream)) for _ in range(5)] == [2] * 5
    assert threading.active_count() == threads + 1
    if end == "close":
        stream.close()
    elif end == "throw":
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
    elif end == "drop":
        del stream
    else:
        server.plan(fail=[404, "gone", {}])
        with pytest.raises(SignalError, match=r"HTTP 404: gone\Z"):
            list(stream)
    assert (threading.active_count(), sockets()) == (threads, before)
    seen = server.count()["requests"]
    time.sleep(0.2)
    count = server.count()
    assert (count["requests"], count["running"], count["open"]) == (seen, 0, 0)
    assert seen < 200


def test_inside_a_running_event_loop(server: Misbehaving) -> None:
    server.plan(setting=STEP)
    responses = truth.responses(6)

    async def main() -> list[list[float]]:
        return prm(server.url).scores(responses)

    scores = asyncio.run(main())
    assert scores == [pytest.approx(truth.step_scores(r), abs=1e-12) for r in responses]


def test_two_streams_side_by_side(server: Misbehaving) -> None:
    server.plan(setting=STEP)
    one, two = truth.responses(20), truth.responses(20, seed=1)
    streams = [prm(server.url).stream(one), prm(server.url).stream(two)]
    pairs = list(zip(*streams, strict=True))
    assert {i: s for (i, s), _ in pairs}[3] == pytest.approx(truth.step_scores(one[3]), abs=1e-12)
    assert {i: s for _, (i, s) in pairs}[3] == pytest.approx(truth.step_scores(two[3]), abs=1e-12)


def test_key_goes_to_the_server_alone(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.plan(fail=[401, "Incorrect API key provided: sk-secret.", {}])
    signal = prm(server.url, api_key_env="MY_KEY")
    with pytest.raises(SignalError) as caught:
        signal.scores(truth.responses(1))
    assert server.count()["headers"]["authorization"] == "Bearer sk-secret"
    said = "HTTP 401: Incorrect API key provided: ***."
    assert str(caught.value) == f"rollouts.jsonl:1: {server.url}/pooling: {said}"
    assert "sk-secret" not in json.dumps(signal.identity) + repr(signal)


def test_missing_key(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(SettingError) as caught:
        prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))
    reason = "no environment variable of this name holds a key"
    line = f"api_key_env: {reason} (the name is not shown: it may be the key)"
    assert str(caught.value) == line
    assert server.count()["requests"] == 0


def test_identity_is_what_is_asked_not_how() -> None:
    one = prm("http://a:1")
    assert one.identity == replace(one, url="http://b:2", timeout=9.0, concurrency=3).identity
    others = [replace(one, model="m"), replace(one, revision="r"), replace(one, protocol="pure")]
    others += [replace(one, tokenizer=truth.tokenizer(truth.ALPHABET[::-1]))]
    assert all(other.identity != one.identity for other in others)
    assert json.loads(json.dumps(one.identity)) == one.identity


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"url": "localhost:8000"}, "url: expected an http:// or https:// address, got "),
        ({"url": "http://h:99999"}, "url: expected an http:// or https:// address, got "),
        ({"model": ""}, "model: expected a string that is not empty, got "),
        ({"concurrency": 0}, "concurrency: expected a whole number of at least 1, got "),
        ({"timeout": 0}, "timeout: expected a number above 0, got "),
        ({"attempts": 0}, "attempts: expected a whole number of at least 1, got "),
    ],
)
def test_bad_setting(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as caught:
        ServedPRM(**{"url": "http://h", "model": "m", "protocol": "pure"} | settings)
    assert str(caught.value) == f"{line}{next(iter(settings.values()))!r}"


def test_absent_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepcredit.requires.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        prm("http://h")
    line = (
        "httpx: not installed; it comes with the extra signals: pip install 'stepcredit[signals]'"
    )
    assert str(caught.value) == line
