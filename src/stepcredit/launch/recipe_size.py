"""How much memory and disk a recipe takes: the shapes and settings that the estimate reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl import ModelConfig, get_peft_config

from stepcredit.engines.preflight.memory_estimate import HALF, ModelShape, TrainingPlan
from stepcredit.engines.preflight.memory_lines import memory_of_gpu
from stepcredit.engines.preflight.memory_plans import trl_plan
from stepcredit.engines.trl.run_limits import trained_bytes
from stepcredit.errors import StepCreditError, first_line
from stepcredit.launch.recipe import Recipe
from stepcredit.signals.models.local_model import LocalModel
from stepcredit.signals.signal import distinct_signals


def checkpoint_weights(
    config: Any, model: ModelConfig, trust_remote_code: bool = False
) -> int | None:
    """Bytes of the weights that a recipe trains, without loading them.

    Args:
        config: of the policy.
        model: the recipe's keys of the model.
        trust_remote_code: whether code that comes with the policy may run.

    Returns:
        None: transformers has no language model of this config.
    """
    try:
        with torch.device("meta"):
            policy = AutoModelForCausalLM.from_config(
                config, dtype=_dtype(config, model), trust_remote_code=trust_remote_code
            )
            adapters = get_peft_config(model)
            if adapters is not None:
                from peft import get_peft_model

                policy = get_peft_model(policy, adapters)
    except Exception:  # of any architecture's own code
        return None
    return trained_bytes(policy)


def _dtype(config: Any, model: ModelConfig) -> torch.dtype:
    named = getattr(torch, str(model.dtype), None)
    own = getattr(config, "dtype", None) if model.dtype == "auto" else named
    return own if isinstance(own, torch.dtype) else torch.float32


def recipe_plan(config: Any, recipe: Recipe, prompt: int, signal: Any) -> TrainingPlan:
    """What the memory of a recipe depends on.

    Args:
        config: of the policy.
        recipe: the keys.
        prompt: the most tokens of a prompt.
        signal: the process signals.

    Raises:
        StepCreditError: a model whose shape is not known.
    """
    training, model = recipe.training, recipe.model
    half = _dtype(config, model).itemsize == HALF
    keys = {
        **vars(training),
        **vars(model),
        "max_prompt_length": max(1, prompt),
        "dtype": "bfloat16" if half else "float32",
        "process_signal_fields": None,
    }
    plan = trl_plan(
        keys,
        gpus=int(os.environ.get("WORLD_SIZE", "1")) if shares_weights(training) else 1,
        shape_of=lambda _: ModelShape.of(config.get_text_config().to_dict()),
        gpu_bytes=memory_of_gpu(),
    )
    return replace(plan, scorers=tuple(_scorers(signal)))


def shares_weights(training: Any) -> bool:
    """Whether processes share the weights, by TRL's keys or by accelerate's own config."""
    by_launcher = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    return bool(training.fsdp or training.deepspeed) or by_launcher


def _scorers(signal: Any) -> Iterator[ModelShape]:
    """The shapes of the models that signals run in this process."""
    for each in distinct_signals(signal):
        if isinstance(each, LocalModel) and isinstance(each.model, str):
            try:
                config = AutoConfig.from_pretrained(each.model, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise StepCreditError(first_line(error), field=each.name) from error
            yield ModelShape.of(config.get_text_config().to_dict())
