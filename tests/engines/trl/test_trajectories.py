"""Completions that a `rollout_func` names as parts of a trajectory are credited as one response."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics
from stepcredit.data.files.reading import read_rollouts, read_rows
from stepcredit.errors import RolloutError

NAMES = ["a", "b", "a", None, 1, 1, 1, "b"]  # two groups of four completions
OUTCOMES = [None, 0.0, 1.0, 0.5, 1.0, None, None, 0.0]


def rollout_of(tokenizer, names=NAMES):
    """A rollout_func: completions of two and three tokens."""

    def rollout(prompts, trainer):
        return {
            "prompt_ids": [tokenizer(prompt).input_ids for prompt in prompts],
            "completion_ids": [[3, 4, 5][: 2 + i % 2] for i in range(len(prompts))],
            "logprobs": None,
            "trajectory": names,
        }

    return rollout


def told(prompts, **_):
    return OUTCOMES


def made(make_trainer, task, names=NAMES, **changes):
    settings = {
        "args": {"max_steps": 1},
        "rollout_func": rollout_of(task.tokenizer, names),
        "reward_funcs": [told],
        "outcome_reward": "told",
        "format_reward": None,
        "process_signal": None,
        "method": sc.RLOO(),
    }
    return make_trainer(**{**settings, **changes})


def test_a_trajectory_is_one_response_of_its_group_by_hand(make_trainer, task, tmp_path):
    """1 less (0 + 0.5) / 2, 0 less 1.5 / 2, 0.5 less 1 / 2; and 1 less 0, 0 less 1."""
    trainer = made(make_trainer, task, rollouts_dir=tmp_path / "rollouts")
    trainer.train()
    credit = trainer.credited
    assert credit.advantages[:, 0].tolist() == [0.75, -0.75, 0.75, 0.0, 1.0, 1.0, 1.0, -1.0]
    assert credit.rollouts.joined().lengths.tolist() == [4, 3, 3, 7, 3]
    (path,) = (tmp_path / "rollouts").glob("*.jsonl")
    rows = list(read_rows(path))
    assert [row["trajectory"] for row in rows] == NAMES
    again = sc.RLOO()(read_rollouts(path)).ragged()
    for row, values in zip(rows, again, strict=True):
        assert row["advantages"] == pytest.approx(values.tolist())
    figures = training_metrics(credit.rollouts, trainer.estimator)
    assert figures["length"] == pytest.approx(20 / 5)
    assert list(trainer._logs["advantages"])[-8:] == credit.advantages[:, 0].tolist()


def test_a_column_of_the_data_set_is_no_trajectory(make_trainer, task, tmp_path):
    rows = [{"prompt": f"{n}+1=", "trajectory": "same"} for n in range(8)]
    trainer = made(
        make_trainer,
        task,
        train_dataset=Dataset.from_list(rows),
        reward_funcs=[lambda prompts, **_: [float(i) for i in range(len(prompts))]],
        outcome_reward=None,
        rollout_func=None,
        rollouts_dir=tmp_path / "rollouts",
    )
    trainer.train()
    assert trainer.credited.rollouts.trajectories is None
    (path,) = (tmp_path / "rollouts").glob("*.jsonl")
    assert {row.get("logged_trajectory") for row in read_rows(path)} == {"same"}


def test_parts_with_other_outcomes_are_refused_by_row(make_trainer, task):
    trainer = made(make_trainer, task, names=["a", "a", *[None] * 6])
    torch.manual_seed(0)
    trainer.reward_funcs = [lambda prompts, **_: [1.0, 0.5, *[0.0] * 6]]
    with pytest.raises(RolloutError) as caught:
        trainer.train()
    line = "row 1: outcome: is 0.5, but row 0 of its trajectory has 1.0"
    assert str(caught.value) == line
