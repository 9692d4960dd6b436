"""How much memory and disk a recipe takes: the shapes and settings that the estimate reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl import ModelConfig, get_peft_config

from stepcredit.engines.trl.run_limits import trained_bytes
from stepcredit.errors import StepCreditError, first_line
from stepcredit.launch.memory_estimate import (
    GIB,
    HALF,
    ModelShape,
    TrainingPlan,
    estimate_memory,
)
from stepcredit.launch.recipe import Recipe
from stepcredit.launch.recipe_memory import trl_plan
from stepcredit.signals.models.local_model import LocalModel
from stepcredit.signals.signal import signals_in

FORMULA = (
    "  by: weights P b / G, gradients T t / G, Adam 2 T t / G; reference P b / G, scorers 2 P;",
    "  P parameters of b bytes, T trained ones of t bytes, G GPUs that share them; see",
    "  stepcredit.launch.memory_estimate for copies, activations, logits and the sampler",
)


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


def memory_lines(config: Any, recipe: Recipe, prompt: int, signal: Any) -> list[str]:
    """The estimate of memory on one GPU, with its formula.

    Args:
        config: of the policy.
        recipe: the keys.
        prompt: the most tokens of a prompt.
        signal: the process signals.
    """
    try:
        plan = _plan(config, recipe, prompt, signal)
        found = estimate_memory(plan)
    except StepCreditError as error:
        return [f"memory: not estimated: {error}"]
    shown = ", ".join(
        f"{name} {size / GIB:.2f}" for name, size in found.parts.items() if size >= GIB / 1000
    )
    return [
        f"memory of one GPU, estimated: {found.sampling / GIB:.2f} GiB while sampling, "
        f"{found.updating / GIB:.2f} while updating, of {plan.gpu_bytes / GIB:.0f}",
        f"  parts: {shown or 'each below 0.001'}",
        *FORMULA,
    ]


def _plan(config: Any, recipe: Recipe, prompt: int, signal: Any) -> TrainingPlan:
    training, model = recipe.training, recipe.model
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
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
        gpus=int(os.environ.get("WORLD_SIZE", "1")) if _shards(training) else 1,
        shape_of=lambda _: ModelShape.of(config.get_text_config().to_dict()),
        gpu_bytes=gpu or 80 * GIB,
    )
    return replace(plan, scorers=tuple(_scorers(signal)))


def _shards(training: Any) -> bool:
    """Whether processes share the weights, by TRL's keys or by accelerate's own config."""
    by_launcher = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    return bool(training.fsdp or training.deepspeed) or by_launcher


def _scorers(signal: Any) -> Iterator[ModelShape]:
    """The shapes of the models that signals run in this process."""
    for outer in signals_in(signal):
        for each in outer.walk():
            if isinstance(each, LocalModel) and isinstance(each.model, str):
                try:
                    config = AutoConfig.from_pretrained(each.model, trust_remote_code=False)
                except (OSError, ValueError) as error:
                    raise StepCreditError(first_line(error), field=each.name) from error
                yield ModelShape.of(config.get_text_config().to_dict())
