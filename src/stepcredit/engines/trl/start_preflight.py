"""The preflight of a run under TRL: rewards, signals and credit are tried before it samples."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerState

import stepcredit as sc
from stepcredit.engines.build import SPLITTER, SPLITTER_FIELDS, keeps_format
from stepcredit.engines.preflight.made_up_credit import CreditSources, Source, check_scoring
from stepcredit.engines.preflight.made_up_responses import (
    OUTCOMES,
    made_up_ids,
    made_up_responses,
    right_text,
)
from stepcredit.engines.preflight.preflight_report import Preflight, first_rows
from stepcredit.engines.run_record import Record, by_stream, describe
from stepcredit.engines.texts import question_of
from stepcredit.engines.trl.reward_values import format_values, outcome_values
from stepcredit.engines.trl.run_limits import (
    MEASURED_ROWS,
    check_output,
    check_policy_lengths,
    longest_prompt,
    prompt_ids_of,
    trained_bytes,
)
from stepcredit.engines.trl.signal_streams import Given, has_named_streams, policy_streams
from stepcredit.errors import EngineError
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import Splitter, Turns, splitter
from stepcredit.signals.state_keys import StateFunction

TRIED_ROWS = 8
"""Rows of the data set on which rewards are tried."""
PLACES = {
    "process": "process_signal",
    "logprobs": "logprobs",
    "method": "method",
    "splitter": "splitter",
    "states": "states",
}


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
        template: further arguments of the chat template.
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


def preflight_of_trainer(trainer: Any) -> Preflight:
    """The checks of a trainer that is about to sample.

    Args:
        trainer: a `StepCreditGRPOTrainer`.

    Returns:
        The results; nothing is raised.
    """
    found = Preflight()
    if trainer.rollout_func is not None or trainer.environments is not None:
        found.skip("rewards, signals and credit", "the run itself writes what they read")
    else:
        check_made_up(found, planned_run(trainer))
    args = trainer.args
    check_output(found, args, trained_bytes(trainer.model))
    longest = longest_prompt(first_rows(trainer.train_dataset, MEASURED_ROWS), trainer._tokenizer)
    check_policy_lengths(
        found, args, longest, trainer.accelerator.unwrap_model(trainer.model).config
    )
    return found


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


def check_made_up(found: Preflight, run: PlannedRun) -> None:
    """Try the rewards on the first rows, then score and credit three made-up responses.

    Args:
        found: gets the results.
        run: what they are computed from.
    """
    rows = first_rows(run.rows, TRIED_ROWS)
    if not rows or "prompt" not in rows[0]:
        found.skip("rewards, signals and credit", "the rows can be read only once")
        return
    if any(name in rows[0] for name in ("image", "images")):
        found.skip("rewards, signals and credit", "prompts with images")
        return
    ids = found.run(
        "tokens of the made-up responses",
        lambda: made_up_ids(run.tokenizer, rows[0], run.longest),
        at="processing_class",
    )
    if ids is None:
        return
    tried = _Tried.of(rows, ids, run.tokenizer)
    outcomes, formats = _rewards(found, run, tried)
    responses = found.run(
        "the made-up responses as signals read them",
        lambda: made_up_responses(
            ids,
            run.tokenizer,
            question=question_of(rows[0]["prompt"]),
            prompt_ids=prompt_ids_of(rows[0]["prompt"], run.tokenizer),
            row=rows[0],
            outcomes=outcomes or OUTCOMES,
            logprobs=list(run.trainer_models),
        ),
        at="processing_class",
    )
    if responses is not None:
        kept = _gate(found, run, formats, tried)
        check_scoring(
            found,
            _sources(run, tried),
            responses,
            outcomes=outcomes,
            formats=formats,
            format_ok=kept,
        )


@dataclass(frozen=True)
class _Tried:
    """What reward functions and callables are called with; the first three rows are one group."""

    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[list[int]]
    inputs: list[dict[str, Any]]

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]], ids: list[list[int]], tokenizer: Any) -> _Tried:
        others = rows[1:]
        texts = [*tokenizer.batch_decode(ids, skip_special_tokens=True), *map(right_text, others)]
        others_ids = [list(tokenizer(right_text(row))["input_ids"]) for row in others]
        inputs = [rows[0]] * len(ids) + list(others)
        in_turns = not isinstance(rows[0]["prompt"], str)
        return cls(
            prompts=[row["prompt"] for row in inputs],
            completions=[
                [{"role": "assistant", "content": text}] if in_turns else text for text in texts
            ],
            completion_ids=[*ids, *others_ids],
            inputs=inputs,
        )

    def group(self, size: int) -> dict[str, Any]:
        """The keywords of a callable signal or gate, for the first responses."""
        return {name: getattr(self, name)[:size] for name in vars(self)}

    def columns(self) -> dict[str, list[Any]]:
        """The data set's columns, one value per completion."""
        names = [name for name in self.inputs[0] if name not in ("prompt", "completion")]
        return {name: [row.get(name) for row in self.inputs] for name in names}


