"""pass@k of a held-out set, by TRL's own evaluation during training."""

from __future__ import annotations

import pytest
from datasets import Dataset

HELD_OUT = [{"prompt": prompt} for prompt in ("1+2=", "3+4=", "5+6=")]


def first_are_right(counts):
    """A reward that calls so many samples of each prompt right, in turns of the calls."""
    calls = []

    def accuracy(prompts, completions, **_):
        calls.append(prompts)
        right = dict(zip(("1+2=", "3+4=", "5+6="), counts, strict=True))
        seen: dict[str, int] = {}
        values = []
        for prompt in prompts:
            seen[prompt] = seen.get(prompt, 0) + 1
            values.append(float(seen[prompt] <= right.get(prompt, 1)))
        return values

    return accuracy


def test_an_evaluation_reports_pass_at_k_over_prompts(make_trainer):
    """4 samples each, 0, 1 and 2 right: pass@1 is 0, 1/4, 1/2; pass@2 is 0, 1/2, 5/6."""
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 2,
        "num_generations_eval": 4,
        "per_device_eval_batch_size": 8,  # two prompts, then one
    }
    trainer = make_trainer(
        args=settings,
        reward_funcs=[first_are_right((0, 1, 2))],
        eval_dataset=Dataset.from_list(HELD_OUT),
        format_reward=None,
    )
    trainer.train()
    (logged,) = [log for log in trainer.state.log_history if "eval_loss" in log]
    assert logged["eval_stepcredit/pass@1"] == pytest.approx((0 + 1 / 4 + 1 / 2) / 3)
    assert logged["eval_stepcredit/pass@2"] == pytest.approx((0 + 1 / 2 + 5 / 6) / 3)
    assert logged["eval_stepcredit/pass@4"] == pytest.approx(2 / 3)
    assert not any("pass@" in name for log in trainer.state.log_history[:1] for name in log)


def test_unknown_outcomes_give_no_pass_at_k(make_trainer):
    def accuracy(completions, **_):
        return [None] * len(completions)

    trainer = make_trainer(
        args={"num_generations_eval": 4, "per_device_eval_batch_size": 4},
        reward_funcs=[accuracy],
        eval_dataset=Dataset.from_list(HELD_OUT),
        format_reward=None,
    )
    assert not any("pass@" in name for name in trainer.evaluate())
