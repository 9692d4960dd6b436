"""What a recipe's keys, for TRL or verl, say about memory: the `TrainingPlan` of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepcredit.engines.preflight.memory_estimate import (
    GIB,
    HALF,
    PUBLISHED_SHAPES,
    SINGLE,
    ModelShape,
    TrainingPlan,
)
from stepcredit.errors import SettingError

MODEL_FIELDS = ("model", "teacher", "student", "base", "prm", "ref")
"""Fields of signals that name a model."""
APART = "separate_async"
"""The end of the names of verl's trainers whose sampler has GPUs of its own."""
Shapes = Callable[[str], ModelShape]


def published_shape(name: str) -> ModelShape:
    """The shape of a model of the recipes.

    Raises:
        SettingError: it is not among `PUBLISHED_SHAPES`.

    Example:
        >>> published_shape("Qwen/Qwen2.5-Math-7B").layers
        28
    """
    if name not in PUBLISHED_SHAPES:
        raise SettingError(f"its shape is not known: {name}", field="model")
    return PUBLISHED_SHAPES[name]


def local_models(fields: Any) -> list[str]:
    """The models that a signal's fields name and that are loaded beside the trainer.

    Args:
        fields: of one signal, or of several by stream; a mapping with a `url` names a served model.

    Example:
        >>> teacher = {"url": "http://localhost:8000", "model": "big"}
        >>> local_models({"teacher": teacher, "base": "small"})
        ['small']
    """
    if not isinstance(fields, Mapping) or "url" in fields:
        return []
    named = [fields[name] for name in MODEL_FIELDS if isinstance(fields.get(name), str)]
    return named + [name for value in fields.values() for name in local_models(value)]


def trl_plan(
    values: Mapping[str, Any],
    *,
    gpus: int,
    shape_of: Shapes = published_shape,
    gpu_bytes: int = 80 * GIB,
) -> TrainingPlan:
    """The plan of a recipe for TRL.

    Args:
        values: its keys; missing ones have TRL's defaults.
        gpus: processes, among which accelerate's FSDP shares the weights.
        shape_of: the shape of a model by name.
        gpu_bytes: memory of one GPU.

    Raises:
        SettingError: a model whose shape is not known.

    Example:
        >>> keys = {"model_name_or_path": "Qwen/Qwen2.5-Math-7B", "max_completion_length": 1024,
        ...         "max_prompt_length": 512, "per_device_train_batch_size": 2}
        >>> trl_plan(keys, gpus=8).tokens
        3072
    """
    adapters = values.get("lora_r", 16) if values.get("use_peft") else 0
    prompt = values.get("max_prompt_length") or values.get("vllm_max_model_length") or 0
    length = prompt + values.get("max_completion_length", 512)
    colocated = values.get("use_vllm") and values.get("vllm_mode", "colocate") == "colocate"
    return TrainingPlan(
        policy=shape_of(values["model_name_or_path"]),
        tokens=length * values.get("per_device_train_batch_size", 8),
        gpus=gpus,
        weight_bytes=HALF if values.get("dtype") in ("bfloat16", "float16") else SINGLE,
        adapter_rank=adapters,
        recomputes=values.get("gradient_checkpointing", True),
        reference=values.get("beta", 0.0) > 0 and not adapters,
        scorers=tuple(map(shape_of, local_models(values.get("process_signal_fields")))),
        gpu_bytes=gpu_bytes,
        sampler_share=values.get("vllm_gpu_memory_utilization", 0.3) if colocated else 0.0,
        sampler_gpus=values.get("vllm_tensor_parallel_size", 1),
        sampler_sleeps=values.get("vllm_enable_sleep_mode", False),
    )


def verl_plan(
    config: Mapping[str, Any], *, shape_of: Shapes = published_shape, gpu_bytes: int = 80 * GIB
) -> TrainingPlan:
    """The plan of a recipe for verl with FSDP, whose sampler sleeps while the policy is updated.

    Args:
        config: verl's whole config, or a recipe merged with those it is built on.
        shape_of: the shape of a model by name.
        gpu_bytes: memory of one GPU.

    Raises:
        SettingError: a model whose shape is not known.

    Example:
        >>> rollout = {"gpu_memory_utilization": 0.6, "tensor_model_parallel_size": 1}
        >>> parts = {"model": {"path": "Qwen/Qwen2.5-Math-7B"}, "rollout": rollout,
        ...          "actor": {"ppo_max_token_len_per_gpu": 16384}}
        >>> verl_plan({"actor_rollout_ref": parts, "trainer": {"nnodes": 2}}).gpus
        16
    """
    parts, trainer = config["actor_rollout_ref"], config["trainer"]
    actor, rollout, model = parts["actor"], parts["rollout"], parts["model"]
    adapters, data = model.get("lora_rank", 0), config.get("data", {})
    tokens = actor.get("ppo_max_token_len_per_gpu", 16_384)
    if not actor.get("use_dynamic_bsz", True):
        longest = data.get("max_prompt_length", 512) + data.get("max_response_length", 512)
        tokens = longest * (actor.get("ppo_micro_batch_size_per_gpu") or 1)
    apart = trainer.get("v1", {}).get("trainer_mode", "").endswith(APART)
    offloaded = parts.get("ref", {}).get("fsdp_config", {}).get("param_offload", False)
    return TrainingPlan(
        policy=shape_of(model["path"]),
        tokens=tokens,
        gpus=trainer.get("nnodes", 1) * trainer.get("n_gpus_per_node", 8),
        adapter_rank=adapters,
        recomputes=model.get("enable_gradient_checkpointing", True),
        whole_logits=not model.get("use_fused_kernels", False),
        reference=bool(actor.get("use_kl_loss")) and not adapters and not offloaded,
        gpu_bytes=gpu_bytes,
        sampler_share=0.0 if apart else rollout.get("gpu_memory_utilization", 0.5),
        sampler_gpus=rollout.get("tensor_model_parallel_size", 2),
        sampler_sleeps=rollout.get("free_cache_engine", True),
    )
