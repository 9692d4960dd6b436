"""The forward pass without padding: logits, gradients and checkpoints are those of transformers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from stepcredit.errors import StepCreditError
from stepcredit.lab.model import ModelSettings, build_model
from stepcredit.lab.packed import without_padding
from stepcredit.lab.tokenizer import build_tokenizer


@pytest.fixture
def both() -> tuple[Any, Any]:
    size = ModelSettings(width=48, layers=2, heads=3, feed_forward=64)
    model = build_model(build_tokenizer(), size, seed=3).train()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(torch.linspace(0.5, 1.5, len(weight)) if "norm" in name else 8.0)
    return model, without_padding(copy.deepcopy(model))


def batch() -> tuple[Tensor, Tensor]:
    """Ids with padding on the left, on the right, on both sides, and none; and the mask."""
    ids = torch.randint(0, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :4], mask[1, 6:], mask[2, :2], mask[2, 7:] = 0, 0, 0, 0
    return ids, mask


def test_logits_and_gradients_are_those_of_transformers(both: tuple[Any, Any]) -> None:
    ids, mask = batch()
    logits = []
    for model in both:
        found = model(input_ids=ids, attention_mask=mask).logits
        logits.append(found[mask.bool()].double())
        (logits[-1].log_softmax(-1)[:, 5] * torch.linspace(-1, 1, int(mask.sum()))).sum().backward()
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
    pairs = zip(both[0].named_parameters(), both[1].parameters(), strict=True)
    for (name, expected), found in pairs:
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_padding_tokens_change_no_bit(both: tuple[Any, Any]) -> None:
    ids, mask = batch()
    first = both[1](input_ids=ids, attention_mask=mask).logits
    second = both[1](input_ids=ids * mask, attention_mask=mask).logits
    assert torch.equal(first, second)
    assert not first[~mask.bool()].any()


def test_a_pass_with_a_cache_is_that_of_transformers(both: tuple[Any, Any]) -> None:
    ids, mask = batch()
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": mask[1:2, :6]}
    rows = [model.eval().generate(ids[1:2, :6], **options) for model in both]
    assert torch.equal(*rows)


def test_a_checkpoint_names_the_same_weights(both: tuple[Any, Any], tmp_path: Any) -> None:
    for name, model in zip(("plain", "packed"), both, strict=True):
        model.save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "packed" / file).read_bytes()


def test_an_architecture_of_other_layers_is_refused() -> None:
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=21))
    with pytest.raises(StepCreditError, match="expected a Llama"):
        without_padding(other)
