"""An estimate of the memory that training takes on each GPU, part by part, and on the disk.

Everything follows from a model's shape and a few settings; nothing is measured, and no GPU is
needed. Not counted: the CUDA context, buffers of collectives, fragmentation of the allocator, and
the activations of reward models while they score. Keep a tenth of the GPU free for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from stepcredit.engines.preflight.run_folders import checkpoint_size
from stepcredit.errors import SettingError

GIB = 2**30
HALF, SINGLE = 2, 4
"""Bytes of a bfloat16 and of a float32."""
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""The tile in which TRL 1.16 projects to the vocabulary (trl/kernels/chunked_logprob.py)."""
FULL_LOGITS = 3
"""Copies of the logits where they are kept whole: as computed, over the temperature, gradients."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only transformer of the Llama or Qwen2 kind.

    Args:
        layers, hidden, intermediate, vocabulary: as config.json says; counts.
        heads, kv_heads, head_size: attention heads, those of keys and values, and their width.
        tied: whether the output layer is the embedding.
        qkv_bias: whether the projections to queries, keys and values have a bias.

    Example:
        >>> f"{PUBLISHED_SHAPES['Qwen/Qwen2.5-7B-Instruct'].parameters:,}"
        '7,615,616,512'
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    qkv_bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """The shape that a model's config.json describes.

        Args:
            config: its keys, as `transformers.AutoConfig.from_pretrained(name).to_dict()` has them.

        Raises:
            SettingError: a size is missing, or the model is a mixture of experts.

        Example:
            >>> small = dict(num_hidden_layers=1, hidden_size=8, intermediate_size=16,
            ...              num_attention_heads=2, num_key_value_heads=1, vocab_size=32)
            >>> ModelShape.of(small).head_size
            4
        """
        if any(config.get(name) for name in ("num_experts", "num_local_experts")):
            raise SettingError("mixtures of experts are not estimated", field="num_experts")
        try:
            heads, hidden = config["num_attention_heads"], config["hidden_size"]
            return cls(
                layers=config["num_hidden_layers"],
                hidden=hidden,
                intermediate=config["intermediate_size"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_size=config.get("head_dim") or hidden // heads,
                vocabulary=config["vocab_size"],
                tied=bool(config.get("tie_word_embeddings", False)),
                qkv_bias=config.get("model_type") == "qwen2" or bool(config.get("attention_bias")),
            )
        except KeyError as error:
            raise SettingError("missing in the model's config.json", field=error.args[0]) from error

    @property
    def attention_width(self) -> int:
        """Numbers per token in the queries of all heads."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Numbers per token in the keys of all heads, and in the values."""
        return self.kv_heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: attention, gated MLP, and two norms."""
        q, kv = self.attention_width, self.kv_width
        bias = q + 2 * kv if self.qkv_bias else 0
        attention = self.hidden * (2 * q + 2 * kv) + bias
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters: embedding, layers, last norm, and the output layer unless it is tied."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of LoRA on every linear map of the layers: rank x (inputs + outputs) each."""
        h, q, kv, f = self.hidden, self.attention_width, self.kv_width, self.intermediate
        ends = 2 * (h + q) + 2 * (h + kv) + 3 * (h + f)
        return self.layers * rank * ends

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of the cache per token, in bfloat16: a key and a value in each layer."""
        return 2 * self.layers * self.kv_width * HALF

    @property
    def activation_bytes(self) -> int:
        """Bytes per token that one layer keeps for its backward pass.

            norms: 2 x 8 hidden for input and result in float32;  inputs of the five projections
            behind them: 5 x 2 hidden;  queries, keys, values and attention's result:
            4 attention_width + 4 kv_width;  gate, up, silu(gate), product: 8 intermediate

        Under autocast to bfloat16, with attention that keeps no scores (FlashAttention, SDPA).

        Source: the tensors that autograd saves in transformers' Qwen2 layer, which a test counts.
        """
        attention = 4 * (self.attention_width + self.kv_width)
        return 26 * self.hidden + attention + 8 * self.intermediate


def _qwen(layers: int, hidden: int, intermediate: int, heads: int, kv: int, **rest: Any) -> Any:
    sizes = {"vocabulary": 152_064, "tied": False, "qkv_bias": True, **rest}
    return ModelShape(layers, hidden, intermediate, heads, kv, hidden // heads, **sizes)


_QWEN_7B = _qwen(28, 3584, 18_944, 28, 4)
_QWEN_1_5B = _qwen(28, 1536, 8960, 12, 2, vocabulary=151_936, tied=True)
PUBLISHED_SHAPES: dict[str, ModelShape] = {
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_1_5B,
    "Qwen/Qwen2.5-Math-1.5B": _QWEN_1_5B,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-Math-7B": _QWEN_7B,
    "Qwen/Qwen2.5-Math-PRM-7B": _QWEN_7B,
    "jinachris/PURE-PRM-7B": _QWEN_7B,
    "Qwen/Qwen2.5-32B-Instruct": _qwen(64, 5120, 27_648, 40, 8),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ModelShape(
        30, 576, 1536, 9, 3, 64, 49_152, tied=True, qkv_bias=False
    ),
}
"""Shapes of the recipes' models, from their config.json on the Hub."""


