"""The hook on the installed TRL: token credit arrives in the loss, and is the estimator's."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from tests.engines.trl.conftest import gradient
from trl import GRPOTrainer

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.errors import EngineError
from stepcredit.lab.tokenizer import EOS, PAD, UNKNOWN, VOCABULARY


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def mean_advantage(inputs):
    mask = inputs["completion_mask"]
    means = (inputs["advantages"] * mask).sum(1) / mask.sum(1)
    return means[:, None].expand_as(inputs["advantages"]) * mask


def panel(batch, estimator):
    """The metrics of a batch on the arithmetic task, whose tokens are characters."""
    shown = ["" if token in (EOS, PAD, UNKNOWN) else token for token in VOCABULARY]
    rows = [[shown[token] for token in ids] for ids in batch.completion_ids]
    stream = batch.rollouts.streams["process"]
    ends, steps = iter(stream.ends.tolist()), []
    for row, count in zip(rows, stream.counts.tolist(), strict=True):
        last = [-1, *(next(ends) for _ in range(count))]
        steps.append(["".join(row[a + 1 : b + 1]) for a, b in pairwise(last)])
    return training_metrics(
        batch.rollouts,
        estimator,
        steps=steps,
        texts=["".join(row) for row in rows],
        truncated=[VOCABULARY[ids[-1]] not in (EOS, PAD) for ids in batch.completion_ids],
    )


def test_every_update_passes_through_trls_loss_with_one_advantage_a_token(make_trainer, seen):
    trainer = make_trainer()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert len(seen) == trainer.state.global_step == 4
    for inputs in seen:
        advantages = inputs["advantages"]
        assert advantages.shape == inputs["completion_ids"].shape
        assert torch.isfinite(advantages).all()
        assert (advantages[inputs["completion_mask"] == 0] == 0).all()
        assert any(row.unique().numel() > 2 for row in advantages)
    after = list(trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_loss_gets_the_estimators_advantages_row_by_row(make_trainer, seen):
    trainer = make_trainer(args={"max_steps": 2})
    trainer.train()
    batch = trainer.credited
    expected = trainer.estimator(batch.rollouts).padded(batch.mask)
    assert torch.equal(batch.advantages, expected)
    credited = {
        tuple(ids): tuple(row[: len(ids)].tolist())
        for ids, row in zip(batch.completion_ids, expected, strict=True)
    }
    rows = 0
    for inputs in seen:
        for ids, mask, advantages in zip(
            inputs["completion_ids"], inputs["completion_mask"], inputs["advantages"], strict=True
        ):
            length = int(mask.sum())
            assert tuple(advantages[:length].tolist()) == credited[tuple(ids[:length].tolist())]
            rows += 1
    assert rows == 8


@pytest.mark.parametrize(
    ("args", "losses"),
    [
        ({"num_iterations": 2, "max_steps": 4}, 4),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 2}, 4),
        ({"num_iterations": 2, "gradient_accumulation_steps": 2, "max_steps": 2}, 4),
    ],
)
def test_every_pass_and_slice_of_a_generation_keeps_its_rows_credit(
    make_trainer, seen, args, losses
):
    trainer = make_trainer(args=args)
    trainer.train()
    batch = trainer.credited
    credited = {}
    for ids, row in zip(batch.completion_ids, batch.advantages, strict=True):
        credited.setdefault(tuple(ids), []).append(row[: len(ids)].tolist())
    assert len(seen) == losses
    rows = 0
    for inputs in seen:
        lengths = inputs["completion_mask"].sum(1).tolist()
        for ids, length, row in zip(
            inputs["completion_ids"].tolist(), lengths, inputs["advantages"].tolist(), strict=True
        ):
            assert row[:length] in credited[tuple(ids[:length])]
            rows += 1
    passes = args.get("num_iterations", 1)
    assert rows == passes * len(batch.completion_ids)


def test_groups_are_the_samplers_even_where_prompts_repeat(make_trainer):
    from datasets import Dataset

    trainer = make_trainer(train_dataset=Dataset.from_list([{"prompt": "1+2*3="}] * 8))
    trainer.train()
    assert trainer.credited.rollouts.group_index.tolist() == [0] * 4 + [1] * 4
    assert len(set(trainer.credited.prompts)) == 1


def test_the_gradient_is_not_that_of_the_mean_advantage(make_trainer, seen):
    trainer = make_trainer(args={"max_steps": 2})
    trainer.train()
    inputs = seen[-1]
    token = gradient(trainer, inputs)
    mean = gradient(trainer, inputs, advantages=mean_advantage(inputs))
    assert cosine(token, mean) < 0.99


def test_sequence_level_ratios_would_erase_token_credit(make_trainer, seen):
    trainer = make_trainer(args={"max_steps": 2, "loss_type": "grpo"})
    trainer.train()
    inputs = {**seen[-1]}
    inputs.pop("old_per_token_logps", None)
    trainer.importance_sampling_level = "sequence"
    token = gradient(trainer, inputs)
    mean = gradient(trainer, inputs, advantages=mean_advantage(inputs))
    assert cosine(token, mean) > 0.9999


def test_nan_on_padding_would_be_the_loss(make_trainer, seen):
    """So the advantages are 0 there: a mask does not take NaN away."""
    trainer = make_trainer(args={"max_steps": 2})
    trainer.train()
    inputs = next(inputs for inputs in seen if not inputs["completion_mask"].all())
    off = inputs["completion_mask"] == 0
    assert (inputs["advantages"][off] == 0).all()
    spoiled = inputs["advantages"].masked_fill(off, torch.nan)
    trainer.model.train()
    assert torch.isfinite(trainer._compute_loss(trainer.model, inputs))
    assert torch.isnan(trainer._compute_loss(trainer.model, {**inputs, "advantages": spoiled}))


def test_an_advantage_that_is_no_number_is_refused(make_trainer):
    """Ours give none; an estimator that somebody registers may."""

    @dataclass(frozen=True)
    class Broken(sc.GRPO):
        name = "broken"

        def __call__(self, rollouts):
            found = super().__call__(rollouts)
            values = found.values.clone()
            values[found.chunks[:2].sum()] = torch.nan
            return replace(found, values=values)

    with pytest.raises(EngineError) as refused:
        make_trainer(method=Broken()).train()
    assert str(refused.value) == (
        "row 2: method: broken gave an advantage that is not a finite number"
    )


def test_an_estimator_is_taken_by_its_method_name(make_trainer):
    assert make_trainer(method="pass-min").estimator == sc.PASSMin()


def test_a_masked_truncated_completion_is_not_trained_and_stays_in_its_group(make_trainer):
    trainer = make_trainer(args={"mask_truncated_completions": True, "max_completion_length": 3})
    trainer.train()
    batch = trainer.credited
    lengths = [len(ids) for ids in batch.completion_ids]
    ended = (trainer._tokenizer.eos_token_id, trainer._tokenizer.pad_token_id)
    truncated = torch.tensor([ids[-1] not in ended for ids in batch.completion_ids])
    assert truncated.any()
    assert batch.rollouts.lengths.tolist() == lengths
    assert (batch.advantages[truncated] == 0).all()
    assert not batch.mask[truncated].any()


def test_tool_tokens_get_no_credit_and_count_in_no_step(make_trainer, task):
    """Completions by a rollout function: tokens 3 and 4 are a tool's, and so is all of step 2."""
    draws = random.Random(0)
    ends, own = [2, 4, 7], [1, 1, 1, 0, 0, 1, 1, 1]

    def rollout(prompts, trainer):
        eos = trainer._tokenizer.eos_token_id
        ids = [[draws.randrange(10) for _ in range(7)] + [eos] for _ in prompts]
        return {
            "prompt_ids": [task.tokenizer(p).input_ids for p in prompts],
            "completion_ids": ids,
            "logprobs": None,
            "env_mask": [own for _ in prompts],
        }

    def signal(completion_ids, **_):
        return [(ends, [ids[0] / 10, 0.5, ids[5] / 10]) for ids in completion_ids]

    trainer = make_trainer(args={"max_steps": 2}, rollout_func=rollout, process_signal=signal)
    trainer.train()
    batch = trainer.credited
    steps = batch.rollouts.streams["process"]
    assert batch.rollouts.lengths.tolist() == [6] * 8
    assert steps.ends.view(8, 2).tolist() == [[2, 5]] * 8
    assert (batch.advantages[:, 3:5] == 0).all()
    offline = sc.Rollouts(
        group=[0] * 4 + [1] * 4,
        process=sc.Steps(
            [[2, 5]] * 8, [[ids[0] / 10, ids[5] / 10] for ids in batch.completion_ids]
        ),
        outcome=[0.0] * 8,
        format=[0.0] * 8,
        format_ok=[False] * 8,
    )
    expected = trainer.estimator(offline).padded(torch.tensor([own] * 8))
    assert torch.equal(batch.advantages, expected)


