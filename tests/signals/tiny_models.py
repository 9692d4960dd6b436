"""Tiny random language models and tokenizers, saved where the real loading code finds them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "Tom has 3 apples and buys 4 more.\n\nSo he has 3 + 4 = 7 apples.\n\n",
    "The answer is \\boxed{7}.\n\nThe answer is \\boxed{12}",
]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}


@cache
def tokenizer(vocab_size: int = 330) -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges of its own, and an end-of-text token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=special
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>"
    )


def build(kind: str, seed: int = 0, vocab_size: int = 330, **config: Any) -> Any:
    """A random model, its weights large enough that its predictions differ."""
    torch.manual_seed(seed)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **{**LLAMA, **config}))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(vocab_size=vocab_size, **{**LLAMA, **config}))
    elif kind == "gemma2":
        settings = {**LLAMA, "head_dim": 8, "final_logit_softcapping": 2.0, **config}
        model = Gemma2ForCausalLM(Gemma2Config(vocab_size=vocab_size, **settings))
    else:
        settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, **config}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.15)
        model.get_output_embeddings().weight.mul_(5.0)
    return model.eval()


def save(folder: Path, kind: str = "llama", seed: int = 0, **config: Any) -> str:
    """A saved model with its tokenizer; the folder, as a user names it."""
    build(kind, seed, **config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)
