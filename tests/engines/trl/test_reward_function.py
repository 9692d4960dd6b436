"""Rewards as TRL calls them."""

from __future__ import annotations

import pickle
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepcredit.engines.trl.reward_function import (
    TRLReward,
    check_gold_answers,
    text_of_completion,
)
from stepcredit.errors import EngineError, RolloutError


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


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("", "expected a number, a string or a list of them, got ''"),
        ("t(0,4]", r"can't be read as maths: 't\(0,4\]'"),
    ],
)
def test_an_unreadable_gold_answer_does_not_end_a_run(gold: Any, reason: str) -> None:
    rows = [*ROWS[:2], {"prompt": "7?", "answer": gold, "level": 2}]
    with pytest.warns(UserWarning, match=rf"maths: answer: {reason}: the reward of this row"):
        found, _, metrics = calculated([TRLReward("maths")], rows, TEXTS)
    assert found[:2, 0].tolist() == [1.0, 0.0]
    assert found[2, 0].isnan()
    assert metrics["maths/gold_answer_unreadable_outcome_unknown"] == [pytest.approx(1 / 3)]


def test_a_missing_column_is_an_error() -> None:
    with pytest.raises(RolloutError, match=r"^row 0: gold: missing: the reward needs it"):
        calculated([TRLReward("maths", answer="gold")], ROWS, TEXTS)


def test_unreadable_gold_answers_are_refused_before_training() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"answer": gold} for gold in ("1/2", None, "t(0,4]")])
    line = (
        "row 2: answer: can't be read as maths: 't(0,4]'; 1 of 2 gold answers are like this: "
        'reward_fields.maths.unreadable="unknown" leaves their outcomes unknown'
    )
    with pytest.raises(EngineError) as caught:
        check_gold_answers([len, TRLReward("maths")], rows)
    assert str(caught.value) == line
    check_gold_answers([TRLReward("maths", unreadable="unknown")], rows)
    check_gold_answers([TRLReward("maths")], rows.to_iterable_dataset())


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
    assert text_of_completion(said) == "7"
    assert text_of_completion([{"role": "assistant", "content": None}]) == ""
    assert text_of_completion([]) == ""


def test_the_old_import_path_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"is now stepcredit\.engines\.trl"):
        from stepcredit.rewards import TRLReward as Old
    assert Old is TRLReward


def test_a_gold_answer_of_none_is_an_unknown_outcome() -> None:
    scored = TRLReward("exact")
    given = {"prompts": ["?"] * 3, "completions": ["42", "42", "7"]}
    assert scored(**given, answer=["42", None, "42"]) == [1.0, None, 0.0]
    assert scored(**given, answer=[None] * 3) == [None] * 3
    with pytest.raises(RolloutError, match=r"^row 0: answer: missing"):
        scored(**given)
    with pytest.raises(RolloutError, match=r"^row 2: answer: "):
        scored(**given, answer=["42", None, object()])
    layout = TRLReward("format", template="boxed")
    assert layout(**given, answer=[None] * 3) == [0.0, 0.0, 0.0]
