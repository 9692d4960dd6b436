"""Rows, rules and tiny bodies for the tests of training and judging."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stepcredit.prm.labelled.labelled_rows import LabelledRow

WORDS = ("red", "blue", "green", "pink", "left", "right", "north", "south")
FORBIDDEN = "left"


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as lines of JSON."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def row_of(
    labels: Sequence[int | None], *, question: str = "?", steps: Sequence[str] | None = None
) -> LabelledRow:
    """A row of so many steps."""
    own = tuple(steps or [f"step {number}" for number in range(len(labels))])
    return LabelledRow(question, own, tuple(labels), "rows.jsonl:1", question)


def ruled_rows(count: int, seed: int = 0) -> list[LabelledRow]:
    """Rows by a rule: a step is wrong exactly if it holds the forbidden word."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        steps = [" ".join(draw.choices(WORDS, k=4)) for _ in range(draw.randint(2, 5))]
        labels = [int(FORBIDDEN not in step.split()) for step in steps]
        rows.append(row_of(labels, question=f"question {number}?", steps=steps))
    return rows


def make_body(folder: Path, rows: Sequence[LabelledRow], width: int = 32) -> Path:
    """A random two-layer Llama and a byte-level tokenizer trained on the rows."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(
        (text for row in rows for text in (row.question, *row.steps)), trainer
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
