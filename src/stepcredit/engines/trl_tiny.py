"""Tiny random models with a tokenizer that fits them all, and rows that fit any recipe.

They stand in for a recipe's models and data where it is only tried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
)

from stepcredit.signals.prm.loading import PUBLISHED
from stepcredit.signals.prm.protocol import built

BYTES = ["Ċ", "Ġ", *map(chr, range(33, 127))]
"""Newline, space and the printable characters of ASCII, as byte-level vocabularies spell them."""
SPECIAL = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<extra_0>", "ки"]
CHAT = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
ROWS = 8
WIDTH = 16
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a character of ASCII, with ChatML and the marks that reward models are read at."""
    vocabulary = {spelling: index for index, spelling in enumerate([*BYTES, "Ġ-", "<unk>"])}
    merges = [("Ġ", "-")]  # Math-Shepherd's words are the two tokens of "+ -"
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin|>",
        eos_token="<|im_end|>",
        pad_token="<|end|>",
        unk_token="<unk>",
        chat_template=CHAT,
    )


def save_language_model(folder: Path, seed: int = 0) -> str:
    """A causal language model and its tokenizer; the folder as a recipe names it."""
    words = tokenizer()
    _random(Qwen2ForCausalLM, words, seed).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def save_reward_model(folder: Path, protocol: Any, settings: Mapping[str, Any]) -> str:
    """A reward model that a protocol reads, head and all, and its tokenizer.

    Raises:
        SettingError: an unknown protocol, or a field it refuses.
    """
    words, head = tokenizer(), built(protocol, settings).head
    if head == "classes":
        model = _random(Qwen2ForTokenClassification, words, seed=1, num_labels=2)
        model.save_pretrained(folder)
    else:
        model = _random(Qwen2ForCausalLM, words, seed=1)
        model.save_pretrained(folder, state_dict={**model.state_dict(), **_head(head)})
    words.save_pretrained(folder)
    return str(folder)


def _head(kind: str) -> dict[str, torch.Tensor]:
    """Weights of a head that transformers has no class for, named as published."""
    return PUBLISHED[kind](WIDTH).state_dict() if kind in PUBLISHED else {}


def _random(kind: Any, words: Any, seed: int, **config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings: dict[str, Any] = {**SIZES, "vocab_size": len(words), **config}
        ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
        return kind(Qwen2Config(**settings, **ids, pad_token_id=words.pad_token_id))


def save_rows(folder: Path, columns: Mapping[str, str]) -> str:
    """Eight sums with the facts that rewards and signals read, under a recipe's own columns.

    Args:
        folder: where the file is written.
        columns: a recipe's {new name: column}; a dot goes into a column.

    Returns:
        The file, as a recipe names it.
    """
    path = folder / "rows.jsonl"
    rows = [_row(first, first + 3, columns) for first in range(2, 2 + ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _row(left: int, right: int, columns: Mapping[str, str]) -> dict[str, Any]:
    question, answer = f"{left} + {right} =", str(left + right)
    known: dict[str, Any] = {
        "prompt": question,
        "question": question,
        "answer": answer,
        "metadata": {"source_dataset": "chain_sum", "expression": f"{left} + {right}"},
        "hops": [f"{left} + {right} = {answer}"],
        "supporting_facts": {"title": ["Sums"], "sent_id": [0]},
        "context": {"title": ["Sums"], "sentences": [[f"{left} + {right} = {answer}."]]},
    }
    row = {name: value for name, value in known.items() if name not in columns}
    for name, path in columns.items():
        *outer, last = str(path).split(".")
        place = row
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = known.get(name, answer)
    return row