@pytest.mark.parametrize(
    ("gate", "kept"), [(None, [True, False, True, True]), (0.5, [True, False, False, True])]
)
def test_the_gate_is_the_format_reward_or_a_threshold(make_trainer, gate, kept):
    assert make_trainer(format_gate=gate)._format_ok([1.0, 0.0, 0.25, None]) == kept


def test_the_gate_may_be_a_callable(make_trainer):
    def gate(completion_ids, **_):
        return [ids[0] % 2 == 0 for ids in completion_ids]

    trainer = make_trainer(args={"max_steps": 2}, format_gate=gate)
    trainer.train()
    kept = [ids[0] % 2 == 0 for ids in trainer.credited.completion_ids]
    assert trainer.credited.rollouts.format_ok.tolist() == kept
    assert len(set(kept)) == 2


def test_the_outcome_is_the_sum_of_the_rewards_that_are_not_the_format(make_trainer):
    trainer = make_trainer(outcome_reward=None)
    rewards = torch.tensor([[1.0, 9.0, 0.5], [torch.nan, 9.0, 0.25], [torch.nan, 9.0, torch.nan]])
    assert trainer._outcome(rewards) == [1.5, 0.25, None]
    assert make_trainer(outcome_reward="accuracy")._outcome(rewards) == [1.0, None, None]


