"""Payloads in responses and in the facts of every reward: none runs, each is graded or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.security.payloads import PAYLOADS, filled

from stepcredit.errors import RolloutError
from stepcredit.rewards import reward, rewards

Facts = dict[str, Any]


def gym(**changes: Any) -> Facts:
    """A row of a data set whose grader evaluates the answer, with some of it changed."""
    metadata = {
        "source_dataset": "countdown",
        "numbers": [1, 2, 3],
        "target": 6,
        "expression": "1 + 2 + 3",
    }
    return {"entry": {"answer": "1 + 2 + 3", "metadata": metadata} | changes}


@dataclass(frozen=True)
class Case:
    """A reward, a response that it gives 1, and facts that hold a text somewhere."""

    text: str
    facts: Facts
    holding: Callable[[str], list[Facts]]
    settings: dict[str, Any] = field(default_factory=dict)


def answers(text: str) -> list[Facts]:
    return [{"answer": text}, {"answer": [text, "1"]}]


def qa(text: str) -> list[Facts]:
    return [{"answer": text}, {"answer": "Rome", "answer_aliases": [text]}]


def supported(text: str) -> list[Facts]:
    facts = [["Lilu", 0]]
    return [
        {"answer": text, "supporting_facts": facts},
        {"answer": "Rome", "supporting_facts": [[text, 0]]},
        {"answer": "Rome", "supporting_facts": {"title": [text], "sent_id": [0]}},
    ]


CASES = {
    "maths": Case(r"\boxed{0.5}", {"answer": r"\frac{1}{2}"}, answers, {"limit": 1.0}),
    "exact": Case("<answer>Rome</answer>", {"answer": "Rome"}, answers, {"read": "answer-tag"}),
    "qa-em": Case("<answer>Rome</answer>", {"answer": "Rome"}, qa),
    "qa-f1": Case("<answer>Rome</answer>", {"answer": "Rome"}, qa),
    "qa-joint": Case(
        "<answer>Rome</answer><support>Lilu | 0</support>",
        {"answer": "Rome", "supporting_facts": [["Lilu", 0]]},
        supported,
    ),
    "format": Case(
        "<think>a</think><answer>b</answer>", {}, lambda text: [{}], {"template": "think-answer"}
    ),
    "reasoning-gym": Case(
        "<answer>1 + 2 + 3</answer>",
        gym(),
        lambda text: [
            gym(answer=text),
            gym(metadata=gym()["entry"]["metadata"] | {"expression": text}),
            gym(metadata={"source_dataset": text}),
        ],
        {"limit": 2.0},
    ),
}


def layouts(payload: str) -> list[str]:
    """A payload as the whole response, and where each reader looks for the answer."""
    return [
        payload,
        rf"\boxed{{{payload}}}",
        f"<think>{payload}</think><answer>{payload}</answer><support>{payload}</support>",
        f"#### {payload}",
    ]


def test_every_reward_is_here() -> None:
    ours = {name for name, cls in rewards().items() if cls.__module__.startswith("stepcredit.")}
    assert set(CASES) == ours
    assert sum(map(len, PAYLOADS.values())) >= 200


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that must never exist, and a folder in which nothing may be made."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return tmp_path / "canary"


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("name", CASES)
def test_a_response_runs_nothing(name: str, kind: str, canary: Path) -> None:
    case = CASES[name]
    rule = reward(name, **case.settings)
    texts = [text for payload in filled(canary)[kind] for text in layouts(payload)]
    before = dict(os.environ)
    grades = rule([*texts, case.text], [case.facts] * (len(texts) + 1))
    assert all(0 <= grade <= 1 for grade in grades)
    assert grades[-1] == 1.0, "what is right is still right behind the payloads"
    untouched(canary, before)


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("name", CASES)
def test_a_fact_runs_nothing(name: str, kind: str, canary: Path) -> None:
    case = CASES[name]
    rule = reward(name, **case.settings)
    before = dict(os.environ)
    for payload in filled(canary)[kind]:
        for facts in case.holding(payload):
            with suppress(RolloutError):
                (grade,) = rule([case.text], [facts])
                assert 0 <= grade <= 1
    assert rule([case.text], [case.facts]) == [1.0]
    untouched(canary, before)


def untouched(canary: Path, environment: dict[str, str]) -> None:
    assert not canary.exists()
    assert os.listdir() == []
    assert dict(os.environ) == environment
