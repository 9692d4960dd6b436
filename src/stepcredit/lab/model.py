"""A small decoder for the embedded tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from stepcredit.keys import keyed_seed
from stepcredit.requires import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class ModelSettings:
    """Size of the decoder; the defaults give 0.34 M parameters."""

    width: int = 96
    layers: int = 3
    heads: int = 3
    feed_forward: int = 256


SIZES = {
    "small": ModelSettings(),
    "medium": ModelSettings(width=192, layers=4, heads=6, feed_forward=512),
}


def build_model(
    tokenizer: PreTrainedTokenizerFast, settings: ModelSettings | None = None, seed: int = 0
) -> PreTrainedModel:
    """A decoder of the Llama architecture with random weights that depend on the seed only.

    Args:
        tokenizer: the task's tokenizer; it sets the vocabulary size and the special tokens.
        settings: the sizes; `ModelSettings()` if absent.
        seed: seed of the weights; the state of the global generator does not change.

    Returns:
        A `LlamaForCausalLM` in float32 on the CPU. Its positions are relative (rotary), so left
        padding does not change any probability.

    Raises:
        MissingExtra: transformers is not installed.

    Example:
        >>> from stepcredit.lab.arithmetic import build_tokenizer
        >>> build_model(build_tokenizer()).num_parameters()
        336480
    """
    require("train", "transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = settings or ModelSettings()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):  # a GPU's draws are not asked for
        torch.manual_seed(keyed_seed(seed, "model"))
        return LlamaForCausalLM(config)
