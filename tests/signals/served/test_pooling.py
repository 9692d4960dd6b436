"""A served reward model: scores by each protocol, and ten thousand responses with faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.prm.served_prm import ServedPRM
from stepcredit.signals.cache import Cached
from stepcredit.signals.signal_registry import signal

KINDS = ["refuse", "hang", "error", "busy", "late", "drop", "add", "nan", "null", "torn", "garbage"]
TOKENIZER = truth.tokenizer()
MANY = 10_000


def prm(url: str, protocol: str = "qwen2.5-math-prm", **settings: Any) -> ServedPRM:
    """A served model of the given protocol."""
    known = {"protocol": protocol, "tokenizer": TOKENIZER, "timeout": 2.0, "backoff": 0.01}
    return ServedPRM(url, "prm", **known | settings)


def test_ten_thousand_responses_with_faults(server: Misbehaving) -> None:
    server.plan(share=0.05, kinds=KINDS, setting={"step_tag_id": truth.TAG})
    responses = truth.responses(MANY)
    scores = prm(server.url, timeout=1.0).scores(responses)
    count = server.count()
    assert 400 < sum(count["faults"].values()) < 600
    assert set(count["faults"]) == set(KINDS)
    assert count["questions"] == MANY
    late = count["faults"]["late"]
    assert count["requests"] >= MANY + sum(count["faults"].values()) - late
    for response, found in zip(responses, scores, strict=True):
        assert found == pytest.approx(truth.step_scores(response), abs=1e-12)


def test_ten_thousand_responses_with_one_that_never_works(
    server: Misbehaving, tmp_path: Path
) -> None:
    plan = {"share": 0.05, "kinds": KINDS, "setting": {"step_tag_id": truth.TAG}}
    server.plan(**plan, cursed=truth.CURSE, curse="drop")
    responses = truth.responses(MANY)
    responses[1500] = truth.CURSED
    cached = Cached(prm(server.url, timeout=1.0, attempts=3), tmp_path / "scores.sqlite")
    given: dict[int, list[float]] = {}
    with pytest.raises(SignalError) as caught:
        given.update(cached.stream(responses))
    reason = "the answer has 1 rows of scores, expected 2 (attempt 3, the last)"
    assert str(caught.value) == f"rollouts.jsonl:666: {server.url}/pooling: {reason}"
    assert 1000 < len(given) < 3000
    assert 1500 not in given
    for index, found in given.items():
        assert found == pytest.approx(truth.step_scores(responses[index]), abs=1e-12)

    server.plan(setting={"step_tag_id": truth.TAG})
    some = responses[:2000]
    scores = cached.scores(some)
    assert scores == [pytest.approx(truth.step_scores(r), abs=1e-12) for r in some]
    assert server.count()["requests"] == 2000 - sum(index < 2000 for index in given)


def test_call_aligns_to_the_policys_tokens(server: Misbehaving) -> None:
    server.plan(setting={"step_tag_id": truth.TAG})
    responses = truth.responses(3)
    steps = prm(server.url)(responses)
    ends = [end - 1 for response in responses for end in response.steps or ()]
    assert steps.ends.tolist() == ends


def pure_scores(response: Any) -> list[float]:
    """PURE's input by hand: prompt, then each step without its blank line and a newline."""
    text, starts, scores = response.prompt, (0, *response.steps[:-1]), []
    for start, end in zip(starts, response.steps, strict=True):
        text += response.text[start:end].rstrip() + "\n"
        right = truth.value(text) % 997 / 997
        scores.append(right - (1 - right))
    return scores


@pytest.mark.parametrize("pooling", ["step", "all"])
def test_pure_is_read_at_newlines_between_minus_one_and_one(
    server: Misbehaving, pooling: str
) -> None:
    server.plan(setting={"step_tag_id": truth.NEWLINE} if pooling == "step" else {})
    response = truth.response("1 + 1?\nThink.", ["One.\nThen one.\n\n", "So 2.\n\n", "Two"])
    scores = prm(server.url, "pure", pooling=pooling).scores([response])
    assert scores == [pytest.approx(pure_scores(response), abs=1e-12)]


