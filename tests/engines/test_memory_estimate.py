"""The estimate of memory: parameter counts as published, bytes worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stepcredit.engines.preflight.memory_estimate import (
    GIB,
    PUBLISHED_SHAPES,
    ModelShape,
    TrainingPlan,
    checkpoint_bytes,
    estimate_memory,
)
from stepcredit.errors import SettingError

LARGE = PUBLISHED_SHAPES["Qwen/Qwen2.5-Math-7B"]
SMALL = PUBLISHED_SHAPES["Qwen/Qwen2.5-Math-1.5B"]
TINY = ModelShape(2, 8, 16, 2, 1, 4, 32, tied=False, qkv_bias=False)
"""Layer: 8x8 twice + 8x4 twice + 3x8x16 + 16 = 592; all: 2x32x8 + 2x592 + 8 = 1,704."""


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-32B-Instruct", 32_763_876_352),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_parameters_are_those_of_the_published_weights(name: str, count: int) -> None:
    """`total_size` of each model's weights on the Hub, over two bytes."""
    assert PUBLISHED_SHAPES[name].parameters == count


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_that_transformers_builds(kind: str, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        num_hidden_layers=3,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        head_dim=16,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    norms = 3 * 2 * 16 if kind == "Qwen3" else 0  # of queries and keys: not counted, 32 per layer
    assert ModelShape.of(config.to_dict()).parameters == model.num_parameters() - norms


def test_adapters_are_those_that_peft_adds() -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = transformers.Qwen2Config(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
    )
    model = transformers.Qwen2ForCausalLM(config)
    lora = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trained = peft.get_peft_model(model, lora).get_nb_trainable_parameters()[0]
    assert ModelShape.of(config.to_dict()).adapter_parameters(4) == trained


def test_a_layer_keeps_what_autograd_saves() -> None:
    transformers = pytest.importorskip("transformers")
    tokens = 500  # no size of the model, so that no weight has as many rows
    config = transformers.Qwen2Config(
        num_hidden_layers=1,
        hidden_size=256,
        intermediate_size=1024,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        attn_implementation="sdpa",
    )
    model = transformers.Qwen2ForCausalLM(config)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tokens in tensor.shape and tensor.shape[:2] != (1, 1):  # no weight, no angle
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    embedded = torch.randn(1, tokens, 256, requires_grad=True)
    angles = model.model.rotary_emb(embedded, torch.arange(tokens)[None])
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        result = model.model.layers[0](embedded, position_embeddings=angles)
    assert result is not None
    counted = tokens * ModelShape.of(config.to_dict()).activation_bytes
    assert sum(kept.values()) == pytest.approx(counted, rel=0.01)


def test_parts_worked_out_by_hand() -> None:
    plan = TrainingPlan(TINY, tokens=10, reference=True, scorers=(TINY, TINY))
    parts = estimate_memory(plan).parts
    assert parts == {
        "weights": 4 * 1704,
        "copies": 2 * 1704,
        "gradients": 4 * 1704,
        "optimizer": 8 * 1704,
        "reference": 4 * 1704,
        "scorers": 2 * 2 * 1704,
        # inputs of 2 layers: 4 x 8 x 2 = 64; a layer: 26x8 + 4x(8 + 4) + 8x16 = 384
        "activations": 10 * (64 + 384),
        # a tile of 10 x 32 in two bytes; gradients of 10 x 8 hidden states and of 32 x 8 weights
        "logits": 2 * 10 * 32 + 4 * 10 * 8 + 4 * 32 * 8,
        "sampler's weights": 0,
        "KV cache": 0,
    }


def test_shards_divide_what_is_stored_and_gather_what_computes() -> None:
    parts = estimate_memory(TrainingPlan(TINY, tokens=10, gpus=4, reference=True)).parts
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (1704, 1704, 3408)
    assert parts["reference"] == 1704
    assert parts["copies"] == 2 * (1704 - 2 * 592 + 2 * 592)
    assert parts["activations"] == 10 * (2 * 8 * 2 + 384)


def test_whole_logits_and_kept_activations() -> None:
    plan = TrainingPlan(TINY, tokens=10, recomputes=False, whole_logits=True)
    parts = estimate_memory(plan).parts
    assert parts["activations"] == 10 * 2 * 384
    assert parts["logits"] == 3 * 2 * 10 * 32


def test_adapters_leave_the_model_untrained() -> None:
    plan = TrainingPlan(SMALL, tokens=1024, weight_bytes=2, adapter_rank=32)
    parts = estimate_memory(plan).parts
    # per layer: 2 x (1536 + 1536) + 2 x (1536 + 256) + 3 x (1536 + 8960) = 41,216
    adapters = 28 * 32 * 41_216
    assert parts["weights"] == 2 * 1_543_714_304 + 4 * adapters
    assert (parts["gradients"], parts["optimizer"]) == (4 * adapters, 8 * adapters)
    assert parts["copies"] == 0
    assert checkpoint_bytes(plan) == 12 * adapters


def test_the_cache_is_what_the_sampler_has_beside_its_weights() -> None:
    """Qwen2.5-7B keeps 2 x 28 x 512 x 2 = 57,344 bytes per token."""
    plan = TrainingPlan(LARGE, tokens=4096, gpus=8, sampler_share=0.5)
    found = estimate_memory(plan)
    assert found.parts["sampler's weights"] == 15_231_233_024
    assert found.parts["KV cache"] == 40 * GIB - 15_231_233_024
    assert found.cached_tokens == (40 * GIB - 15_231_233_024) // 57_344
    asleep = estimate_memory(replace(plan, sampler_sleeps=True))
    assert found.updating - asleep.updating == 40 * GIB
    assert found.sampling == asleep.sampling
    kept = found.parts["weights"] + found.parts["optimizer"]
    assert found.sampling == kept + 40 * GIB
    assert found.peak == found.updating > found.sampling


def test_a_checkpoint_holds_weights_and_moments() -> None:
    assert checkpoint_bytes(TrainingPlan(LARGE, tokens=1, gpus=8)) == 12 * 7_615_616_512


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"tokens": 0}, "tokens: expected at least 1, got 0"),
        ({"sampler_share": 1.5}, "sampler_share: expected 0 to 1, got 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, float], line: str) -> None:
    with pytest.raises(SettingError, match=line):
        TrainingPlan(**{"policy": TINY, "tokens": 1, **changes})  # type: ignore[arg-type]


def test_a_share_too_small_for_the_weights_is_refused() -> None:
    plan = TrainingPlan(LARGE, tokens=1, gpu_bytes=24 * GIB, sampler_share=0.5)
    with pytest.raises(SettingError, match=r"12\.0 GiB hold no more than .* \(14\.2\)"):
        estimate_memory(plan)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"hidden_size": 8}, "num_attention_heads: missing in the model's config.json"),
        ({"num_experts": 8}, "num_experts: mixtures of experts are not estimated"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(config: dict[str, int], line: str) -> None:
    with pytest.raises(SettingError, match=line):
        ModelShape.of(config)
