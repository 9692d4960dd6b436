"""What the keys of recipes say about memory, worked out by hand."""

from __future__ import annotations

import pytest

from stepcredit.engines.preflight.memory_estimate import (
    GIB,
    PUBLISHED_SHAPES,
    TrainingPlan,
    estimate_memory,
)
from stepcredit.engines.preflight.memory_lines import memory_lines
from stepcredit.engines.preflight.memory_plans import local_models, trl_plan, verl_plan
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.errors import SettingError

LARGE, SMALL = "Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-1.5B"


def test_trls_keys() -> None:
    keys = {
        "model_name_or_path": LARGE,
        "max_prompt_length": 1024,
        "max_completion_length": 2048,
        "per_device_train_batch_size": 4,
        "gradient_checkpointing": False,
        "beta": 0.001,
        "process_signal_fields": {"model": "Qwen/Qwen2.5-Math-PRM-7B", "protocol": "pure"},
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.5,
        "vllm_tensor_parallel_size": 2,
        "vllm_enable_sleep_mode": True,
    }
    large = PUBLISHED_SHAPES[LARGE]
    assert trl_plan(keys, gpus=8, gpu_bytes=40 * GIB) == TrainingPlan(
        policy=large,
        tokens=4 * 3072,
        gpus=8,
        recomputes=False,
        reference=True,
        scorers=(large,),
        gpu_bytes=40 * GIB,
        sampler_share=0.5,
        sampler_gpus=2,
        sampler_sleeps=True,
    )


def test_adapters_need_no_reference_and_a_server_no_memory_of_the_trainers() -> None:
    keys = {
        "model_name_or_path": SMALL,
        "dtype": "bfloat16",
        "use_peft": True,
        "lora_r": 32,
        "beta": 0.1,
        "max_completion_length": 100,
        "per_device_train_batch_size": 1,
        "use_vllm": True,
        "vllm_mode": "server",
        "process_signal_fields": {"teacher": {"url": "http://localhost:8000", "model": LARGE}},
    }
    assert trl_plan(keys, gpus=1) == TrainingPlan(
        policy=PUBLISHED_SHAPES[SMALL], tokens=100, weight_bytes=2, adapter_rank=32
    )


def test_verls_keys_and_defaults() -> None:
    parts = {
        "model": {"path": LARGE},
        "actor": {"use_kl_loss": True},
        "rollout": {},
        "ref": {},
    }
    config = {"actor_rollout_ref": parts, "trainer": {"nnodes": 2, "n_gpus_per_node": 4}}
    expected = TrainingPlan(
        policy=PUBLISHED_SHAPES[LARGE],
        tokens=16_384,
        gpus=8,
        whole_logits=True,
        reference=True,
        sampler_share=0.5,
        sampler_gpus=2,
        sampler_sleeps=True,
    )
    assert verl_plan(config) == expected
    parts["ref"] = {"fsdp_config": {"param_offload": True}}
    parts["model"]["use_fused_kernels"] = True
    parts["rollout"] = {"free_cache_engine": False, "tensor_model_parallel_size": 1}
    changed = verl_plan(config)
    assert (changed.reference, changed.whole_logits) == (False, False)
    assert (changed.sampler_sleeps, changed.sampler_gpus) == (False, 1)


def test_models_of_several_signals() -> None:
    fields = {"prm": {"model": "a"}, "teacher": {"teacher": "b", "base": "c"}}
    assert local_models(fields) == ["a", "b", "c"]
    assert local_models({"model": "a", "url": "http://localhost:8000"}) == []
    assert local_models(None) == []


def test_an_unknown_model_is_named() -> None:
    keys = {"model_name_or_path": "mine", "max_completion_length": 1}
    with pytest.raises(SettingError, match="model: its shape is not known: mine"):
        trl_plan(keys, gpus=1)


def test_shards_by_accelerates_own_config_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch --config_file recipes/fsdp.yaml` leaves TRL's key `fsdp` empty."""
    pytest.importorskip("trl")
    from transformers import Qwen2Config

    from stepcredit.launch.recipe import RecipeParser, read_recipe
    from stepcredit.launch.recipe_size import recipe_plan

    values, _ = RecipeParser().values(["--model_name_or_path", "mine", "--use_cpu", "true"])
    recipe = read_recipe(values | {"bf16": False, "dtype": "float32"})
    config = Qwen2Config(  # 3,584 x 152,064 twice are 1.09e9 parameters, 4.06 GiB of float32
        num_hidden_layers=1, hidden_size=3584, intermediate_size=3584, vocab_size=152_064
    )
    monkeypatch.setenv("WORLD_SIZE", "8")
    whole = recipe_plan(config, recipe, 100, None)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    shared = recipe_plan(config, recipe, 100, None)
    assert (whole.gpus, shared.gpus) == (1, 8)
    weights = [estimate_memory(plan).parts["weights"] for plan in (whole, shared)]
    assert weights[0] == pytest.approx(8 * weights[1], rel=0.01)
    assert weights[0] / GIB == pytest.approx(4.4, abs=0.01)  # with 0.34 of the layer


def test_the_lines_say_what_does_not_fit() -> None:
    found, shape = Preflight(), PUBLISHED_SHAPES[LARGE]
    lines = memory_lines(found, lambda: TrainingPlan(shape, tokens=4096, gpus=1))
    assert "G = 1" in lines[0]
    assert len(found.results) == 1
    # 18 bytes of each of 7.6e9 parameters are 128 GiB; activations and logits take 2.5 and 2.3
    said = "about 133 GiB of 80 at G = 1: keep a tenth free, or the run may end without memory"
    assert found.results[0].said == said
    found = Preflight()
    lines = memory_lines(found, lambda: TrainingPlan(shape, tokens=4096, gpus=8))
    assert (found.results, "G = 8" in lines[0]) == ([], True)

    def unknown() -> TrainingPlan:
        raise SettingError("its shape is not known: mine", field="model")

    line = "memory: not estimated: model: its shape is not known: mine"
    assert memory_lines(found, unknown) == [line]


def test_verls_fixed_batches_and_samplers_apart() -> None:
    rollout = {"gpu_memory_utilization": 0.6, "tensor_model_parallel_size": 1}
    actor = {"use_dynamic_bsz": False, "ppo_micro_batch_size_per_gpu": 3}
    parts = {"model": {"path": LARGE}, "rollout": rollout, "actor": actor}
    data = {"max_prompt_length": 100, "max_response_length": 400}
    trainer = {"v1": {"trainer_mode": "stepcredit_separate_async"}}
    plan = verl_plan({"actor_rollout_ref": parts, "data": data, "trainer": trainer})
    assert (plan.tokens, plan.sampler_share) == (1500, 0.0)