def test_tag_in_the_response_itself_shifts_nothing(server: Misbehaving) -> None:
    server.plan(setting={"step_tag_id": truth.TAG})
    response = truth.response("?", ["Right <extra_0> here.\n\n", "So 2."])
    assert prm(server.url).scores([response]) == [
        pytest.approx(truth.step_scores(response), abs=1e-12)
    ]


def test_request_is_what_vllm_takes(server: Misbehaving) -> None:
    server.plan(setting={"step_tag_id": truth.TAG})
    response = truth.response("1+1?", ["So 2.\n\n"])
    prm(server.url).scores([response])
    before, steps = truth.conversation(response)
    whole = f"{before}{steps[0]}<extra_0><|im_end|>\n"
    assert server.count()["last"] == {
        "model": "prm",
        "task": "token_classify",
        "input": TOKENIZER.encode(whole),
        "add_special_tokens": False,
        "use_activation": True,
        "encoding_format": "float",
    }


def test_server_started_for_another_pooling_is_told(server: Misbehaving) -> None:
    server.plan(setting={})
    response = truth.response("1+1?", ["So 2."], name="r.jsonl:1")
    tokens = len(TOKENIZER.encode("".join(truth.conversation(response)[0]))) + 8
    with pytest.raises(SignalError) as caught:
        prm(server.url, attempts=1).scores([response])
    reason = f"the answer has {tokens} rows of scores, expected 1 (attempt 1, the last)"
    assert str(caught.value) == f"r.jsonl:1: {server.url}/pooling: {reason}"


def test_empty_response(server: Misbehaving) -> None:
    server.plan(setting={"step_tag_id": truth.TAG})
    empty = truth.response("?", [" \n"], name="r.jsonl:4")
    with pytest.raises(RolloutError) as caught:
        prm(server.url).scores([empty])
    reason = "text: is empty: learned models score it high; empty='score' lets them"
    assert str(caught.value) == f"r.jsonl:4: {reason}"
    scores = prm(server.url, empty="score").scores([empty])
    assert scores == [pytest.approx(truth.step_scores(empty), abs=1e-12)]


def test_steps_read_at_different_tokens_need_all(server: Misbehaving) -> None:
    settings = {"protocol_settings": {"read": "step"}}
    responses = [replace(truth.response("?", ["ab.\n\n", "cd"]), name="r.jsonl:2")]
    with pytest.raises(SignalError) as caught:
        prm(server.url, "token-classifier", **settings).scores(responses)
    reason = "its steps are not read at one token: pooling='all' reads any"
    assert str(caught.value) == f"r.jsonl:2: {reason}"


def test_protocol_that_does_not_fit_a_response_names_it(server: Misbehaving) -> None:
    bare = truth.tokenizer([*truth.LETTERS, "<|im_start|>", "<|im_end|>"])
    bare.chat_template = None
    with pytest.raises(SignalError) as caught:
        prm(server.url, tokenizer=bare).scores(truth.responses(1))
    assert str(caught.value).startswith("rollouts.jsonl:1: qwen2.5-math-prm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["math-shepherd", "rlhflow", "skywork"])
def test_models_without_two_classes_are_refused(protocol: str) -> None:
    with pytest.raises(SettingError) as caught:
        prm("http://h", protocol)
    line = f"protocol: {protocol} has no two classes, whose probabilities /pooling gives"
    assert str(caught.value) == line


def test_by_name(server: Misbehaving) -> None:
    where = {"url": "http://h:1/", "model": "m", "protocol": "pure"}
    assert signal("prm-served", **where) == ServedPRM("http://h:1/", "m", protocol="pure")
    with pytest.raises(SettingError, match=r"\Aurl: prm-served needs it\Z"):
        signal("prm-served", model="m", protocol="pure")
