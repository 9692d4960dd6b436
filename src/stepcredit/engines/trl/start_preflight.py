"""The preflight of a run under TRL: rewards, signals and credit are tried before it samples."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerState

from stepcredit.engines.build import SPLITTER, SPLITTER_FIELDS, keeps_format
from stepcredit.engines.preflight.context_lengths import prompt_ids_of
from stepcredit.engines.preflight.made_up_credit import CreditSources, Source, check_scoring
from stepcredit.engines.preflight.made_up_responses import (
    OUTCOMES,
    TRIED_ROWS,
    made_up_ids,
    made_up_responses,
    right_text,
)
from stepcredit.engines.preflight.preflight_report import Preflight, first_rows
from stepcredit.engines.run_record import by_stream
from stepcredit.engines.texts import question_of
from stepcredit.engines.trl.planned_run import PlannedRun, planned_run
from stepcredit.engines.trl.reward_values import format_values, outcome_values
from stepcredit.engines.trl.run_limits import (
    check_output,
    check_policy_lengths,
    longest_prompt,
    trained_bytes,
)
from stepcredit.engines.trl.signal_streams import policy_streams
from stepcredit.errors import EngineError
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Signal
from stepcredit.signals.splitting import Splitter, Turns, splitter

PLACES = {
    "process": "process_signal",
    "logprobs": "logprobs",
    "method": "method",
    "splitter": "splitter",
    "states": "states",
}


def preflight_of_trainer(trainer: Any) -> Preflight:
    """The checks of a trainer that is about to sample.

    Args:
        trainer: a `StepCreditGRPOTrainer`.

    Returns:
        The results; nothing is raised.
    """
    found = Preflight()
    run, args = planned_run(trainer), trainer.args
    if trainer.rollout_func is not None or trainer.environment_factories is not None:
        found.skip("rewards, signals and credit", "the run itself writes what they read")
    else:
        check_made_up(found, run)
    weights, has_own = trained_bytes(trainer.model), _has_own_optimizer(trainer)
    check_output(found, args, weights, has_own_optimizer=has_own)
    longest = longest_prompt(run.rows, run.tokenizer, **run.template)
    check_policy_lengths(
        found, args, longest, trainer.accelerator.unwrap_model(trainer.model).config
    )
    return found


def _has_own_optimizer(trainer: Any) -> bool:
    return trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None


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
    tried = _Tried.of(rows, ids, run.tokenizer, run.num_generations)
    outcomes, formats = _rewards(found, run, tried)
    responses = found.run(
        "the made-up responses as signals read them",
        lambda: made_up_responses(
            ids,
            run.tokenizer,
            question=question_of(rows[0]["prompt"]),
            prompt_ids=prompt_ids_of(rows[0]["prompt"], run.tokenizer, **run.template),
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
    """What reward functions and callables are called with: whole groups, one prompt each.

    Args:
        prompts, completions, completion_ids, inputs: as TRL gives them. The completions of the
            first row are the made-up ones over and over, those of another row are right.
        first: how many are of the first row.
        rows: how many rows there are.
    """

    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[list[int]]
    inputs: list[dict[str, Any]]
    first: int
    rows: int

    @classmethod
    def of(
        cls, rows: Sequence[dict[str, Any]], ids: list[list[int]], tokenizer: Any, generations: int
    ) -> _Tried:
        first = ceil(len(ids) / generations) * generations
        repeated = (ids * first)[:first]
        others = [row for row in rows[1:] for _ in range(generations)]
        texts = [
            *tokenizer.batch_decode(repeated, skip_special_tokens=True),
            *map(right_text, others),
        ]
        others_ids = [list(tokenizer(right_text(row))["input_ids"]) for row in others]
        inputs = [rows[0]] * first + others
        in_turns = not isinstance(rows[0]["prompt"], str)
        return cls(
            prompts=[row["prompt"] for row in inputs],
            completions=[
                [{"role": "assistant", "content": text}] if in_turns else text for text in texts
            ],
            completion_ids=[*repeated, *others_ids],
            inputs=inputs,
            first=first,
            rows=len(rows),
        )

    def group(self) -> dict[str, Any]:
        """The keywords of a callable signal or gate, for the first row."""
        names = ("prompts", "completions", "completion_ids", "inputs")
        return {name: getattr(self, name)[: self.first] for name in names}

    def columns(self) -> dict[str, list[Any]]:
        """The data set's columns, one value per completion."""
        names = [name for name in self.inputs[0] if name not in _NOT_COLUMNS]
        return {name: [row.get(name) for row in self.inputs] for name in names}


