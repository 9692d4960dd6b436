"""The self-teacher in TRL: the policy in training reads the context, and the student never does."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tests.engines.trl.conftest import TINY

import stepcredit as sc
from stepcredit.engines import scoring_costs
from stepcredit.engines.trl import privileged_logprobs
from stepcredit.engines.trl.policy_logprobs import policy_forward
from stepcredit.engines.trl.privileged_logprobs import NO_CONTEXT, trained_teacher
from stepcredit.errors import EngineError, RolloutError
from stepcredit.lab.arithmetic import problems
from stepcredit.lab.model import build_model
from stepcredit.signals.combine import Affine
from stepcredit.signals.models.self_teacher import SelfTeacher
from stepcredit.signals.signal_registry import signal

TEMPLATE = "{{ answer }}={{ prompt }}"
ONES = {"method": sc.PASS(weights=(1.0, 0.0, 0.0)), "format_reward": None}


@pytest.fixture
def data():
    rows = [{"prompt": p.prompt, "answer": str(n % 7)} for n, p in enumerate(problems(16))]
    return Dataset.from_list(rows)


@pytest.fixture
def teacher():
    """A self-teacher of the answer, with a short template; digits stand in the questions."""

    def make(**changes):
        settings = {"template": TEMPLATE, "in_prompt": "allow", "temperature": 0.7}
        return SelfTeacher(**{**settings, **changes})

    return make


def by_hand(model, prompt, own, temperature=0.7):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
    logps = (logits.float() / temperature).log_softmax(-1)
    return logps[torch.arange(len(own)), torch.tensor(own)]


def policy(task):
    """A policy whose predictions differ."""
    torch.manual_seed(3)
    model = build_model(task.tokenizer, TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


@pytest.mark.parametrize("accumulation", [1, 2])
def test_both_sides_are_the_policy_in_training(make_trainer, task, data, teacher, accumulation):
    args = {
        "temperature": 0.7,
        "learning_rate": 0.0,
        "max_steps": 2,
        "gradient_accumulation_steps": accumulation,
    }
    trainer = make_trainer(
        args=args, model=policy(task), train_dataset=data, process_signal=teacher(), **ONES
    )
    trainer.train()
    batch, model = trainer.credited, trainer.model.eval()
    streams = batch.rollouts.streams["process"]
    sizes = [len(ids) for ids in batch.completion_ids]
    prompts = task.tokenizer([row["prompt"] for row in batch.inputs])["input_ids"]
    assert batch.prompt_ids == prompts
    for row, scores in enumerate(streams.values.float().split(sizes)):
        told = task.tokenizer(f"{batch.inputs[row]['answer']}={batch.inputs[row]['prompt']}")
        own = batch.completion_ids[row]
        with_context = by_hand(model, told["input_ids"], own)
        assert torch.allclose(scores, with_context - by_hand(model, prompts[row], own), atol=2e-4)
    assert float(streams.values.abs().max()) > 0.05
    assert trainer.state.log_history[0][NO_CONTEXT] == 0.0


def test_the_teachers_forward_is_measured_as_scoring_of_its_stream(
    make_trainer, data, teacher, monkeypatch
):
    clock = [0.0]

    def slow(*args):
        clock[0] += 64.0
        return policy_forward(*args)

    monkeypatch.setattr(privileged_logprobs, "policy_forward", slow)
    now = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr(scoring_costs, "time", now)
    args = {"temperature": 0.7, "max_steps": 1, "logging_steps": 1}
    trainer = make_trainer(args=args, train_dataset=data, process_signal=teacher(), **ONES)
    trainer.train()
    assert trainer.state.log_history[0]["stepcredit/scoring_seconds/process"] == 64.0


def test_the_loss_reads_the_students_prompts(make_trainer, task, data, teacher, seen):
    args = {"temperature": 0.7, "max_steps": 2}
    secret = data.map(lambda row: {"answer": "kkkkkk"})
    trainer = make_trainer(args=args, train_dataset=secret, process_signal=teacher(), **ONES)
    trainer.train()
    texts = [task.tokenizer.decode(ids) for inputs in seen for ids in inputs["prompt_ids"]]
    assert texts
    assert not any("kkkkkk" in text for text in texts)


def test_a_group_without_a_right_sibling_has_no_signal(make_trainer, task, data, teacher):
    def right(completion_ids, **_):
        """In the first group completion 1 alone is right, in the second none."""
        return [float(row == 1) for row in range(len(completion_ids))]

    own = teacher(
        context="sibling", absent="zero", template="{{ sibling }}={{ prompt }}", right_above=0.5
    )
    trainer = make_trainer(
        args={"temperature": 0.7, "max_steps": 1, "learning_rate": 0.0},
        model=policy(task),
        train_dataset=data,
        reward_funcs=[right],
        process_signal=own,
        outcome_reward="right",
        **ONES,
    )
    trainer.train()
    batch = trainer.credited
    assert len(batch.completion_ids) == 8
    sizes = [len(ids) for ids in batch.completion_ids]
    rows = batch.rollouts.streams["process"].values.split(sizes)
    told = [bool(row.any()) for row in rows]
    assert told == [True, False, True, True, False, False, False, False]
    assert trainer.state.log_history[0][NO_CONTEXT] == 5 / 8
    sibling = task.tokenizer.decode(batch.completion_ids[1], skip_special_tokens=True).strip()
    prompt = task.tokenizer(f"{sibling}={batch.inputs[2]['prompt']}")["input_ids"]
    own_ids = batch.completion_ids[2]
    model = trainer.model.eval()
    expected = by_hand(model, prompt, own_ids) - by_hand(model, batch.prompt_ids[2], own_ids)
    assert torch.allclose(rows[2].float(), expected, atol=2e-4)


def test_a_sibling_that_does_not_exist_ends_the_run_by_name(make_trainer, data, teacher):
    own = teacher(context="sibling", template="{{ prompt }}{{ sibling }}")
    trainer = make_trainer(
        args={"temperature": 0.7},
        train_dataset=data,
        reward_funcs=[lambda completion_ids, **_: [0.0] * len(completion_ids)],
        process_signal=own,
        outcome_reward=None,
        **ONES,
    )
    with pytest.raises(RolloutError) as caught:
        trainer.train()
    assert str(caught.value) == (
        "completion 0: sibling: no other response of the group is right; absent='zero' gives "
        "scores of 0"
    )


def test_an_answer_in_the_students_prompt_ends_the_run_by_name(make_trainer, data, teacher):
    shown = data.map(lambda row: {"answer": row["prompt"][-2]})  # of 3+4=, the 4
    own = teacher(in_prompt="refuse", template="{{ prompt }}{{ answer }}")
    trainer = make_trainer(
        args={"temperature": 0.7}, train_dataset=shown, process_signal=own, **ONES
    )
    with pytest.raises(RolloutError) as caught:
        trainer.train()
    found = re.fullmatch(
        r"completion 0: prompt: holds the answer '\d' already, so the student reads it too; "
        r"in_prompt='allow' lets it",
        str(caught.value),
    )
    assert found is not None


def test_a_prompt_longer_than_the_model_is_refused(make_trainer, data, teacher):
    own = teacher(template="{{ prompt }}{{ answer }}" + "k" * 5000)
    trainer = make_trainer(
        args={"temperature": 0.7}, train_dataset=data, process_signal=own, **ONES
    )
    with pytest.raises(EngineError, match=r"positions with its context, the model has"):
        trainer.train()


def test_another_temperature_than_the_trainers_is_refused(make_trainer, data, teacher):
    with pytest.raises(EngineError) as caught:
        make_trainer(train_dataset=data, process_signal=teacher(), **ONES)
    assert str(caught.value) == (
        "temperature: 1, but the signal self-teacher takes log-probs at 0.7: set both alike"
    )


def test_one_self_teacher_is_the_policy_in_training():
    told, frozen = signal("self-teacher"), signal("self-teacher", teacher="models/before")
    assert trained_teacher({"a": Affine(told, scale=2.0), "b": frozen}) is told
    assert trained_teacher({"b": frozen, "c": signal("opd", teacher="models/big")}) is None
    for other in (signal("self-teacher", context="critique"), signal("opd")):
        with pytest.raises(EngineError) as caught:
            trained_teacher({"a": told, "b": other})
        assert str(caught.value) == (
            "process_signal: 2 signals read teacher_logprobs, but the trainer computes those of "
            "one self-teacher: name a teacher for the others"
        )
