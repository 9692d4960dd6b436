"""Rewards as TRL calls them, and rewards of one's own."""

from __future__ import annotations

import pickle
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepcredit.errors import RolloutError, SettingError
from stepcredit.rewards import (
    Reward,
    TRLReward,
    register_reward,
    reward,
    rewards,
)
from stepcredit.rewards.adapters import completion_text


def chat(content: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content}]


class Trainer(SimpleNamespace):
    """What TRL's `_calculate_rewards` takes from its trainer."""

    def __init__(self, functions: list[Any]) -> None:
        from trl.trainer.utils import get_callable_name

        super().__init__(
            accelerator=SimpleNamespace(device="cpu", is_main_process=True),
            args=SimpleNamespace(report_to=[]),
            state=SimpleNamespace(global_step=0),
            reward_funcs=functions,
            reward_func_names=[get_callable_name(function) for function in functions],
            reward_processing_classes=[None] * len(functions),
            environments=None,
            metrics=defaultdict(list),
        )

    def _log_completion_extra(self, column: str, values: list[Any]) -> None: ...

    def _log_metric(self, name: str, value: float) -> None:
        self.metrics[name].append(value)


def calculated(functions: list[Any], rows: list[dict[str, Any]], completions: list[Any]) -> Any:
    """TRL's own code on our reward functions: rewards, names and metrics."""
    grpo = pytest.importorskip("trl.trainer.grpo_trainer")
    trainer = Trainer(functions)
    prompts = [row["prompt"] for row in rows]
    ids = [[1, 2]] * len(rows)
    found = grpo.GRPOTrainer._calculate_rewards(trainer, rows, prompts, completions, ids)
    return found, trainer.reward_func_names, dict(trainer.metrics)


ROWS = [
    {"prompt": "1/2?", "answer": "1/2", "level": 1},
    {"prompt": "1/2?", "answer": "1/2", "level": 1},
    {"prompt": "7?", "answer": "7", "level": None},
]
TEXTS = [r"<think>a</think> \boxed{0.5}", r"\boxed{0.4}", "7"]


@pytest.mark.parametrize("form", ["text", "chat", "parts"])
def test_trl_calls_them(form: str) -> None:
    shapes = {
        "text": str,
        "chat": chat,
        "parts": lambda text: chat([{"type": "text", "text": text}]),
    }
    completions = [shapes[form](text) for text in TEXTS]
    functions = [TRLReward("maths"), TRLReward("format", template="think-boxed")]
    found, names, metrics = calculated(functions, ROWS, completions)
    assert found.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert found.dtype == torch.float32
    assert names == ["maths", "format"]
    assert metrics == {"maths/timed_out": [0.0], "maths/no_answer": [pytest.approx(1 / 3)]}


def test_trl_is_told_the_row_at_fault() -> None:
    rows = [*ROWS[:2], {"prompt": "7?", "answer": None, "level": 2}]
    with pytest.raises(RolloutError) as caught:
        calculated([TRLReward("maths")], rows, TEXTS)
    assert str(caught.value) == "row 2: answer: missing: the reward needs it"


def test_trl_reward_functions_are_pickled() -> None:
    copy = pickle.loads(pickle.dumps(TRLReward("exact", answer="solution")))
    assert copy.__name__ == "exact"
    assert copy(prompts=["q"], completions=["42"], solution=["42"]) == [1.0]


def test_the_last_assistant_message_is_the_response() -> None:
    said = [
        {"role": "assistant", "content": "5"},
        {"role": "tool", "content": "6"},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "8"},
    ]
    assert completion_text(said) == "7"
    assert completion_text([{"role": "assistant", "content": None}]) == ""
    assert completion_text([]) == ""


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
        "read: expected one of boxed, answer-tag, hash, whole, got 'box'",
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
