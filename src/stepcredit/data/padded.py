"""A trainer's padded tensors, read for `Rollouts.from_padded`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from stepcredit.data.batch_streams import BatchStreams
from stepcredit.data.containers import array_like, integer_tensor, is_numeric
from stepcredit.data.forest import masked_values, true_counts
from stepcredit.data.inputs import Process, by_name, logprobs_field, named_streams, texts_of
from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.data.packing import grid_of, items_of, packed_numbers, trained_of
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.step_ids import IdRuns, StepPlaces, step_places, steps_left_out
from stepcredit.data.streams import Steps, Stream, Tokens
from stepcredit.errors import RolloutError

MOST_STEPS = 2**31


@dataclass(frozen=True)
class PaddedBatch:
    """What a trainer's padded tensors say, over trained tokens.

    Args:
        group: one label per rollout.
        lengths: trained tokens per rollout.
        streams: process streams, log-probs, step ends and texts.
        left_out: steps without a trained token.
        step_states: the states of the steps that have one, as `Rollouts` takes them.
    """

    group: Any
    lengths: Int[Tensor, " rollout"]
    streams: BatchStreams
    left_out: int
    step_states: Any = None


def read_padded(
    mask: Any,
    group: Any,
    step_id: Any,
    step_scores: Any,
    token_scores: Any,
    process: Process | None,
    logprobs: Mapping[str, Tensor] | None,
    tokens: Any,
    step_states: Any = None,
) -> PaddedBatch:
    """The arguments of `Rollouts.from_padded`, checked and over trained tokens.

    Raises:
        RolloutError: shapes that differ, step ids that decrease or lie outside `step_scores` or
            `step_states`.
    """
    trained = trained_of(mask)
    labels = _one_label_per_row(group, trained.shape[0])
    lengths = true_counts(trained)
    step_id = None if step_id is None else grid_of(step_id, "step_id", torch.int64)
    table = None if step_states is None else _state_table(step_states, trained.shape[0])
    steps = _process(trained, lengths, step_id, step_scores, token_scores, table)
    streams, ends, left_out = steps.streams, steps.ends, steps.left_out
    further = named_streams(process)
    if streams.keys() & further.keys():
        beside = "token_scores" if step_scores is None else "step_scores"
        raise RolloutError(f"a stream of this name comes from {beside}", field="process")
    streams |= further
    only_steps = {Steps} == set(map(type, streams.values()))
    read = BatchStreams(
        streams,
        _logprobs(logprobs, trained, lengths),
        None if only_steps and table is None else ends,
        None if tokens is None else _texts(tokens, trained),
    )
    return PaddedBatch(labels, lengths, read, left_out, steps.states)


def _one_label_per_row(group: Any, rows: int) -> Any:
    group = array_like(group, "group")
    if isinstance(group, Tensor | np.ndarray):
        labels = math.prod(group.shape)
    else:
        group = items_of(group, "group", "one label per rollout")
        labels = len(group)
    if labels != rows:
        raise RolloutError(f"{labels} labels, but the mask has {rows} rows", field="group")
    return group


@dataclass(frozen=True)
class _PaddedSteps:
    """The stream "process" if there is one, the step ends and states, and steps left out."""

    streams: dict[str, Stream]
    ends: Stream | None = None
    left_out: int = 0
    states: Any = None


def _process(
    trained: Tensor,
    lengths: Tensor,
    step_id: Tensor | None,
    step_scores: Tensor | None,
    token_scores: Tensor | None,
    states: _StateTable | None,
) -> _PaddedSteps:
    if step_scores is not None and (step_id is None or token_scores is not None):
        reason = "step_scores need step_id, and exclude token_scores"
        raise RolloutError(reason, field="step_scores")
    if states is not None and step_id is None:
        raise RolloutError("step_states need step_id", field=STATES)
    scores = None if step_scores is None else _score_table(step_scores, trained)
    runs = None if step_id is None else _id_runs(step_id, trained, lengths)
    streams: dict[str, Stream] = {}
    if token_scores is not None:
        streams["process"] = _token_stream(token_scores, trained, lengths, "token_scores")
    if runs is None:
        return _PaddedSteps(streams)
    most = scores.shape[1] if scores is not None else MOST_STEPS
    places, left_out = step_places(runs, lengths, most), 0
    if scores is not None:
        streams["process"] = _step_stream(places, scores)
        left_out = steps_left_out(runs, places, most)
    own = None if states is None else states.at(places)
    if scores is None and states is not None:
        left_out = steps_left_out(runs, places, states.width)
    return _PaddedSteps(streams, _ends_alone(places.ends, places.counts), left_out, own)


def _id_runs(step_id: Tensor, trained: Tensor, lengths: Tensor) -> IdRuns:
    _check_shape(step_id, trained, "step_id")
    return IdRuns.of(step_id.to(trained.device), trained, lengths)


def _token_stream(given: Any, trained: Tensor, lengths: Tensor, field: str) -> Tokens:
    """The values of a (rollout, token) table at the trained tokens."""
    table = grid_of(given, field)
    _check_shape(table, trained, field)
    values = masked_values(table.to(trained.device), trained)
    return Tokens._of(values=packed_numbers(values, lengths, field), counts=lengths)


def _check_shape(table: Tensor, trained: Tensor, field: str) -> None:
    if table.shape != trained.shape:
        reason = f"shape is {tuple(table.shape)}, the mask's is {tuple(trained.shape)}"
        raise RolloutError(reason, field=field)


def _ends_alone(ends: Tensor, counts: Tensor) -> Stream:
    return Stream._of(values=ends, counts=counts)


def _logprobs(
    given: Mapping[str, Tensor] | None, trained: Tensor, lengths: Tensor
) -> dict[str, Tokens]:
    return {
        name: _token_stream(table, trained, lengths, logprobs_field(name))
        for name, table in by_name(given, "logprobs", "log-probs by model").items()
    }


def _texts(tokens: Any, trained: Tensor) -> list[list[str]]:
    """The texts of trained tokens."""
    rows = texts_of(tokens) or []
    if len(rows) != trained.shape[0]:
        reason = f"{len(rows)} rows, but the mask has {trained.shape[0]}"
        raise RolloutError(reason, field="tokens")
    width = trained.shape[1]
    for row, texts in enumerate(rows):
        if len(texts) not in (0, width):
            reason = f"{len(texts)} texts, but the mask has {width} tokens"
            raise RolloutError(reason, row=row, field="tokens")
    return [
        row_tokens_to_trained(texts, kept)
        for texts, kept in zip(rows, trained.tolist(), strict=True)
    ]


def _step_stream(places: StepPlaces, scores: Tensor) -> Steps:
    """The scores of the steps that have a trained token."""
    values = packed_numbers(scores[places.rows, places.ids], places.counts, "step_scores")
    return Steps._of(ends=places.ends, values=values, counts=places.counts)


@dataclass(frozen=True)
class _StateTable:
    """The states of `from_padded`: a table of integers, or one list per rollout.

    Args:
        table: (rollout, step) or (rollout, step, level) integers; None: `rows` hold the states.
        rows: one list of states per rollout.
        width: ids of steps are below this number.
    """

    table: Tensor | None
    rows: list[list[Any]]
    width: int

    def at(self, places: StepPlaces) -> Any:
        """The states of the steps that have a trained token.

        Raises:
            RolloutError: a step beyond the states of its rollout.
        """
        if self.table is not None:
            self._check(places, places.ids >= self.table.shape[1])
            return self.table.to(places.ids.device)[places.rows, places.ids]
        sizes = torch.tensor([len(row) for row in self.rows], device=places.ids.device)
        self._check(places, places.ids >= sizes[places.rows])
        found: list[list[Any]] = [[] for _ in self.rows]
        for row, step in zip(places.rows.tolist(), places.ids.tolist(), strict=True):
            found[row].append(self.rows[row][step])
        return found

    def _check(self, places: StepPlaces, outside: Tensor) -> None:
        if bool(outside.any()):
            at = int(outside.nonzero()[0])
            row, step = int(places.rows[at]), int(places.ids[at])
            there = self.width if self.table is not None else len(self.rows[row])
            raise RolloutError(
                f"no state for step {step}: there are {there}", row=row, field=STATES
            )


def _state_table(given: Any, rows: int) -> _StateTable:
    given = array_like(given, STATES)
    if is_numeric(given):
        table = integer_tensor(given, STATES)
        if table.ndim not in (2, 3) or table.shape[0] != rows:
            expected = f"({rows}, steps) or ({rows}, steps, levels)"
            raise RolloutError(f"shape is {tuple(table.shape)}, expected {expected}", field=STATES)
        return _StateTable(table, [], table.shape[1])
    items = items_of(given, STATES, "a list of states per rollout")
    if len(items) != rows:
        raise RolloutError(f"{len(items)} rows, but the mask has {rows}", field=STATES)
    lists = [
        [] if keys is None else items_of(keys, STATES, "a list of states", row)
        for row, keys in enumerate(items)
    ]
    return _StateTable(None, lists, max(map(len, lists), default=0))


def _score_table(step_scores: Any, trained: Tensor) -> Tensor:
    scores = grid_of(step_scores, "step_scores").to(trained.device)
    if scores.ndim != 2 or scores.shape[0] != trained.shape[0]:
        expected = f"({trained.shape[0]}, steps)"
        reason = f"shape is {tuple(scores.shape)}, expected {expected}"
        raise RolloutError(reason, field="step_scores")
    return scores
