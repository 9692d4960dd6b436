"""`LocalLogProbs` against one plain forward a token, in float64."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from tests.signals.tiny_models import build, save, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

import stepcredit.signals.models.causal as causal
from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.cache import Cached
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.responses import Response

KINDS = ["llama", "gpt2", "mistral", "gemma2"]


def responses(count=7, seed=0, vocabulary=330):
    """Random ids with prompts of random length."""
    draw = random.Random(seed)
    rows = []
    for row in range(count):
        prompt = tuple(draw.randrange(vocabulary) for _ in range(draw.randint(1, 30)))
        own = tuple(draw.randrange(vocabulary) for _ in range(draw.randint(1, 40)))
        spans = tuple((index, index + 1) for index in range(len(own)))
        text = "x" * len(own)
        rows.append(
            Response("?", text, spans, name=f"r:{row + 1}", token_ids=own, prompt_ids=prompt)
        )
    return rows


def slow(model, response, temperature):
    """Each token from a forward of its own over what stands before it."""
    model, found = model.double(), []
    for index, token in enumerate(response.token_ids):
        before = torch.tensor([[*response.prompt_ids, *response.token_ids[:index]]])
        with torch.no_grad():
            logits = model(before).logits[0, -1].double() / temperature
        found.append(torch.log_softmax(logits, 0)[token].item())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_one_forward_a_token(kind, temperature, tmp_path):
    path = save(tmp_path, kind)
    rows = responses()
    found = LocalLogProbs(path, temperature=temperature, max_tokens_per_batch=150).scores(rows)
    reference = AutoModelForCausalLM.from_pretrained(path)
    for row, scores in zip(rows, found, strict=True):
        assert scores == pytest.approx(slow(reference, row, temperature), abs=1e-4)
    assert min(map(min, found)) < -5


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_order_change_nothing(kind):
    model, rows = build(kind), responses()
    alone = [LocalLogProbs(model).scores([row])[0] for row in rows]
    for bound in (1, 90, 10_000):
        found = LocalLogProbs(model, max_tokens_per_batch=bound).scores(rows[::-1])[::-1]
        for one, other in zip(alone, found, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_the_bound_on_logits_changes_nothing(monkeypatch):
    model, rows = build("llama"), responses()
    whole = LocalLogProbs(model).scores(rows)
    monkeypatch.setattr(causal, "LOGITS_AT_ONCE", 330 * 3)
    for one, other in zip(whole, LocalLogProbs(model).scores(rows), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(("kind", "is_all"), [("llama", True), ("gpt2", True), ("gemma2", False)])
def test_the_head_is_applied_apart_only_where_it_gives_the_logits(kind, is_all):
    assert causal.CausalLM(build(kind))._head_is_all is is_all


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_prompt_gets_no_logits(kind):
    """The head never sees more rows than there are places asked for (or columns, if capped)."""
    model, seen = build(kind), []
    row = replace(responses(1)[0], prompt_ids=tuple(range(200)))
    LocalLogProbs(model).scores([row])
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel() // args[0].shape[-1])
    )
    LocalLogProbs(model).scores([row])
    hook.remove()
    assert max(seen) == max(4, row.num_tokens)


def test_a_policy_in_training_stays_so_and_gets_no_gradient():
    model = build("llama").train()
    model.config.attention_dropout = 0.9
    first, second = (LocalLogProbs(model).scores(responses(2)) for _ in range(2))
    assert first == second
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_identity_tells_models_apart(tmp_path):
    one, other = (save(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 1)))
    marks = [LocalLogProbs(path).identity for path in (one, one, other)]
    assert marks[0] == marks[1] != marks[2]
    assert LocalLogProbs(one, temperature=0.5).identity != marks[0]
    model = build("llama")
    before = LocalLogProbs(model).identity
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    assert LocalLogProbs(model).identity != before
    capped = build("gemma2"), build("gemma2", final_logit_softcapping=3.0)
    assert LocalLogProbs(capped[0]).identity != LocalLogProbs(capped[1]).identity
    assert LocalLogProbs(capped[0]).identity == LocalLogProbs(build("gemma2")).identity


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_folder_written_anew_is_another_model_to_a_new_signal_alone(tmp_path, asked_before):
    """A loaded one goes on with its weights, and a cache keeps its scores as theirs."""
    path, store, (row, other) = save(tmp_path / "m"), tmp_path / "scores.sqlite", responses(2)
    first = LocalLogProbs(path)
    (Cached(first, store) if asked_before else first).scores([row])
    of_first = first.scores([other])
    save(tmp_path / "m", seed=1)
    assert Cached(first, store).scores([other]) == of_first
    second = LocalLogProbs(path)
    assert Cached(second, store).scores([other]) == second.scores([other]) != of_first


def test_padding_rows_of_the_embedding_are_no_tokens_of_the_vocabulary(tmp_path):
    path = save(tmp_path, vocab_size=384)
    assert len(LocalLogProbs(path).vocabulary.tokens) == len(tokenizer())


def test_another_vocabulary_than_the_policys_is_refused(tmp_path):
    policy = AutoTokenizer.from_pretrained(save(tmp_path))
    policy.add_tokens(["<think>"])
    with pytest.raises(SignalError) as caught:
        LocalLogProbs(str(tmp_path), policy=policy).scores(responses(1))
    assert str(caught.value) == (
        f"{tmp_path}: another vocabulary than {tmp_path}'s: "
        f"token {len(tokenizer())} is nothing, there '<think>'"
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"prompt_ids": tuple(range(255)), "token_ids": (1, 2), "spans": ((0, 1), (1, 2))},
            "r:1: token_ids: needs 257 positions, over the model's context of 256",
        ),
        (
            {"token_ids": (330,), "spans": ((0, 1),)},
            "r:1: token_ids: token 330, but the model has 330",
        ),
        (
            {"token_ids": (-1,), "spans": ((0, 1),)},
            "r:1: token_ids: token -1, but the model has 330",
        ),
        ({"token_ids": None}, "r:1: token_ids: missing: this signal needs it"),
        ({"prompt_ids": None}, "r:1: prompt_ids: missing: this signal needs it"),
        (
            {"prompt_ids": ()},
            "r:1: prompt_ids: holds no token: nothing predicts the response's first one",
        ),
    ],
)
def test_what_the_model_cannot_read_is_named(change, line):
    with pytest.raises(RolloutError) as caught:
        LocalLogProbs(build("llama")).scores([replace(responses(1)[0], **change)])
    assert str(caught.value) == line


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_no_memory_is_told_with_what_to_lower(kind):
    model, rows = build(kind), responses(2)

    def fail(*_):
        raise torch.OutOfMemoryError

    model.model.layers[0].register_forward_pre_hook(fail)
    width = max(len(row.prompt_ids) + row.num_tokens for row in rows)
    with pytest.raises(SignalError) as caught:
        LocalLogProbs(model).scores(rows)
    line = f"not enough memory for 2 x {width} tokens; lower max_tokens_per_batch"
    assert str(caught.value) == line


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(SignalError, match="does not load: ") as caught:
        LocalLogProbs(str(tmp_path)).scores(responses(1))
    assert str(caught.value).startswith(f"{tmp_path}: does not load: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "model: expected a model's folder or name, or a loaded model, got None"),
        (
            {"model": "m", "temperature": 0},
            "temperature: expected a number above 0, got 0",
        ),
        (
            {"model": "m", "dtype": "int8"},
            "dtype: expected one of auto, float32, bfloat16, float16, got 'int8'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, line):
    with pytest.raises(SettingError) as caught:
        LocalLogProbs(**settings)
    assert str(caught.value) == line
