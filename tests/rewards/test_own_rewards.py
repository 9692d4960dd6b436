"""Rewards by name, from several threads, and of one's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from stepcredit.engines.trl.reward_function import TRLReward
from stepcredit.errors import RolloutError, SettingError
from stepcredit.rewards import (
    Reward,
    register_reward,
    reward,
    rewards,
)


def test_one_reward_serves_many_threads() -> None:
    rule = reward("maths")
    with ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(rule, [rf"\boxed{{{n}/7}}"] * 5, [{"answer": "3/7"}] * 5)
            for n in range(20)
        ]
    assert [job.result() for job in asked] == [[float(n == 3)] * 5 for n in range(20)]


def test_the_rewards_there_are() -> None:
    names = {"exact", "format", "maths", "qa-em", "qa-f1", "qa-joint", "reasoning-gym"}
    assert names <= set(rewards())
    assert {name for name in names if rewards()[name].gives == "format"} == {"format"}


def test_a_reward_of_ones_own() -> None:
    @register_reward("brevity-of-a-test")
    @dataclass(frozen=True)
    class Brevity(Reward):
        longest: int = 5

        def rewards(self, texts: Any, facts: Any) -> list[float]:
            return [float(len(text) <= self.longest) for text in texts]

    assert reward("brevity-of-a-test", longest=3)(["abc", "abcd"]) == [1.0, 0.0]
    assert TRLReward("brevity-of-a-test")(prompts=["", ""], completions=["a", "bcdefg"]) == [1, 0]


BAD = {
    "an unknown reward": (lambda: reward("math"), "unknown reward 'math', did you mean 'maths'?"),
    "an unknown field": (
        lambda: reward("maths", limits=3),
        "limits: maths has no such field, did you mean 'limit'?",
    ),
    "a limit of nothing": (
        lambda: reward("maths", limit=0),
        "limit: expected a number above 0, got 0",
    ),
    "no such place": (
        lambda: reward("exact", read="box"),
        "read: expected one of any, number, boxed, answer-line, minerva, answer-tag, hash, "
        "whole, got 'box'",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_settings_are_told(kind: str) -> None:
    build, message = BAD[kind]
    with pytest.raises(SettingError) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize("answer", [True, ["9"], {"a": 1}, float("nan"), float("inf")])
def test_an_exact_answer_is_a_string_or_a_number(answer: object) -> None:
    """Anything else has more than one text."""
    with pytest.raises(RolloutError, match=r"^row 0: answer: expected a string or a number, got "):
        reward("exact")(["9"], [{"answer": answer}])


def test_texts_and_facts_must_match() -> None:
    with pytest.raises(RolloutError, match=r"^2 texts, but facts of 1$"):
        reward("exact")(["a", "b"], [{"answer": "a"}])
    with pytest.raises(RolloutError, match=r"^row 1: text: expected a string, got None$"):
        reward("format")(["a", None])  # type: ignore[list-item]
    assert reward("exact")([], []) == []
    assert reward("maths")([], []) == []
