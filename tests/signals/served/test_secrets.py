"""An API key reaches its server alone: it stands in no message, `repr`, identity or log."""

from __future__ import annotations

import html
import json
import logging
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving
from tests.signals.served.test_client import prm

from stepcredit.errors import SettingError, SignalError
from stepcredit.signals.models.ratios import Distillation
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.secrets import Redactor
from stepcredit.signals.served.teacher import ServedLogProbs

KEY = "sk-Pr0j/9+aB\"cd'ef\\gh&Zz=="
PIECES = [KEY[i : i + 8].lower() for i in range(len(KEY) - 7)]
ENCODED: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "url": lambda key: quote(key, safe=""),
    "json": lambda key: json.dumps(key),
    "python": repr,
    "html": html.escape,
    "basic": lambda key: b64encode(f"user:{key}".encode()).decode(),
    "basic-2": lambda key: b64encode(f"me:{key}:x".encode()).decode(),
    "basic-3": lambda key: urlsafe_b64encode(f":{key}".encode()).decode(),
}


def chain(error: BaseException | None) -> str:
    """All that a traceback of an error and its causes prints, and what hangs on it besides."""
    texts = []
    while error is not None:
        texts += [*traceback.format_exception(error), repr(error), str(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MY_KEY", KEY)
    return KEY


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("status", [200, 401, 503])
@pytest.mark.parametrize("where", ["text", "message", "name", "header"])
def test_server_that_echoes_the_key(
    server: Misbehaving, key: str, encoding: str, status: int, where: str
) -> None:
    echoed = ENCODED[encoding](key)
    body = {
        "text": f"no: {echoed}",
        "message": json.dumps({"error": {"message": echoed}, "data": [{"data": echoed}]}),
        "name": json.dumps({echoed: 1, "data": [{"data": [echoed]}]}),
        "header": "{}",
    }[where]
    headers = {"Content-Encoding": echoed.replace("\\", "")} if where == "header" else {}
    server.plan(fail=[status, body, headers])
    with pytest.raises(SignalError) as caught:
        prm(server.url, api_key_env="MY_KEY", attempts=2).scores(truth.responses(1))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    printed = chain(caught.value)
    assert echoed not in printed
    assert not [piece for piece in PIECES if piece in printed.lower()]


@pytest.mark.parametrize("before", range(255, 305))
def test_key_at_the_cut_of_a_long_message(before: int) -> None:
    shown = Redactor(KEY)("x" * before + KEY + "y" * 300)
    assert len(shown) == 300
    assert "sk" not in shown


@pytest.mark.parametrize("before", range(19_970, 20_010))
def test_key_at_the_cut_of_what_is_looked_at(before: int) -> None:
    assert "sk" not in Redactor(KEY)(" " * before + KEY + "y" * 300)


@pytest.mark.parametrize("short", ["a", "EMPTY", "sk-1234"])
def test_short_key_is_hidden_as_it_is_spelled(short: str) -> None:
    shown = Redactor(short)(f"wrong: {short} {quote(short)} (none)")
    assert short not in shown
    assert shown.startswith("wrong: ***") or short == "a"


def test_message_without_the_key_is_unchanged() -> None:
    said = "This model's maximum context length is 4096 tokens; sk-Pr0j is a prefix of 7 letters."
    assert Redactor(KEY)(said) == Redactor(None)(said) == said


def test_vocabulary_of_a_server_that_echoes_the_key(server: Misbehaving, key: str) -> None:
    alphabet = [key if letter == "o" else letter for letter in truth.ALPHABET]
    server.plan(setting={"alphabet": alphabet})
    teacher = ServedLogProbs(server.url, "big", api_key_env="MY_KEY")
    with pytest.raises(SignalError) as caught:
        teacher.scores([truth.response("?", ["So."], name="r.jsonl:9")])
    token = truth.ALPHABET.index("o")
    line = f"r.jsonl:9: token 1 ({token}) is 'o' to the policy and '***' to big: another vocabulary"
    assert str(caught.value) == line


def test_library_that_prints_the_key(server: Misbehaving, key: str) -> None:
    server.plan(fail=[302, "", {"Location": f"http://[{key.replace(chr(92), '')}"}])
    with pytest.raises(SignalError) as caught:
        prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))
    assert not [piece for piece in PIECES if piece in chain(caught.value).lower()]


@pytest.mark.parametrize("around", ["{}\n", " {}", "\r\n{}\r\n", "\t{} \n"])
def test_space_around_the_key_is_left_out(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    monkeypatch.setenv("MY_KEY", around.format("sk-secret"))
    server.plan(setting={"step_tag_id": truth.TAG})
    prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))
    assert server.count()["headers"]["authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize("key", ["sk-sécret", "sk secret", "sk-\nsecret", "sk\x1b[1m", "sk-\udce9"])
def test_key_that_no_header_may_hold(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(SettingError) as caught:
        prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))
    reason = "the key in this environment variable holds a character that is no printable ASCII"
    assert str(caught.value) == f"api_key_env: {reason} (the key is not shown)"
    assert server.count()["requests"] == 0


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_blank_key_is_none(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, blank: str
) -> None:
    monkeypatch.setenv("MY_KEY", blank)
    with pytest.raises(SettingError, match="no environment variable of this name holds a key"):
        prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))


@pytest.mark.parametrize("given", ["sk-secret-key", "a b", "", "9a", "é", ["MY_KEY"], "A\n"])
def test_key_in_place_of_its_variable(given: Any) -> None:
    with pytest.raises(SettingError) as caught:
        prm("http://h", api_key_env=given)
    expected = "an environment variable's name (letters, digits and _) or null"
    shown = "another (not shown: it may hold a secret)"
    assert str(caught.value) == f"api_key_env: expected {expected}, got {shown}"