@dataclass(frozen=True)
class TrainingPlan:
    """What the memory of training depends on.

    Args:
        policy: the model that is trained.
        gpus: how many share weights, gradients and optimizer (FSDP, ZeRO-3); 1: each holds all.
        weight_bytes: per stored weight; gradients and Adam's two moments have the same type.
        adapter_rank: of LoRA on all linear maps, in float32; 0: all weights are trained.
        tokens: of a micro-batch on one GPU, with padding.
        recomputes: whether layers keep their input alone (gradient checkpointing).
        whole_logits: whether logits of all tokens are kept (verl), or tiles of them (TRL).
        reference: whether a frozen copy of the policy is on the GPUs, shared as the policy is.
        scorers: models on each GPU that score steps, in bfloat16.
        gpu_bytes: memory of one GPU.
        sampler_share: the part of it that the sampler takes (`gpu_memory_utilization`); 0: none.
        sampler_gpus: how many share the sampler's weights (tensor parallel).
        sampler_sleeps: whether it gives its memory back while the policy is updated.

    Raises:
        SettingError: a count below 1, or a share outside 0 to 1.
    """

    policy: ModelShape
    tokens: int
    gpus: int = 1
    weight_bytes: int = SINGLE
    adapter_rank: int = 0
    recomputes: bool = True
    whole_logits: bool = False
    reference: bool = False
    scorers: tuple[ModelShape, ...] = ()
    gpu_bytes: int = 80 * GIB
    sampler_share: float = 0.0
    sampler_gpus: int = 1
    sampler_sleeps: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens", "gpus", "weight_bytes", "gpu_bytes", "sampler_gpus"):
            if getattr(self, name) < 1:
                raise SettingError(f"expected at least 1, got {getattr(self, name)}", field=name)
        if not 0 <= self.sampler_share <= 1:
            reason = f"expected 0 to 1, got {self.sampler_share}"
            raise SettingError(reason, field="sampler_share")

    @property
    def trained(self) -> int:
        """How many parameters are trained."""
        rank = self.adapter_rank
        return self.policy.adapter_parameters(rank) if rank else self.policy.parameters

    @property
    def trained_bytes(self) -> int:
        """Bytes of one trained parameter; adapters are float32."""
        return SINGLE if self.adapter_rank else self.weight_bytes


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU.

    Args:
        parts: bytes by part.
        sampling, updating: what is there while responses are sampled, and at an update's peak.
        cached_tokens: how many tokens the sampler's cache holds; 0 without a sampler.
    """

    parts: dict[str, int]
    sampling: int
    updating: int
    cached_tokens: int

    @property
    def peak(self) -> int:
        """The larger of the two."""
        return max(self.sampling, self.updating)


def estimate_memory(plan: TrainingPlan) -> MemoryEstimate:
    """The memory of training on one GPU, by part.

        weights     P b / G (+ 4 A with adapters)     gradients  T t / G     optimizer  2 T t / G
        copies      sharded: 2 (embeddings + 2 layers) for the gathered weights;
                    else 2 P where b = 4, for autocast's bfloat16 weights
        reference   P b / G                           scorers    2 P each
        activations tokens x (r hidden x layers + one layer's), or tokens x layers x a layer's;
                    r = 4 where autocast computes from float32 weights, else 2
        logits      whole: 3 x 2 tokens V; tiles: 2 x 4096 x 32768 + 4 tokens hidden + 4 V hidden
        sampler     share of the GPU: 2 P / its GPUs for weights, the rest for the cache

    P parameters of b bytes, T trained ones of t bytes, A adapters', G GPUs, V words. Gradients,
    copies, activations and logits are there in updates alone; the sampler is not if it sleeps.

    Args:
        plan: the settings.

    Returns:
        Bytes; parts that are 0 are in it too.

    Raises:
        SettingError: the sampler's share is too small for its weights.

    Example:
        >>> shape = PUBLISHED_SHAPES["Qwen/Qwen2.5-7B-Instruct"]
        >>> found = estimate_memory(TrainingPlan(shape, tokens=4096, gpus=8))
        >>> round(found.parts["optimizer"] / 1e9, 2)  # 7.6e9 x 8 bytes / 8 GPUs
        7.62
    """
    policy, gpus = plan.policy, plan.gpus
    adapters = SINGLE * plan.trained if plan.adapter_rank else 0
    stored = ceil(policy.parameters * plan.weight_bytes / gpus)
    weights, cache = _sampler(plan)
    parts = {
        "weights": stored + adapters,
        "copies": _copies(plan),
        "gradients": ceil(plan.trained * plan.trained_bytes / gpus),
        "optimizer": ceil(2 * plan.trained * plan.trained_bytes / gpus),
        "reference": stored if plan.reference else 0,
        "scorers": sum(HALF * each.parameters for each in plan.scorers),
        "activations": _activations(plan),
        "logits": _logits(plan),
        "sampler's weights": weights,
        "KV cache": cache,
    }
    kept = sum(parts[name] for name in ("weights", "optimizer", "reference", "scorers"))
    passing = sum(parts[name] for name in ("copies", "gradients", "activations", "logits"))
    beside = 0 if plan.sampler_sleeps else weights + cache
    tokens = cache * plan.sampler_gpus // policy.kv_cache_bytes
    return MemoryEstimate(parts, kept + weights + cache, kept + passing + beside, tokens)


def _copies(plan: TrainingPlan) -> int:
    """Weights in bfloat16 that a pass through the model computes with, beside those stored."""
    policy = plan.policy
    if plan.gpus == 1:
        return HALF * policy.parameters if plan.weight_bytes > HALF else 0
    outside = policy.parameters - policy.layers * policy.layer_parameters
    return HALF * (outside + 2 * policy.layer_parameters)


def _activations(plan: TrainingPlan) -> int:
    policy = plan.policy
    if plan.recomputes:
        in_single = plan.gpus == 1 and plan.weight_bytes > HALF
        inputs = (SINGLE if in_single else HALF) * policy.hidden * policy.layers
        return plan.tokens * (inputs + policy.activation_bytes)
    return plan.tokens * policy.layers * policy.activation_bytes


def _logits(plan: TrainingPlan) -> int:
    words, hidden = plan.policy.vocabulary, plan.policy.hidden
    if plan.whole_logits:
        return FULL_LOGITS * HALF * plan.tokens * words
    tile = HALF * min(plan.tokens, TILE_TOKENS) * min(words, TILE_WORDS)
    head = 0 if plan.adapter_rank else SINGLE * words * hidden
    return tile + SINGLE * plan.tokens * hidden + head


def _sampler(plan: TrainingPlan) -> tuple[int, int]:
    """Bytes of the sampler's weights and of its cache."""
    if not plan.sampler_share:
        return 0, 0
    weights = ceil(HALF * plan.policy.parameters / plan.sampler_gpus)
    cache = int(plan.sampler_share * plan.gpu_bytes) - weights
    if cache <= 0:
        share = plan.sampler_share * plan.gpu_bytes / GIB
        reason = f"{share:.1f} GiB hold no more than the sampler's weights ({weights / GIB:.1f})"
        raise SettingError(reason, field="sampler_share")
    return weights, cache


def checkpoint_bytes(plan: TrainingPlan) -> int:
    """Bytes of a checkpoint on the disk: trained weights and Adam's two moments.

    Example:
        >>> shape = PUBLISHED_SHAPES["Qwen/Qwen2.5-7B-Instruct"]
        >>> checkpoint_bytes(TrainingPlan(shape, tokens=1)) // 10**9  # 12 bytes per parameter
        91
    """
    return checkpoint_size(plan.trained * plan.trained_bytes)
