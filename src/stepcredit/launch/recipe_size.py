"""How much memory and disk a recipe takes: the shapes and settings that the estimate reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl import ModelConfig, get_peft_config

from stepcredit.engines.trl.run_limits import trained_bytes
from stepcredit.errors import StepCreditError, first_line
from stepcredit.launch.memory_estimate import (
    GIB,
    HALF,
    SINGLE,
    ModelShape,
    TrainingPlan,
    estimate_memory,
)
from stepcredit.launch.recipe import Recipe
from stepcredit.signals.models.local_model import LocalModel
from stepcredit.signals.signal import signals_in

FORMULA = (
    "  by: weights P b / G, gradients T t / G, Adam 2 T t / G; reference P b / G, scorers 2 P;",
    "  P parameters of b bytes, T trained ones of t bytes, G GPUs that share them; see",
    "  stepcredit.launch.memory_estimate for copies, activations, logits and the sampler",
)


def checkpoint_weights(config: Any, model: ModelConfig) -> int | None:
    """Bytes of the weights that a recipe trains, without loading them.

    Args:
        config: of the policy.
        model: the recipe's keys of the model.

    Returns:
        None: transformers has no language model of this config.
    """
    try:
        with torch.device("meta"):
            policy = AutoModelForCausalLM.from_config(config, dtype=_dtype(config, model))
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
    shards = bool(training.fsdp or training.deepspeed)
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    beside = training.use_vllm and training.vllm_mode == "colocate"
    length = prompt + (training.max_completion_length or 0)
    return TrainingPlan(
        policy=ModelShape.of(config.get_text_config().to_dict()),
        tokens=max(1, training.per_device_train_batch_size * length),
        gpus=int(os.environ.get("WORLD_SIZE", "1")) if shards else 1,
        weight_bytes=HALF if _dtype(config, model).itemsize == HALF else SINGLE,
        adapter_rank=model.lora_r if model.use_peft else 0,
        recomputes=training.gradient_checkpointing,
        reference=training.beta > 0 and not model.use_peft,
        scorers=tuple(_scorers(signal)),
        gpu_bytes=gpu or 80 * GIB,
        sampler_share=training.vllm_gpu_memory_utilization if beside else 0.0,
        sampler_gpus=training.vllm_tensor_parallel_size,
        sampler_sleeps=training.vllm_enable_sleep_mode,
    )


def _scorers(signal: Any) -> Iterator[ModelShape]:
    """The shapes of the models that signals run in this process."""
    for outer in signals_in(signal):
        for each in outer.walk():
            if isinstance(each, LocalModel) and isinstance(each.model, str):
                try:
                    config = AutoConfig.from_pretrained(each.model)
                except (OSError, ValueError) as error:
                    raise StepCreditError(first_line(error), field=each.name) from error
                yield ModelShape.of(config.get_text_config().to_dict())
