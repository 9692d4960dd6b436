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
from stepcredit.data.containers import array_like
from stepcredit.data.forest import masked_values, true_counts
from stepcredit.data.inputs import Process, by_name, logprobs_field, named_streams, texts_of
from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.data.packing import grid_of, items_of, packed_numbers, trained_of
from stepcredit.data.step_ids import IdRuns, step_places, steps_left_out
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
    """

    group: Any
    lengths: Int[Tensor, " rollout"]
    streams: BatchStreams
    left_out: int


def read_padded(
    mask: Any,
    group: Any,
    step_id: Any,
    step_scores: Any,
    token_scores: Any,
    process: Process | None,
    logprobs: Mapping[str, Tensor] | None,
    tokens: Any,
) -> PaddedBatch:
    """The arguments of `Rollouts.from_padded`, checked and over trained tokens.

    Raises:
        RolloutError: shapes that differ, step ids that decrease or lie outside `step_scores`.
    """
    trained = trained_of(mask)
    labels = _one_label_per_row(group, trained.shape[0])
    lengths = true_counts(trained)
    step_id = None if step_id is None else grid_of(step_id, "step_id", torch.int64)
    streams, ends, left_out = _process(trained, lengths, step_id, step_scores, token_scores)
    further = named_streams(process)
    if streams.keys() & further.keys():
        beside = "token_scores" if step_scores is None else "step_scores"
        raise RolloutError(f"a stream of this name comes from {beside}", field="process")
    streams |= further
    only_steps = {Steps} == set(map(type, streams.values()))
    read = BatchStreams(
        streams,
        _logprobs(logprobs, trained, lengths),
        None if only_steps else ends,
        None if tokens is None else _texts(tokens, trained),
    )
    return PaddedBatch(labels, lengths, read, left_out)


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


def _process(
    trained: Tensor,
    lengths: Tensor,
    step_id: Tensor | None,
    step_scores: Tensor | None,
    token_scores: Tensor | None,
) -> tuple[dict[str, Stream], Stream | None, int]:
    """The stream "process" if there is one, the step ends, and the number of steps left out."""
    if step_scores is not None and (step_id is None or token_scores is not None):
        reason = "step_scores need step_id, and exclude token_scores"
        raise RolloutError(reason, field="step_scores")
    if step_id is not None and step_scores is not None:
        scores = _score_table(step_scores, trained)
        runs = _id_runs(step_id, trained, lengths)
        stream, left_out = _step_stream(runs, lengths, scores)
        return {"process": stream}, _ends_alone(stream.ends, stream.counts), left_out
    ends = None
    if step_id is not None:
        places = step_places(_id_runs(step_id, trained, lengths), lengths, MOST_STEPS)
        ends = _ends_alone(places.ends, places.counts)
    if token_scores is None:
        return {}, ends, 0
    return {"process": _token_stream(token_scores, trained, lengths, "token_scores")}, ends, 0


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


def _step_stream(runs: IdRuns, lengths: Tensor, scores: Tensor) -> tuple[Steps, int]:
    """The steps that have a trained token, and the number of steps that have none."""
    places = step_places(runs, lengths, scores.shape[1])
    values = packed_numbers(scores[places.rows, places.ids], places.counts, "step_scores")
    stream = Steps._of(ends=places.ends, values=values, counts=places.counts)
    return stream, steps_left_out(runs, places, scores.shape[1])


def _score_table(step_scores: Any, trained: Tensor) -> Tensor:
    scores = grid_of(step_scores, "step_scores").to(trained.device)
    if scores.ndim != 2 or scores.shape[0] != trained.shape[0]:
        expected = f"({trained.shape[0]}, steps)"
        reason = f"shape is {tuple(scores.shape)}, expected {expected}"
        raise RolloutError(reason, field="step_scores")
    return scores
