"""The lean sampler: its log-probs are the model's, its draws follow them, and rows are apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from stepcredit.errors import StepCreditError
from stepcredit.lab.decoder import Decoder
from stepcredit.lab.model import ModelSettings, build_model
from stepcredit.lab.sampling import decode, sample
from stepcredit.lab.tokenizer import build_tokenizer

SIZE = ModelSettings(width=48, layers=2, heads=3, feed_forward=64)
PROMPTS = ["3+4*2=", "1+1+1+1+1=", "9*8-7*2="]


@pytest.fixture(scope="module")
def policy() -> tuple[Any, Any]:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, SIZE, seed=3)
    with torch.no_grad():  # norms that are not 1, and probabilities far from even
        for name, weight in model.named_parameters():
            weight.mul_(torch.linspace(0.5, 1.5, len(weight)) if "norm" in name else 8.0)
    return model.eval(), tokenizer


def of_forward_pass(model: Any, prompt: list[int], ids: list[int]) -> np.ndarray:
    """The log-prob of each completion token by transformers' own pass over one row, unpadded."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1)[range(len(ids)), ids].numpy()


def test_log_probs_are_those_of_the_models_forward_pass(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    prompt_ids = tokenizer(PROMPTS).input_ids
    prompt_of = [0, 0, 1, 2, 2, 2]
    uniform = np.random.default_rng(0).random((6, 200))
    found = decode(Decoder.of(model), prompt_ids, prompt_of, uniform, tokenizer.eos_token_id)
    assert max(map(len, found[0])) > 20
    assert len(set(map(len, found[0]))) > 2  # rows leave the batch at different times
    for prompt, ids, logprobs in zip(prompt_of, *found, strict=True):
        expected = of_forward_pass(model, prompt_ids[prompt], ids)
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_each_token_is_where_its_number_falls_in_the_cumulative_distribution(
    policy: tuple[Any, Any],
) -> None:
    model, tokenizer = policy
    prompt = tokenizer(PROMPTS[0]).input_ids
    uniform = np.random.default_rng(1).random((4, 12))
    rows, _ = decode(Decoder.of(model), [prompt], [0] * 4, uniform, tokenizer.eos_token_id)
    for ids, numbers in zip(rows, uniform, strict=True):
        for step, token in enumerate(ids):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids[:step]])).logits[0, -1]
            edges = np.concatenate([[0.0], logits.double().softmax(-1).numpy().cumsum()])
            assert edges[token] - 1e-5 <= numbers[step] <= edges[token + 1] + 1e-5


def test_pairs_of_tokens_follow_the_exact_distribution() -> None:
    """Chi-square on the 4 x 4 outcomes of two tokens; a 0 ends the completion."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
        first = model(torch.tensor([[1, 2]])).logits[0, -1].double().softmax(-1)
        seconds = model(torch.tensor([[1, 2, t] for t in range(4)])).logits[:, -1].double()
    then = seconds.softmax(-1)
    joint = {(a, b): float(first[a] * then[a, b]) for a in (1, 2, 3) for b in range(4)}
    joint[(0,)] = float(first[0])
    uniform = np.random.default_rng(2).random((20_000, 2))
    rows, _ = decode(Decoder.of(model), [[1, 2]], [0] * len(uniform), uniform, end=0)
    counts = Counter(map(tuple, rows))
    assert set(counts) <= set(joint)
    expected = np.array(list(joint.values())) * len(uniform)
    assert expected.min() > 20
    assert chisquare([counts[pair] for pair in joint], expected).pvalue > 1e-3


def test_a_completion_does_not_depend_on_what_is_decoded_beside_it(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    whole = sample(model, tokenizer, PROMPTS, 6, max_new_tokens=30)
    for rows in (1, 4, 7):
        assert sample(model, tokenizer, PROMPTS, 6, max_new_tokens=30, rows_at_once=rows) == whole
    assert sample(model, tokenizer, PROMPTS[:2], 6, max_new_tokens=30) == whole[:12]


def test_the_same_seed_and_purpose_give_the_same_bits(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    uniform = np.random.default_rng(4).random((9, 40))
    prompt_ids = tokenizer(PROMPTS).input_ids
    runs = [
        decode(Decoder.of(model), prompt_ids, [0, 1, 2] * 3, uniform, tokenizer.eos_token_id)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    first = sample(model, tokenizer, PROMPTS, 4, seed=5)
    assert first == sample(model, tokenizer, PROMPTS, 4, seed=5)
    assert first != sample(model, tokenizer, PROMPTS, 4, seed=6)
    assert first != sample(model, tokenizer, PROMPTS, 4, seed=5, purpose="other")


def test_another_architecture_is_refused() -> None:
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=21))
    with pytest.raises(StepCreditError, match="model: expected a Llama"):
        sample(other, build_tokenizer(), ["1+1="])