def test_key_that_looks_like_a_variable_is_not_shown(server: Misbehaving) -> None:
    signal = prm(server.url, api_key_env="hf_abcdefgh")
    with pytest.raises(SettingError) as caught:
        signal.scores(truth.responses(1))
    assert "hf_abcdefgh" not in chain(caught.value) + repr(signal) + json.dumps(signal.identity)


PARTS = "expected an address without user, query and fragment (api_key_env names where a key is)"


@pytest.mark.parametrize(
    "url",
    [
        "http://h?api_key=sk-secret",
        "http://h/v1?sk-secret",
        "http://h#sk-secret",
        "http://user:sk-secret@h",
        "http://sk-secret@h",
        "http://@h/sk-secret",
        "http://user:sk-secret@h:99999",
        "user:sk-secret@h",
        "ftp://u:sk-secret@h",
        "http://h\\@sk-secret",
    ],
)
@pytest.mark.parametrize("kind", ["prm", "judge", "teacher", "opd"])
def test_url_with_a_secret_is_refused_and_not_shown(url: str, kind: str) -> None:
    made: dict[str, Callable[[], Any]] = {
        "prm": lambda: prm(url),
        "judge": lambda: Judge(url, "m"),
        "teacher": lambda: ServedLogProbs(url, "m"),
        "opd": lambda: Distillation(teacher={"url": url, "model": "m"}),
    }
    with pytest.raises(SettingError) as caught:
        made[kind]()
    field = "teacher.url" if kind == "opd" else "url"
    shown = "another (not shown: it may hold a secret)"
    assert str(caught.value) == f"{field}: {PARTS}, got {shown}"
    assert "secret@" not in chain(caught.value)
    assert "sk-secret" not in chain(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://a b",
        "http://h/\n",
        "http://h\x00",
        "http://hé",
        "http://h/\u202e",
        "http://h/é",
        " ",
    ],
)
def test_url_that_is_no_printable_ascii(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        prm(url)
    expected = "an http:// or https:// address in ASCII, without spaces and control characters"
    assert str(caught.value) == f"url: expected {expected}, got {url!r}"
    assert str(caught.value).isprintable() or "é" in url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//h",
        "http://",
        "http://:80",
        "http:///p",
        "https:/h",
        "file:///etc",
        "http://[::1",
        "http://a..b",
        f"http://{'a' * 64}.com",
        "http://h:p",
        "http://h:-1",
        "http://h:99999",
    ],
)
def test_url_that_names_no_server(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        prm(url)
    assert str(caught.value) == f"url: expected an http:// or https:// address, got {url!r}"


def test_teacher_in_a_mapping_shows_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    where = {"url": "http://h", "model": "m", "api_key_env": "hf_abcdefgh"}
    signal = Distillation(teacher=where)
    assert "hf_abcdefgh" not in repr(signal) + json.dumps(signal.identity)
    assert signal.sources["teacher"] == ServedLogProbs(**where)


def test_redirect_is_not_followed(server: Misbehaving, key: str) -> None:
    server.plan(fail=[307, "elsewhere", {"Location": "http://127.0.0.2:1/pooling"}])
    with pytest.raises(SignalError) as caught:
        prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))
    line = f"rollouts.jsonl:1: {server.url}/pooling: HTTP 307: elsewhere"
    assert str(caught.value) == line
    assert server.count()["requests"] == 1


def test_no_cookie_is_kept(server: Misbehaving) -> None:
    server.plan(fail=[503, "", {"Set_Cookie": "a=b"}])
    with pytest.raises(SignalError):
        prm(server.url).scores(truth.responses(1))
    assert "cookie" not in server.count()["headers"]


def test_key_goes_through_no_proxy_to_a_plain_address(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(SignalError) as caught:
        prm("http://prm.invalid", api_key_env="MY_KEY").scores(truth.responses(1))
    assert "connection refused" not in str(caught.value)
    with pytest.raises(SignalError, match=r"/pooling: connection refused"):
        prm("http://prm.invalid").scores(truth.responses(1))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_used_on_the_machine_itself(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    server.plan(setting={"step_tag_id": truth.TAG})
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert prm(server.url.replace("127.0.0.1", host)).scores(truth.responses(1))


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://u:sk-secret@p",
        "http://u:sk-secret@p:port",
        pytest.param(
            "socks5://u:sk-secret@p",
            marks=pytest.mark.skipif(find_spec("socksio") is not None, reason="socksio is there"),
        ),
    ],
)
def test_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SignalError) as caught:
        prm("https://prm.invalid").scores(truth.responses(1))
    reason = "the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY names can't be used"
    assert str(caught.value) == f"rollouts.jsonl:1: https://prm.invalid/pooling: {reason}"
    assert "sk-secret" not in chain(caught.value)


@pytest.mark.parametrize(
    "proxy", ["127.0.0.1:99999", f"{'p' * 64}.com:1", "http://u:pw@127.0.0.1:9"]
)
def test_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SignalError) as caught:
        prm("https://prm.invalid").scores(truth.responses(1))
    assert str(caught.value).endswith("(attempt 3, the last)")
    assert "pw@" not in chain(caught.value)


def test_certificates_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "no-such-file.pem")
    with pytest.raises(SignalError) as caught:
        prm("https://h").scores(truth.responses(1))
    reason = "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names: No such file or directory"
    assert str(caught.value) == reason


def test_logs_hold_no_key(server: Misbehaving, key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.plan(setting={"step_tag_id": truth.TAG})
    prm(server.url, api_key_env="MY_KEY").scores(truth.responses(1))
    assert caplog.records
    assert not [piece for piece in PIECES if piece in caplog.text.lower()]
