"""Tiny random models with one tokenizer, and rows that fit any recipe, for `--smoke`.

They replace the models and data of a recipe that is only tried. The language model samples at
random, mostly from the texts that the recipe's rewards read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

from stepcredit.launch.tiny_vocabulary import SUMS, TinyVocabulary
from stepcredit.prm.loading import PUBLISHED
from stepcredit.prm.protocol import build_protocol

BYTES = ["Ċ", "Ġ", *map(chr, range(33, 127))]
"""Newline, space and the printable characters of ASCII, as byte-level vocabularies spell them."""
SPECIAL = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<extra_0>", "ки"]
CHAT = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
ROWS = len(SUMS)
WIDTH = 16
KIND_SCALE, OUTPUT_WEIGHT = 12.0, 2.0
"""The embedding's value for a token's kind, and the output layer's weight for what may follow."""
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
}


def byte_spelling(text: str) -> str:
    """A text as byte-level vocabularies spell it.

    Example:
        >>> byte_spelling("2 + 5\\n")
        '2Ġ+Ġ5Ċ'
    """
    return text.replace(" ", "Ġ").replace("\n", "Ċ")


def tokenizer(pieces: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token per ASCII character, with ChatML and the marks where reward models are read.

    Args:
        pieces: texts that are one token each: a model may write them, but no text is encoded with
            them.
    """
    tokens = [*BYTES, "Ġ-", "<unk>", *map(byte_spelling, pieces)]
    vocabulary = {spelling: index for index, spelling in enumerate(tokens)}
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


def save_language_model(folder: Path, seed: int = 0, pieces: TinyVocabulary | None = None) -> str:
    """Save a causal language model and its tokenizer.

    Args:
        folder: where they are saved.
        seed: of the weights.
        pieces: the texts that it writes; None: any characters.

    Returns:
        The folder, as a recipe names it.
    """
    words = tokenizer(pieces.texts if pieces else ())
    model = _random(Qwen2ForCausalLM, words, seed)
    if pieces is not None:
        _make_steps_likely(model, words, pieces)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def _make_steps_likely(model: Any, words: Any, pieces: TinyVocabulary) -> None:
    """Make steps and answers likely after the prompt and after steps, and the end after an answer.

    The end is also somewhat likely after a step. Each kind of token has one embedding dimension,
    which the layers do not change, and from which the output layer raises what may follow. All
    other weights are random.
    """
    parts = (pieces.opening, pieces.steps, pieces.answers)
    opening, steps, answers = (
        words.convert_tokens_to_ids(list(map(byte_spelling, p))) for p in parts
    )
    others = sorted(set(range(len(words))) - {*opening, *steps, *answers})
    kinds = [others, opening + steps, answers]
    end = [words.eos_token_id]
    following = [opening or steps + answers, steps + answers + end, end]
    embedded = model.get_input_embeddings().weight.data
    output = model.get_output_embeddings().weight.data
    embedded[:, : len(kinds)], output[:, : len(kinds)] = 0.0, -OUTPUT_WEIGHT
    for kind, (tokens, leads) in enumerate(zip(kinds, following, strict=True)):
        embedded[tokens, kind] = KIND_SCALE
        output[leads, kind] = OUTPUT_WEIGHT
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data[: len(kinds)] = 0.0
        layer.mlp.down_proj.weight.data[: len(kinds)] = 0.0


def save_reward_model(folder: Path, protocol: Any, settings: Mapping[str, Any]) -> str:
    """Save a reward model with the head that a protocol reads, and its tokenizer.

    Args:
        folder: where they are saved.
        protocol, settings: the protocol and its fields.

    Returns:
        The folder, as a recipe names it.

    Raises:
        SettingError: an unknown protocol, or a field it refuses.
    """
    words, head = tokenizer(), build_protocol(protocol, settings).head
    if head == "classes":
        model = _random(Qwen2ForTokenClassification, words, seed=1, num_labels=2)
        model.save_pretrained(folder)
    else:
        model = _random(Qwen2ForCausalLM, words, seed=1)
        model.save_pretrained(folder, state_dict={**model.state_dict(), **_head(head)})
    words.save_pretrained(folder)
    return str(folder)


def _head(kind: str) -> dict[str, torch.Tensor]:
    """Weights, under their published names, of a head that transformers has no class for."""
    return PUBLISHED[kind](WIDTH).state_dict() if kind in PUBLISHED else {}


def _random(kind: Any, words: Any, seed: int, **config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings: dict[str, Any] = {**SIZES, "vocab_size": len(words), **config}
        ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
        return kind(Qwen2Config(**settings, **ids, pad_token_id=words.pad_token_id))


def save_rows(folder: Path, columns: Mapping[str, str]) -> str:
    """Save eight sums with the facts that rewards and signals read, under a recipe's columns.

    Args:
        folder: where the file is saved.
        columns: the recipe's {new name: column}; a dot reads a part of a column.

    Returns:
        The file, as a recipe names it.
    """
    path = folder / "rows.jsonl"
    rows = [_row(left, right, columns) for left, right in SUMS]
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
