"""Mutated answers of servers: the right scores, or one line without the API key.

Each case starts from the answer that the protocol's formulas give (see `answers.py`), changes it as
data, as text, as bytes or on the wire, and feeds the bytes to the real client through a network
that is not there.
"""

from __future__ import annotations

import gzip
import html
import json
import math
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any
from urllib.parse import quote

import httpcore
import httpx
import pytest
from tests.fuzz.cases import CASES, generator
from tests.signals.served import answers, truth

from stepcredit.errors import SignalError
from stepcredit.prm.served_prm import ServedPRM
from stepcredit.signals.responses import Response
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.served.teacher import ServedLogProbs

KEY = "sk-Pr0j/9+aB\"cd'ef\\gh&Zz=="
PIECES = [KEY[i : i + 8].lower() for i in range(len(KEY) - 7)]
LONGEST_LINE = 800
URL = "http://h"
TOKENIZER = truth.tokenizer()
COMMON = {"url": URL, "model": "m", "api_key_env": "FUZZ_KEY", "backoff": 0.0, "concurrency": 1}
TERSE = "{{ prompt }}|{{ number }}|{{ step }}"


@dataclass(frozen=True)
class Protocol:
    """A signal, its endpoint, and how its server was started.

    Args:
        make: the signal, but for its number of attempts.
        path: the endpoint.
        setting: of the server in `answers.py`.
        varies: whether lists of other lengths make sense: a judge's likely tokens.
    """

    make: Callable[..., Served]
    path: str
    setting: dict[str, Any] = field(default_factory=dict)
    varies: bool = False


PRM = partial(ServedPRM, protocol="qwen2.5-math-prm", tokenizer=TOKENIZER, **COMMON)
TEACHER = partial(ServedLogProbs, **COMMON)
JUDGE = partial(Judge, template=TERSE, **COMMON)
ALL = partial(JUDGE, per="response")
PROTOCOLS = {
    "pooling": Protocol(PRM, "/pooling", {"step_tag_id": truth.TAG}),
    "pooling-all": Protocol(partial(PRM, pooling="all"), "/pooling"),
    "vllm": Protocol(TEACHER, "/v1/completions", {"alphabet": truth.ALPHABET}),
    "sglang": Protocol(partial(TEACHER, api="sglang"), "/generate", {"alphabet": truth.ALPHABET}),
    "judge": Protocol(JUDGE, "/v1/chat/completions", {}, True),
    "judge-text": Protocol(partial(JUDGE, read="text"), "/v1/chat/completions", {}, True),
    "judge-votes": Protocol(
        partial(JUDGE, votes=3, temperature=1.0), "/v1/chat/completions", {}, True
    ),
    "judge-lines": Protocol(ALL, "/v1/chat/completions", {"lines": 2}, True),
    "judge-lines-text": Protocol(
        partial(ALL, read="text"), "/v1/chat/completions", {"lines": 2}, True
    ),
}
RESPONSE = truth.response("Why?", ["Because.\n\n", "So."], name="r.jsonl:5")


class Wire(httpcore.AsyncNetworkStream):
    """A connection on which each request gets the bytes that `answer` makes of its body."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.sent, self.waiting = b"", b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.sent += buffer
        head, end, body = self.sent.partition(b"\r\n\r\n")
        sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        if end and sizes and len(body) >= int(sizes[0].partition(b":")[2]):
            self.sent, self.waiting = b"", self.answer(body)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        found, self.waiting = self.waiting[:max_bytes], self.waiting[max_bytes:]
        return found

    async def aclose(self) -> None:
        self.waiting = b""

    def get_extra_info(self, info: str) -> Any:
        return None


class Network(httpcore.AsyncNetworkBackend):
    """A network in which every host answers so."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer

    async def connect_tcp(self, host: str, port: int, **_: Any) -> httpcore.AsyncNetworkStream:  # type: ignore[override]
        return Wire(self.answer)


