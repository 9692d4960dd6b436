"""What takes turns: our paths from a trainer's data to advantages, a copy, and verl's functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import stepcredit as sc
from batches import Batch
from stepcredit.credit.metrics import training_metrics

Contenders = dict[str, Callable[[], Any]]
COPY = "tensor copy"
PADDED_STEPS, PADDED_TOKENS = (
    f"from_padded → PASS → padded, {kind}" for kind in ("steps", "tokens")
)
READ_STEPS, READ_TOKENS = "from_padded alone, steps", "from_padded alone, tokens"
PASS_STEPS, PASS_TOKENS = "PASS packed in, steps", "PASS packed in, tokens"
PURE_STEPS = "PURE packed in, steps"
TRL_STEPS, TRL_TOKENS = "TRL's hook, steps", "TRL's hook, tokens"
QUEUE_STEPS, QUEUE_TOKENS = "verl's queue → rows, steps", "verl's queue → rows, tokens"
METRICS_STEPS, METRICS_TOKENS = "training_metrics, steps", "training_metrics, tokens"
VECTORIZED, VERL_GRPO, VERL_GAE = "verl's grpo_vectorized", "verl's grpo", "verl's gae"
NAMES = (
    *(COPY, PADDED_STEPS, PADDED_TOKENS, READ_STEPS, READ_TOKENS),
    *(PASS_STEPS, PASS_TOKENS, PURE_STEPS, TRL_STEPS, TRL_TOKENS, QUEUE_STEPS, QUEUE_TOKENS),
    *(METRICS_STEPS, METRICS_TOKENS, VECTORIZED, VERL_GRPO, VERL_GAE),
)
"""All contenders, in the order of the tables."""


def core(batch: Batch) -> Contenders:
    """The paths of tensors; every one of them gives (rows, width), but `from_padded` alone."""
    table, width = torch.rand(batch.rows, batch.width, device=batch.device), batch.width
    steps, tokens = batch.step_tables, {"token_scores": batch.token_scores}
    pass_, pure = sc.PASS(), sc.PURE()  # a trainer makes its method once
    return {
        COPY: table.clone,
        PADDED_STEPS: lambda: pass_(batch.padded(**steps)).padded(batch.mask),
        PADDED_TOKENS: lambda: pass_(batch.padded(**tokens)).padded(batch.mask),
        READ_STEPS: lambda: batch.padded(**steps),
        READ_TOKENS: lambda: batch.padded(**tokens),
        PASS_STEPS: lambda: pass_(batch.packed(batch.steps)).padded(width=width),
        PASS_TOKENS: lambda: pass_(batch.packed(batch.tokens)).padded(width=width),
        PURE_STEPS: lambda: pure(batch.packed(batch.steps)).padded(width=width),
    }


def engines(batch: Batch) -> Contenders:
    """What the trainers' engines do between a trainer's data and its advantages."""
    found: Contenders = {}
    if find_spec("accelerate") is not None:
        found |= {
            TRL_STEPS: lambda: trl_hook(batch, batch.steps),
            TRL_TOKENS: lambda: trl_hook(batch, batch.tokens),
        }
    steps, tokens = batch.queue(batch.step_lists()), batch.queue(batch.token_lists())
    return found | {
        QUEUE_STEPS: lambda: verl_rows(steps),
        QUEUE_TOKENS: lambda: verl_rows(tokens),
    }


def trl_hook(batch: Batch, process: sc.Steps | sc.Tokens) -> Tensor:
    """From TRL's output and a signal's stream to the advantages of TRL's loss, in one process.

    The rollouts are made as the trainer's method makes them, which needs a whole trainer.
    """
    from stepcredit.engines.trl.distributed import RankData, all_gather
    from stepcredit.engines.trl.generation import Generation

    empty: list[Any] = [{}] * batch.rows
    sampled = Generation(empty, empty, empty, batch.completion_ids, batch.outcome[:, None])
    generation = sampled.with_output(batch.trl_output, first=0)
    data = all_gather(
        RankData(
            lengths=generation.policy_tokens.sum(1).tolist(),
            trained=generation.mask.any(1).tolist(),
            process=process,
        )
    )
    rollouts = sc.Rollouts(
        group=[row // batch.group_size for row in range(len(data.lengths))],
        lengths=data.lengths,
        process=data.process,
        outcome=generation.rewards[:, 0].double().tolist(),
    )
    advantages: Tensor = generation.with_credit(rollouts, sc.PASS()(rollouts)).advantages
    return advantages


def verl_rows(queue: tuple[dict[str, Any], list[str], list[Any]]) -> list[Tensor]:
    """From what verl's queue returned to the rows of advantages that are written back."""
    from stepcredit.engines.verl.batch import QueuedBatch
    from stepcredit.engines.verl.batch_credit import BatchCredit
    from stepcredit.engines.verl.config_keys import VerlSettings

    settings = VerlSettings.of({"algorithm": {"stepcredit": {}}})
    return BatchCredit(QueuedBatch.of(*queue), settings).rows()


def metrics(batch: Batch) -> Contenders:
    """`training_metrics` as engines call it, with the advantages."""
    steps, tokens = batch.packed(batch.steps), batch.packed(batch.tokens)
    method = sc.PASS()  # a trainer makes its method once
    of_steps, of_tokens = method(steps), method(tokens)
    return {
        METRICS_STEPS: lambda: training_metrics(steps, method, advantages=of_steps),
        METRICS_TOKENS: lambda: training_metrics(tokens, method, advantages=of_tokens),
    }


def verl_functions(batch: Batch) -> Contenders:
    """verl's advantage functions, where it is installed."""
    if find_spec("verl") is None:
        return {}
    from verl.trainer.ppo import core_algos as verl

    reward = torch.zeros(batch.rows, batch.width, device=batch.device)
    reward.scatter_(1, batch.lengths[:, None] - 1, batch.outcome[:, None])
    values, index, mask = torch.rand_like(reward), batch.group.cpu().numpy(), batch.mask
    return {
        VECTORIZED: lambda: verl.compute_grpo_vectorized_outcome_advantage(reward, mask, index),
        VERL_GRPO: lambda: verl.compute_grpo_outcome_advantage(reward, mask, index),
        VERL_GAE: lambda: verl.compute_gae_advantage_return(reward, values, mask, 1.0, 0.95),
    }
