"""A tiny policy on the arithmetic task, and trainers on it."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from datasets import Dataset
from tests.engines.trl.on_cpu import ON_CPU
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

import stepcredit as sc
from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.lab.arithmetic import ARITHMETIC, build_tokenizer, problems
from stepcredit.lab.model import ModelSettings, build_model
from stepcredit.lab.rollout_grader import RolloutGrader

TINY = ModelSettings(width=16, layers=1, heads=1, feed_forward=16)
FORMAT_WEIGHT = 0.3


def in_threes(completion_ids: list[list[int]], **_: Any) -> list[tuple[list[int], list[float]]]:
    """A process signal that an untrained policy's text has too: a step each three tokens."""
    pairs = []
    for ids in completion_ids:
        ends = sorted({*range(2, len(ids), 3), len(ids) - 1})
        pairs.append((ends, [ids[end] / 20 for end in ends]))
    return pairs


def gradient(trainer: Any, inputs: dict[str, Any], **changes: Any) -> torch.Tensor:
    """The gradient of TRL's loss with respect to all weights, with some of the inputs changed."""
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, {**inputs, **changes}).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


@pytest.fixture
def task():
    signal = ARITHMETIC.signal("noisy", seed=0)
    return RolloutGrader(ARITHMETIC, build_tokenizer(), signal, FORMAT_WEIGHT)


@pytest.fixture
def config(tmp_path):
    """A maker of GRPOConfig: 2 prompts x 4 completions, 2 minibatches."""

    def make(**changes: Any) -> GRPOConfig:
        settings = {
            "output_dir": str(tmp_path),
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "steps_per_generation": 2,
            "num_generations": 4,
            "max_completion_length": 12,
            "learning_rate": 1e-2,
            "logging_steps": 2,
        }
        return GRPOConfig(**{**ON_CPU, **settings, **changes})

    return make


@pytest.fixture
def make_trainer(task, config):
    """A maker of trainers; keywords of StepCreditGRPOTrainer override, `args` are GRPOConfig's.

    `config` is a whole config instead.
    """
    grpo_config = config

    def make(
        args: dict[str, Any] | None = None, *, config: Any = None, **changes: Any
    ) -> StepCreditGRPOTrainer:
        torch.manual_seed(0)
        prompts = [{"prompt": p.prompt} for p in problems(16)]
        settings = {
            "model": build_model(task.tokenizer, TINY),
            "reward_funcs": task.reward_functions(),
            "args": grpo_config(**(args or {})) if config is None else config,
            "train_dataset": Dataset.from_list(prompts),
            "processing_class": task.tokenizer,
            "method": sc.PASS(weights=(1.0, 1.0, 0.3), clip=5.0, gate=False),
            "process_signal": in_threes,
            "outcome_reward": "accuracy",
            "format_reward": "format_reward",
            "preflight": False,  # rewards and signals here are made for the batch alone
        }
        trainer = StepCreditGRPOTrainer(**{**settings, **changes})
        trainer.remove_callback(PrinterCallback)
        return trainer

    return make


@pytest.fixture
def seen(monkeypatch):
    """The inputs of every call of TRL's own `_compute_loss` in training."""
    calls = []
    original = GRPOTrainer._compute_loss

    def spy(self, model, inputs):
        if model.training:
            calls.append(inputs)
        return original(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", spy)
    return calls
