"""Payloads in texts, prompts and facts of every signal: none runs, each is scored or refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.security.payloads import PAYLOADS, filled
from tests.security.test_rewards import canary, untouched
from tests.signals import tiny_models
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving, process, server

from stepcredit.errors import StepCreditError
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import signal, signals
from stepcredit.signals.splitting import splitter

__all__ = ["canary", "process", "server"]

LONGEST = 100
"""Characters of a payload that the tiny models are given: their window is short."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model's folder, with a window for any of the texts."""
    folder = tmp_path_factory.mktemp("model")
    return tiny_models.save(folder, max_position_embeddings=4096)


def half(response: Response) -> list[float]:
    return [0.5] * len(response.step_texts)


LOCAL: dict[str, Callable[[str], Signal]] = {
    "logprobs": lambda model: signal("logprobs", model=model),
    "opd": lambda model: signal("opd", teacher=model, student=model, tokenizer=model),
    "g-opd": lambda model: signal(
        "g-opd", teacher=model, student=model, base=model, tokenizer=model
    ),
    "implicit": lambda model: signal("implicit", prm=model, ref=model, tokenizer=model),
    "answer-progress": lambda model: signal("answer-progress", model=model),
    "turn-progress": lambda model: signal("turn-progress", model=model),
    "self-teacher": lambda model: signal(
        "self-teacher", student=model, tokenizer=model, context="answer", in_prompt="allow"
    ),
    "monte-carlo": lambda model: signal(
        "monte-carlo", model=model, n=1, max_new_tokens=2, reward=lambda *_: 0.5
    ),
    "shared-prefix": lambda model: signal("shared-prefix"),
    "equations": lambda model: signal("equations"),
    "arithmetic": lambda model: signal("arithmetic"),
    "callable": lambda model: signal("callable", function=half),
    "hops": lambda model: signal("hops"),
    "difference": lambda model: signal("difference", signal="arithmetic"),
    "discounted": lambda model: signal("discounted", signal="arithmetic"),
    "cap-filler": lambda model: signal("cap-filler", signal="arithmetic"),
    "aggregate": lambda model: signal("aggregate", signal="arithmetic", splitter="sentence"),
    "affine": lambda model: signal("affine", signal="arithmetic"),
    "smooth": lambda model: signal("smooth", signal="arithmetic"),
    "clip": lambda model: signal("clip", signal="arithmetic"),
    "weighted": lambda model: signal("weighted", signals=["arithmetic", "equations"]),
}
SERVED: dict[str, Callable[[str], Signal]] = {
    "judge": lambda url: signal("judge", url=url, model="m", attempts=1),
    "prm-served": lambda url: signal(
        "prm-served",
        url=url,
        model="m",
        protocol="qwen2.5-math-prm",
        tokenizer=truth.tokenizer(),
        attempts=1,
    ),
    "logprobs-served": lambda url: signal("logprobs-served", url=url, model="m", attempts=1),
    "rubric": lambda url: signal("rubric", url=url, model="m", recipe="wrong-steps", attempts=1),
}
MODELS = (
    *("logprobs", "opd", "g-opd", "implicit", "self-teacher"),
    *("answer-progress", "turn-progress", "monte-carlo"),
)
"""The local signals that run a model."""
ELSEWHERE = {"prm": "a local reward model reads texts as `logprobs` and `prm-served` do"}


def test_every_signal_is_here() -> None:
    ours = {name for name, cls in signals().items() if cls.__module__.startswith("stepcredit.")}
    assert {*LOCAL, *SERVED, *ELSEWHERE} == ours


def responses(payload: str, tokenizer: Any = None) -> list[Response]:
    """A payload as a step among others, as the whole text, as the prompt and as each fact."""
    facts = {
        "answer": payload,
        "outcome": 1.0,
        "group": payload,
        "hops": [payload, [payload, "Rome"]],
        "evidences": [[payload, payload, payload]],
    }
    texts = [payload, f"1 + 1 = 2\n\n{payload}\n\n<<2/2=1>> {payload}=1"]
    found = [
        Response.of_text(prompt, text, tokenizer, prompt_ids=(1, 2), facts=facts)
        for prompt in ("?", payload)
        for text in texts
    ]
    return splitter("blank-line")(found)


def score(rule: Signal, batch: Sequence[Response]) -> None:
    """Scores for all steps or tokens, or one line for the response at fault."""
    for response in batch:
        try:
            (scores,) = rule.scores([response])
        except StepCreditError as error:
            assert "\n" not in str(error)  # noqa: PT017 - a refusal is one of two good ends
        else:
            assert len(scores) in (len(response.step_texts), response.num_tokens)


@pytest.mark.parametrize("kind", PAYLOADS)
def test_local_signals_run_nothing(kind: str, canary: Path, model: str) -> None:
    before = dict(os.environ)
    rules = {name: make(model) for name, make in LOCAL.items()}
    tokenizer = tiny_models.tokenizer()
    for payload in filled(canary)[kind]:
        for name, rule in rules.items():
            if name in ("equations", "arithmetic", "callable", "hops"):
                score(rule, responses(payload))
        batch = responses(payload[:LONGEST], tokenizer)[1:3]
        score(rules["shared-prefix"], batch)
    for name in MODELS:
        score(rules[name], batch)
    untouched(canary, before)


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("name", SERVED)
def test_served_signals_run_nothing(
    name: str, kind: str, canary: Path, server: Misbehaving
) -> None:
    """The server's alphabet is ASCII: the other characters of a payload are left out."""
    server.plan(setting={"step_tag_id": truth.TAG, "alphabet": truth.ALPHABET})
    before = dict(os.environ)
    rule = SERVED[name](server.url)
    for payload in filled(canary)[kind][::4]:
        known = "".join(letter for letter in payload[:LONGEST] if letter in truth.LETTERS)
        score(rule, [truth.response(known or "?", [f"{known}\n\n", known or "."])])
    untouched(canary, before)