class Transport(httpx.AsyncHTTPTransport):
    """httpx's transport over that network."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._pool = httpcore.AsyncConnectionPool(network_backend=Network(answer))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bytes]], None]:
    """Sets what every server answers."""
    client, context = httpx.AsyncClient, cache(httpx.create_ssl_context)
    monkeypatch.setenv("FUZZ_KEY", KEY)
    monkeypatch.setattr("stepcredit.signals.served.client.httpx.create_ssl_context", context)

    def use(answer: Callable[[bytes], bytes]) -> None:
        made = partial(client, transport=Transport(answer))
        monkeypatch.setattr("stepcredit.signals.served.client.httpx.AsyncClient", made)

    return use


def echoes(chance: random.Random) -> str:
    """The key as a server may spell it."""
    spellings = [
        KEY,
        KEY.upper(),
        f"wrong key: {KEY}",
        "x" * chance.randint(240, 310) + KEY,
        " " * chance.randint(0, 25_000) + KEY,
        KEY[chance.randint(0, 9) :],
        KEY[: -chance.randint(1, 9)],
        quote(KEY, safe=""),
        html.escape(KEY),
        json.dumps(KEY),
        repr(KEY),
        "Basic " + b64encode(("u" * chance.randint(0, 5) + ":" + KEY).encode()).decode(),
        f"\x1b[31m{KEY}\n{KEY}\ud800",
    ]
    return chance.choice(spellings)


def wrong(chance: random.Random) -> Any:
    """A value that is wrong wherever something is read."""
    values = [5.0, 1e300, 10**400, math.nan, math.inf, -math.inf, True, False, "", "0.5", [], {}]
    values += [[[]], {"": None}, [None], echoes(chance), [echoes(chance)], {echoes(chance): 1}]
    return chance.choice(values)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of all that lies in an answer."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def as_data(answer: Any, chance: random.Random, varies: bool) -> None:
    """Change an answer: one thing in it is replaced, dropped, doubled or wrapped.

    Where lists may be of any length (`varies`), nothing is dropped or doubled; a text becomes no
    other text: such answers would be others, and right.
    """
    container, key = chance.choice(list(places(answer)))
    old, new = container[key], wrong(chance)
    kind = chance.choice(["replace", "replace", "replace", "drop", "double", "wrap", "extra"])
    if kind == "extra" and isinstance(container, dict):
        container[echoes(chance)] = new
    elif kind == "wrap":
        container[key] = chance.choice([[old], {"data": old}, {str(key): old}])
    elif kind == "drop" and not varies and isinstance(container, list):
        del container[key]
    elif kind == "double" and not varies and isinstance(container, list):
        container.insert(key, old)
    else:
        container[key] = None if isinstance(old, str) and isinstance(new, str) else new


NEVER_IN_JSON = [0, 1, 7, 8, 11, 27, 31, 192, 245, 255]
"""Bytes that stand nowhere in JSON: others could make another number or word of one."""


def as_text(text: str, chance: random.Random) -> bytes:
    """JSON with something wrong in its letters or bytes."""
    cut = chance.randint(0, len(text))
    body = text.encode()
    changes: list[Callable[[], bytes]] = [
        lambda: body[:cut],
        lambda: body[:cut] + bytes(chance.choices(NEVER_IN_JSON, k=3)) + body[cut:],
        lambda: text.replace(":", ": 1e999, ", 1).encode(),
        lambda: ("[" * 100_000 + text).encode(),
        lambda: ("[" * 101 + text + "]" * 101).encode(),
        lambda: text.replace("0.", "9" * 5000 + ".", 1).encode(),
        lambda: text.encode(chance.choice(["utf-16", "utf-32", "utf-8-sig"])),
        lambda: text.replace("{", '{"data": 1, "choices": 2, "meta_info": 3, ', 1).encode(),
        lambda: gzip.compress(body),
        lambda: f"{echoes(chance)}".encode("utf-8", "replace"),
        lambda: b" " * 3_000_000 + body,
        lambda: b"",
    ]
    return chance.choice(changes)()


STATUSES = [200, 201, 204, 301, 302, 304, 307, 400, 401, 404, 408, 425, 429, 500, 502, 503, 599]


def header(chance: random.Random) -> tuple[bytes, bytes]:
    """A header that misleads, floods or echoes."""
    echoed = echoes(chance).encode("utf-8", "replace").replace(b"\n", b" ")[:5_000]
    some: list[tuple[bytes, bytes]] = [
        (b"Content-Encoding", chance.choice([b"gzip", b"br", b"identity", b"x", echoed])),
        (b"Content-Length", chance.choice([b"0", b"5", b"-1", b"9" * 30, echoed])),
        (b"Content-Type", chance.choice([b"text/html; charset=rot13", b"charset=nope", echoed])),
        (b"Transfer-Encoding", chance.choice([b"chunked", b"gzip, chunked", echoed])),
        (b"Location", chance.choice([b"http://other/", b"http://[", b"/", echoed])),
        (b"Retry-After", chance.choice([b"0", b"9" * 400, b"Thu, 01 Jan 99999 00:00 GMT", echoed])),
        (b"Set-Cookie", chance.choice([b"a=b; Expires=never", b"=", echoed])),
        (b"X-" + b"x" * chance.choice([1, 200_000]), echoed),
        (chance.choice([b"", b" ", b"\xff", b"a b"]), echoed),
        (b"Connection", b"close"),
    ]
    return chance.choice(some)


def on_the_wire(status: int, body: bytes, extra: list[tuple[bytes, bytes]]) -> bytes:
    """A whole answer's bytes."""
    lines = [b"HTTP/1.1 %d Some" % status]
    if not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in extra):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in extra)]) + (
        b"\r\n\r\n" + body
    )


