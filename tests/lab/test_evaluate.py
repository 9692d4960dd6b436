"""Sampled evaluation: the figures, the intervals, and that it disturbs nobody's randomness."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from stepcredit.lab.arithmetic import build_tokenizer, check, problems
from stepcredit.lab.evaluate import evaluate, summarize
from stepcredit.lab.model import ModelSettings, build_model
from stepcredit.lab.sampling import sample

SOLVED = "3+4=7\n7*2=4\n4-1=3\n<3>$"
PADDED = "3+4=7\nk7\nk7\n7*2=4\n4-1=2\n<2>$"


@pytest.fixture(scope="module")
def policy() -> tuple[Any, Any]:
    tokenizer = build_tokenizer()
    small = ModelSettings(width=32, layers=2, heads=2, feed_forward=64)
    return build_model(tokenizer, small, seed=1), tokenizer


def test_summary_of_known_answers() -> None:
    texts = [SOLVED, PADDED, SOLVED, SOLVED, PADDED, PADDED]
    graded = [check("3+4*2-1=", text) for text in texts]
    found = summarize(graded, [len(text) for text in texts], samples_per_problem=2)
    assert found.answers == 6
    assert found.correct == (1, 2, 0)
    assert found.pass_at_1.mean == pytest.approx(0.5)
    assert found.pass_at_8.mean == pytest.approx(2 / 3)
    assert found.length.mean == pytest.approx(np.mean([len(text) for text in texts]))
    assert found.fillers.mean == pytest.approx(1.0)
    assert found.step_accuracy.mean == pytest.approx((1 + 2 / 3) / 2)
    assert found.format.mean == 1.0
    assert found.pass_at_1.high - found.pass_at_1.mean == pytest.approx(4.302653 * 0.5 / 3**0.5)


def test_is_ready_for_json() -> None:
    found = summarize([check("3+4*2-1=", SOLVED)] * 4, [23] * 4, samples_per_problem=2)
    rows = json.loads(json.dumps(found.as_dict()))
    assert rows["pass_at_1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert rows["answers"] == 4


def test_repeats_whatever_the_global_generator_holds(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    held_out = problems(6, "held_out")
    torch.manual_seed(1)
    first = evaluate(model, tokenizer, held_out, 4, seed=0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = evaluate(model, tokenizer, held_out, 4, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
    assert first != evaluate(model, tokenizer, held_out, 4, seed=1)


def test_leaves_mode_and_weights_as_they_were(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        evaluate(model, tokenizer, problems(2, "held_out"), 2)
        assert model.training is mode
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_samples_end_at_the_first_end_of_sequence_or_the_limit(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    found = sample(model, tokenizer, ["1+1+1=", "1+1+1+1+1="], 40, max_new_tokens=12)
    assert len(found) == 80
    for ids in found:
        ended = ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[:-1]
        assert len(ids) <= 12
        assert ended or len(ids) == 12
    assert {ids[-1] == tokenizer.eos_token_id for ids in found} == {True, False}


def test_sampling_follows_the_policys_probabilities(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    prompt, long = "1+1+1=", "1+1+1+1+1="
    with torch.no_grad():
        ids = torch.tensor([tokenizer(prompt).input_ids])
        expected = model(ids).logits[0, -1].softmax(-1)
    # left padding, which the longer neighbour forces on the prompt, must move nothing
    drawn = sample(model, tokenizer, [prompt, long], 3000, max_new_tokens=1)[:3000]
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=len(tokenizer))
    assert (counts / 3000 - expected).abs().max() < 0.03
