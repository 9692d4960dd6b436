"""A served teacher's log-probs: of the policy's tokens, or an error that says which differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving
from tests.signals.served.truth import CURSE, CURSED

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.served.teacher import ServedLogProbs

PATHS = {"vllm": "/v1/completions", "sglang": "/generate"}
SETTING = {"alphabet": truth.ALPHABET}
both = pytest.mark.parametrize("api", PATHS)


def teacher(url: str, api: str, **settings: Any) -> ServedLogProbs:
    """Impatient, so that tests are fast."""
    quick = {"timeout": 1.0, "backoff": 0.01, "attempts": 3, "concurrency": 8}
    return ServedLogProbs(url, "big", api=api, **quick | settings)


@both
def test_each_token_has_its_own_log_prob(server: Misbehaving, api: str) -> None:
    server.plan(setting=SETTING)
    responses = truth.responses(40)
    signal = teacher(server.url, api)
    assert signal.scores(responses) == [pytest.approx(truth.token_scores(r)) for r in responses]
    tokens = signal(responses[:3])
    assert tokens.values.tolist() == pytest.approx(
        [score for response in responses[:3] for score in truth.token_scores(response)]
    )


@both
def test_faults_that_pass_change_nothing(server: Misbehaving, api: str) -> None:
    kinds = ["refuse", "error", "busy", "late", "drop", "add", "nan", "null", "torn", "garbage"]
    server.plan(share=0.5, kinds=[*kinds, "range", "ids", "shift"], setting=SETTING)
    responses = truth.responses(150)
    signal = teacher(server.url, api, timeout=5.0)
    assert signal.scores(responses) == [pytest.approx(truth.token_scores(r)) for r in responses]
    assert sum(server.count()["faults"].values()) > 50


LAST = len(CURSED.text) - 1
DOT = truth.ALPHABET.index(".")
BOTH = {
    "drop": f"the answer has {len(CURSED.text) + 5} prompt log-probs, expected {{size}}",
    "add": f"the answer has {len(CURSED.text) + 7} prompt log-probs, expected {{size}}",
    "nan": f"the log-prob of token {LAST} is nan, expected a finite number",
    "null": f"the log-prob of token {LAST} is None, expected a finite number",
    "range": f"the log-prob of token {LAST} is 0.5, expected a log-probability",
    "shift": "the first of the prompt log-probs is not null: they are shifted",
}
IDS = {
    "vllm": f"the answer has no entry for token {LAST} ({DOT})",
    "sglang": f"the answer has {DOT + 1} where token {LAST} is {DOT}",
}


@both
@pytest.mark.parametrize("kind", [*BOTH, "ids"])
def test_malformed_answer_stops_the_run_by_name(server: Misbehaving, api: str, kind: str) -> None:
    server.plan(cursed=CURSE, curse=kind, setting=SETTING)
    with pytest.raises(SignalError) as caught:
        teacher(server.url, api).scores([*truth.responses(5), CURSED])
    reason = {**BOTH, "ids": IDS[api]}[kind].format(size=len(CURSED.text) + 6)
    place = f"rollouts.jsonl:666: {server.url}{PATHS[api]}"
    assert str(caught.value) == f"{place}: {reason} (attempt 3, the last)"


@both
def test_minus_infinity_is_no_number(server: Misbehaving, api: str) -> None:
    server.plan(cursed=CURSE, curse="never", setting=SETTING)
    with pytest.raises(SignalError) as caught:
        teacher(server.url, api).scores([CURSED])
    line = f"rollouts.jsonl:666: the model big gives token {LAST} ({DOT}) probability 0"
    assert str(caught.value) == line


@both
def test_another_vocabulary_is_told_by_its_first_token(server: Misbehaving, api: str) -> None:
    other = list(truth.ALPHABET)
    e, o = other.index("e"), other.index("o")
    other[e], other[o] = "o", "e"
    server.plan(setting={"alphabet": other})
    response = truth.response("Why?", ["So it goes."], name="r.jsonl:9")
    with pytest.raises(SignalError) as caught:
        teacher(server.url, api).scores([response])
    line = f"token 1 ({o}) is 'o' to the policy and 'e' to big: another vocabulary"
    assert str(caught.value) == f"r.jsonl:9: {line}"
    scores = teacher(server.url, api, check_vocabulary=False).scores([response])
    assert scores == [pytest.approx(truth.token_scores(response))]


@both
def test_server_that_tells_no_texts_can_not_be_checked(server: Misbehaving, api: str) -> None:
    server.plan(setting={**SETTING, "silent": True})
    response = truth.response("Why?", ["So."], name="r.jsonl:9")
    with pytest.raises(SignalError) as caught:
        teacher(server.url, api).scores([response])
    reason = f"{server.url} gives no token's text, which check_vocabulary needs"
    assert str(caught.value) == f"r.jsonl:9: {reason}"
    assert teacher(server.url, api, check_vocabulary=False).scores([response])


@both
def test_special_tokens_and_parts_of_characters_fit_any(server: Misbehaving, api: str) -> None:
    alphabet = [*truth.ALPHABET, "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}", "</s>"]
    first = len(truth.ALPHABET)
    server.plan(setting={"alphabet": alphabet})
    a = truth.ALPHABET.index("a")
    ids, spans = (a, first, a, first + 1, first + 2), ((0, 1), (1, 3), (2, 3), (2, 3), (3, 3))
    response = Response("?", "a ☃", spans, token_ids=ids, prompt_ids=(5, 6))
    expected = [-((31 * id + 11 + sum(ids[:i])) % 1009) / 100 for i, id in enumerate(ids)]
    assert teacher(server.url, api).scores([response]) == [pytest.approx(expected)]


def test_vllm_is_asked_as_it_must_be(server: Misbehaving) -> None:
    server.plan(setting=SETTING)
    response = truth.response("a", ["b"])
    teacher(server.url, "vllm").scores([response])
    assert server.count()["last"] == {
        "model": "big",
        "prompt": [truth.ALPHABET.index("a"), truth.ALPHABET.index("b")],
        "max_tokens": 1,
        "temperature": 1.0,
        "prompt_logprobs": 0,
        "add_special_tokens": False,
    }


def test_sglang_is_asked_as_it_must_be(server: Misbehaving) -> None:
    server.plan(setting=SETTING)
    teacher(server.url, "sglang").scores([truth.response("a", ["b"])])
    assert server.count()["last"] == {
        "input_ids": [truth.ALPHABET.index("a"), truth.ALPHABET.index("b")],
        "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "return_text_in_logprobs": True,
    }


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"token_ids": None}, "token_ids: missing: this signal needs it"),
        ({"prompt_ids": None}, "prompt_ids: missing: this signal needs it"),
        (
            {"prompt_ids": ()},
            "prompt_ids: holds no token: nothing predicts the response's first one",
        ),
    ],
)
def test_response_without_ids_is_named(
    server: Misbehaving, change: dict[str, Any], line: str
) -> None:
    response = replace(truth.response("a", ["b"], name="r.jsonl:3"), **change)
    with pytest.raises(RolloutError) as caught:
        teacher(server.url, "vllm").scores([response])
    assert str(caught.value) == f"r.jsonl:3: {line}"


def test_other_temperature_is_refused_by_name() -> None:
    with pytest.raises(SettingError) as caught:
        teacher("http://h", "vllm", temperature=0.7)
    line = "temperature: a server gives log-probs only at temperature 1, got 0.7"
    assert str(caught.value) == line


def test_unknown_interface() -> None:
    with pytest.raises(SettingError) as caught:
        teacher("http://h", "tgi")
    assert str(caught.value) == "api: expected one of vllm, sglang, got 'tgi'"