@dataclass
class Mutated:
    """What a server answers in one case: every question of the case the same way."""

    protocol: Protocol
    surface: str
    case: int

    def __call__(self, question: bytes) -> bytes:
        chance = generator(self.surface, self.case)
        asked = json.loads(question)
        answer = answers.ENDPOINTS[self.protocol.path](asked, self.protocol.setting, None)
        answer = json.loads(json.dumps(answer))
        kind = chance.choice(["none", *["data"] * 6, "text", "text", "status", "header", "wire"])
        if kind == "data":
            as_data(answer, chance, self.protocol.varies)
        text = json.dumps(answer, ensure_ascii=chance.random() < 0.5)
        body = text.encode("utf-8", "surrogatepass")
        status, extra = 200, []
        if kind == "text":
            body = as_text(text, chance)
        if kind == "status":
            status = chance.choice(STATUSES)
            body = json.dumps({"error": {"message": echoes(chance)}}).encode()
        if kind in ("status", "header"):
            extra = [header(chance) for _ in range(chance.randint(1, 3))]
        whole = on_the_wire(status, body, extra)
        if kind == "wire":
            cut = chance.randint(0, len(whole))
            whole = chance.choice(
                [
                    whole[:cut],
                    whole[:cut] + chance.randbytes(5) + whole[cut:],
                    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + whole,
                    KEY.encode() + b"\r\n\r\n",
                    b"HTTP/1.1 200 " + KEY.encode() + b"\r\n" + KEY.encode() + b"\r\n\r\n",
                ]
            )
        return whole


def scored(protocol: Protocol, response: Response) -> list[float]:
    """A response's scores, and no patience."""
    return protocol.make(attempts=1, max_body=2_000_000).scores([response])[0]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_answer_is_read_right_or_refused(
    name: str, network: Callable[[Callable[[bytes], bytes]], None]
) -> None:
    protocol, surface = PROTOCOLS[name], f"server-answers/{name}"
    network(partial(whole_answer, protocol))
    right = scored(protocol, RESPONSE)
    lines = 0
    for case in range(CASES // len(PROTOCOLS)):
        network(Mutated(protocol, surface, case))
        try:
            scores = scored(protocol, RESPONSE)
        except SignalError as error:
            lines += 1
            check_line(str(error), case)
        except BaseException as error:
            raise AssertionError(f"case {case} of {surface}") from error
        else:
            assert scores == right, f"case {case} of {surface}"
    assert 0 < lines < CASES // len(PROTOCOLS)


def whole_answer(protocol: Protocol, question: bytes) -> bytes:
    """The answer as it should be."""
    answer = answers.ENDPOINTS[protocol.path](json.loads(question), protocol.setting, None)
    return on_the_wire(200, json.dumps(answer).encode(), [])


def check_line(line: str, case: int) -> None:
    """One line of a bearable length that names the response and holds no part of the key."""
    assert line.startswith("r.jsonl:5: "), f"case {case}: {line}"
    assert line.isprintable(), f"case {case}: {line!r}"
    assert len(line) <= LONGEST_LINE, f"case {case}: {line}"
    found = [piece for piece in PIECES if piece in line.lower()]
    assert not found, f"case {case}: {line}"
