"""What rewards and credit of a run under TRL are computed from, as it is known before it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import stepcredit as sc
from stepcredit.engines.build import SPLITTER
from stepcredit.engines.run_record import Record, describe
from stepcredit.engines.trl.signal_streams import Given, has_named_streams
from stepcredit.signals.splitting import Splitter, Turns
from stepcredit.signals.state_keys import StateFunction


@dataclass(frozen=True)
class PlannedRun:
    """What rewards and credit of a run are computed from, before there is a trainer.

    Args:
        estimator: the method.
        reward_funcs: the reward functions, by name.
        tokenizer: the policy's.
        rows: the training set.
        longest: the most tokens of a completion.
        process_signal, logprobs, outcome_reward, format_reward, format_gate, splitter, states: as
            `StepCreditGRPOTrainer` takes them.
        trainer_models: the models whose log-probs the trainer computes.
        has_tools: whether tools write some of the tokens.
        num_generations: completions per prompt.
        template: further arguments of the chat template.
        async_loop: runs reward functions that are coroutine functions; None: there are none.
    """

    estimator: sc.Estimator
    reward_funcs: Mapping[str, Any]
    tokenizer: Any
    rows: Any
    longest: int
    process_signal: Given = None
    logprobs: Given = None
    outcome_reward: str | None = None
    format_reward: str | None = None
    format_gate: Any = None
    splitter: Splitter | None = None
    states: StateFunction | None = None
    trainer_models: Iterable[str] = ()
    has_tools: bool = False
    num_generations: int = 1
    template: Mapping[str, Any] = field(default_factory=dict)
    async_loop: asyncio.AbstractEventLoop | None = None


def planned_run(trainer: Any) -> PlannedRun:
    """What a trainer computes rewards and credit from."""
    functions = zip(trainer.reward_func_names, trainer.reward_funcs, strict=True)
    teacher = [] if trainer._teacher is None else ["teacher"]
    return PlannedRun(
        estimator=trainer.estimator,
        reward_funcs=dict(functions),
        tokenizer=trainer._tokenizer,
        rows=trainer.train_dataset,
        longest=trainer.max_completion_length,
        process_signal=trainer.process_signal,
        logprobs=trainer.logprobs,
        outcome_reward=trainer.outcome_reward,
        format_reward=trainer.format_reward,
        format_gate=trainer.format_gate,
        splitter=trainer.splitter,
        states=trainer.states,
        trainer_models=[*trainer._models, *teacher],
        has_tools=bool(trainer.tools),
        num_generations=trainer.num_generations,
        template={
            "tools": trainer.tools or None,
            "chat_template": trainer.chat_template,
            **trainer.chat_template_kwargs,
        },
        async_loop=getattr(trainer, "async_loop", None),
    )


def planned_record(run: PlannedRun, right_above: float) -> Record:
    """What credit is made of, as it is printed at the start and kept with checkpoints.

    Args:
        run: what it is computed from; of the reward functions, their names.
        right_above: the outcome above which the metrics call a response right.
    """
    others = [name for name in run.reward_funcs if name != run.format_reward]
    chosen = others if run.outcome_reward is None else [run.outcome_reward]
    default: Any = Turns(inside="extend") if run.has_tools else SPLITTER
    return describe(
        run.estimator,
        run.process_signal,
        outcome=" + ".join(chosen) or "none",
        format_reward=run.format_reward,
        gate=run.format_gate,
        splitter=run.splitter or default,
        logprobs=run.logprobs,
        untrained=[name for name in others if name not in chosen],
        right_above=right_above,
        complete=has_named_streams(run.process_signal),
    )