_NOT_COLUMNS = ("prompt", "completion", "completion_ids")


def _rewards(
    found: Preflight, run: PlannedRun, tried: _Tried
) -> tuple[list[float | None] | None, list[float | None] | None]:
    """Outcomes and format rewards of the three responses; made-up ones where a reward is unknown.

    They are made up where a function fails or is not called, and where it can't judge the first
    row alone: a row without a gold answer is no fault.
    """
    size, names = len(OUTCOMES), list(run.reward_funcs)
    columns = [_reward(found, name, run, tried) for name in names]
    known = [column for column in columns if column is not None]
    if not known or len(known) < len(columns):
        return list(OUTCOMES), None if run.format_reward is None else [1.0] * size
    values = torch.stack(known, 1)
    formats = format_values(values[:size], names, run.format_reward)
    outcomes = outcome_values(values, names, run.outcome_reward, run.format_reward)
    if outcomes is None:
        return None, formats
    later = any(value is not None for value in outcomes[size:])
    if not later and set(outcomes[:size]) == {None}:
        said = f"no reward gives a number for one of the first {tried.rows} rows"
        found.note("outcomes", f"{said}: nothing is learned from outcomes there")
    return list(OUTCOMES) if later and set(outcomes[:size]) == {None} else outcomes[:size], formats


def _reward(found: Preflight, name: str, run: PlannedRun, tried: _Tried) -> Tensor | None:
    """What a reward function gives for the made-up completions; None: a fault, or not called."""
    if isinstance(run.reward_funcs[name], torch.nn.Module):
        found.skip(f"reward {name}", "a reward model")
        return None
    return found.run(
        f"reward {name} on {tried.rows} rows",
        lambda: _reward_values(run.reward_funcs[name], run.async_loop, tried),
        at=f"rewards.{name}",
    )


def _reward_values(function: Any, loop: asyncio.AbstractEventLoop | None, tried: _Tried) -> Tensor:
    """One value per completion.

    Args:
        function: the reward function.
        loop: TRL's own, on which it runs coroutines, so that what they open stays usable.
        tried: what it is called with.

    Raises:
        EngineError: another number of values, or one that is no number.
        Exception: whatever the function raises.
    """
    given = function(
        prompts=tried.prompts,
        completions=tried.completions,
        completion_ids=tried.completion_ids,
        trainer_state=TrainerState(epoch=0.0, max_steps=1, num_train_epochs=1),
        log_extra=lambda *_: None,
        log_metric=lambda *_: None,
        **tried.columns(),
    )
    if loop is not None and asyncio.iscoroutine(given):
        given = asyncio.run_coroutine_threadsafe(given, loop).result()
    values = [torch.nan if value is None else value for value in given]
    if len(values) != len(tried.prompts):
        raise EngineError(f"gave {len(values)} rewards for {len(tried.prompts)} completions")
    return torch.cat([_number(value) for value in values])


def _number(value: Any) -> Tensor:
    """A reward as a tensor of one value, by the same function of torch that TRL uses.

    Raises:
        EngineError: it is no number.
    """
    try:
        number = torch.tensor([value], dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        number = torch.empty(0)
    if number.shape != (1,):
        raise EngineError(f"gave {value!r}, expected a number or None")
    return number


def _gate(
    found: Preflight, run: PlannedRun, formats: Sequence[float | None] | None, tried: _Tried
) -> list[bool] | None:
    """Which of the made-up responses keep the format."""
    gate = run.format_gate
    if callable(gate):
        size = len(OUTCOMES)
        kept = found.run(
            "the format gate",
            lambda: [bool(kept) for kept in gate(**tried.group())][:size],
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
        lengths = [len(ids) for ids in tried.completion_ids[: tried.first]]
        own = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        rows = range(len(responses))
        streams: Any = policy_streams(given(**tried.group()), own, lengths)
        if isinstance(streams, Mapping):
            return {name: each.take(rows) for name, each in streams.items()}
        return streams.take(rows)

    return score
