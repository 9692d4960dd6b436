"""The lab's trainer takes the log-probs of the completions from their sampler, and no others."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tests.lab.test_train import MICRO

from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.lab import loop
from stepcredit.lab.arithmetic import build_tokenizer
from stepcredit.lab.model import build_model

LOGPROBS = "_get_per_token_logps_and_entropies"


@pytest.fixture
def trainer(tmp_path: Any) -> Any:
    tokenizer = build_tokenizer()
    model = loop.without_padding(build_model(tokenizer, MICRO.warm.model, seed=1))
    task = loop.grader(MICRO, model, tokenizer)
    estimator = MICRO.estimator("pass", {})
    with loop.quiet():
        return loop.build_trainer(MICRO, model, tokenizer, task, estimator, tmp_path)


def inputs_of(output: dict[str, Any]) -> tuple[Any, ...]:
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
    return ids, mask, output["completion_ids"].shape[1]


def test_known_log_probs_are_those_of_trls_own_pass(trainer: Any) -> None:
    rows = [{"prompt": p} for p in ("3+4*2=", "1+1+1+1+1=") for _ in range(4)]
    with loop.quiet():
        output = trainer._generate_and_score_completions(rows)
    known, inputs = output["old_per_token_logps"], inputs_of(output)
    with torch.no_grad():
        own = getattr(StepCreditGRPOTrainer, LOGPROBS)(trainer, trainer.model, *inputs)[0]
    seen = output["completion_mask"].bool()
    assert len(set(output["completion_mask"].sum(1).tolist())) > 1
    torch.testing.assert_close(known[seen], own[seen], atol=1e-5, rtol=0)
    assert not known[~seen].any()


def test_other_completions_gradients_and_entropies_are_computed(trainer: Any) -> None:
    rows = [{"prompt": "3+4*2="}] * 8
    with loop.quiet():
        output = trainer._generate_and_score_completions(rows)
    ids, mask, kept = inputs_of(output)
    other = ids.clone()
    other[0, -kept] = (other[0, -kept] + 1) % 5
    compute = getattr(trainer, LOGPROBS)
    assert compute(trainer.model, ids, mask, kept)[0].requires_grad
    with torch.no_grad():
        assert compute(trainer.model, ids, mask, kept, compute_entropy=True)[1] is not None
        changed, known = (compute(trainer.model, text, mask, kept)[0] for text in (other, ids))
        one_row = compute(trainer.model, ids[:1], mask[:1], kept)[0]
    assert (changed[0] - known[0]).abs().max() > 1e-3
    assert one_row.shape == (1, kept)