def test_the_table_and_the_metrics_show_the_new_advantages(make_trainer):
    trainer = make_trainer(args={"max_steps": 2})
    trainer.train()
    batch = trainer.credited
    means = batch.advantages.sum(1) / batch.mask.sum(1)
    assert list(trainer._logs["advantages"]) == pytest.approx(means.tolist(), abs=1e-6)
    logged = trainer.state.log_history[0]
    figures = panel(batch, trainer.estimator)
    assert {"process_std", "share/outcome", "clipped_share", "filler_gap"} <= set(figures)
    assert figures["truncated_share"] == pytest.approx(logged["completions/clipped_ratio"])
    shown = {name: value for name, value in logged.items() if name.startswith("stepcredit/")}
    times = [shown.pop(f"stepcredit/scoring_{of}/process") for of in ("seconds", "step_share")]
    assert min(times) > 0
    assert shown == {f"stepcredit/{name}": pytest.approx(v, 1e-6) for name, v in figures.items()}
    values = sc.PASS(weights=(1.0, 1.0, 0.3), gate=False)(batch.rollouts).packed()
    assert figures["clipped_share"] == pytest.approx(float((values.abs() > 5.0).float().mean()))
    assert figures["advantage_std"] == pytest.approx(float(values.std(correction=0)), 1e-5)


def test_evaluation_uses_its_own_group_size(make_trainer):
    from datasets import Dataset

    trainer = make_trainer(
        args={"num_generations_eval": 2, "per_device_eval_batch_size": 4},
        eval_dataset=Dataset.from_list([{"prompt": "1+2*3="}, {"prompt": "4-2*3="}]),
    )
    trainer.evaluate()
    assert trainer.credited.rollouts.group_index.tolist() == [0, 0, 1, 1]


def test_the_trainer_is_trls():
    assert issubclass(StepCreditGRPOTrainer, GRPOTrainer)
    assert "_compute_loss" not in vars(StepCreditGRPOTrainer)


def test_the_records_of_release_0_1_are_one_generation(make_trainer):
    with pytest.warns(DeprecationWarning, match="CreditedBatch is now Generation"):
        from stepcredit.engines.trl import CreditedBatch
    trainer = make_trainer(args={"max_steps": 2})
    trainer.train()
    assert isinstance(trainer.credited, CreditedBatch)
    with pytest.warns(DeprecationWarning, match="read the field of the generation itself"):
        assert trainer.credited.sampled.prompts == trainer.credited.prompts