def _rewards(
    found: Preflight, run: PlannedRun, tried: _Tried
) -> tuple[list[float | None] | None, list[float | None] | None]:
    """Outcomes and format rewards of the three responses; made-up ones where a reward fails."""
    before, size = len(found.errors), len(OUTCOMES)
    columns = [_reward(found, name, each, tried) for name, each in run.reward_funcs.items()]
    if not columns or len(found.errors) > before:
        return list(OUTCOMES), None if run.format_reward is None else [1.0] * size
    values, names = torch.stack(columns, 1)[:size], list(run.reward_funcs)
    return (
        outcome_values(values, names, run.outcome_reward, run.format_reward),
        format_values(values, names, run.format_reward),
    )


def _reward(found: Preflight, name: str, function: Any, tried: _Tried) -> Tensor:
    """What a reward function gives for the made-up completions; NaN where it gives nothing."""
    unknown = torch.full((len(tried.prompts),), torch.nan)
    if isinstance(function, torch.nn.Module):
        found.skip(f"reward {name}", "a reward model")
        return unknown
    values = found.run(
        f"reward {name} on {len(tried.inputs) - 2} rows",
        lambda: _reward_values(function, tried),
        at=f"rewards.{name}",
    )
    return unknown if values is None else values


def _reward_values(function: Any, tried: _Tried) -> Tensor:
    """One value per completion.

    Raises:
        EngineError: another number of values, or one that is no number.
        Exception: whatever the function raises.
    """
    given = function(
        prompts=tried.prompts,
        completions=tried.completions,
        completion_ids=tried.completion_ids,
        trainer_state=TrainerState(),
        log_extra=lambda *_: None,
        log_metric=lambda *_: None,
        **tried.columns(),
    )
    values = list(asyncio.run(given) if asyncio.iscoroutine(given) else given)
    if len(values) != len(tried.prompts):
        raise EngineError(f"gave {len(values)} rewards for {len(tried.prompts)} completions")
    for value in values:
        if not isinstance(value, Real | None) and not torch.is_tensor(value):
            raise EngineError(f"gave {value!r}, expected a number or None")
    return torch.tensor([torch.nan if value is None else float(value) for value in values])


def _gate(
    found: Preflight, run: PlannedRun, formats: Sequence[float | None] | None, tried: _Tried
) -> list[bool] | None:
    """Which of the made-up responses keep the format."""
    gate = run.format_gate
    if callable(gate):
        size = len(OUTCOMES)
        kept = found.run(
            "the format gate",
            lambda: [bool(kept) for kept in gate(**tried.group(size))],
            at="format_gate",
        )
        return kept
    return None if formats is None else [keeps_format(value, gate) for value in formats]


def _sources(run: PlannedRun, tried: _Tried) -> CreditSources:
    default: Splitter = Turns(inside="extend") if run.has_tools else _default_splitter()
    logprobs = run.logprobs if isinstance(run.logprobs, Mapping) else {}
    return CreditSources(
        estimator=run.estimator,
        splitter=run.splitter or default,
        process={
            name: _source(each, tried) for name, each in by_stream(run.process_signal).items()
        },
        logprobs={name: _source(each, tried) for name, each in logprobs.items()},
        states=run.states,
        places=PLACES,
    )


def _default_splitter() -> Splitter:
    return splitter(SPLITTER, **SPLITTER_FIELDS)


def _source(given: Any, tried: _Tried) -> Source:
    """A signal itself; a callable as a function of responses."""
    if isinstance(given, Signal):
        return given

    def score(responses: Sequence[Response]) -> Any:
        lengths = [response.num_tokens for response in responses]
        own = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return policy_streams(given(**tried.group(len(responses))), own, lengths)

    return score
