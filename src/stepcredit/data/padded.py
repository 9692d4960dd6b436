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
from stepcredit.data.forest import row_index
from stepcredit.data.inputs import Process, by_name, logprobs_field, named_streams, texts_of
from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.data.packing import grid_of, items_of, pack_numbers, trained_of
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
    lengths = trained.sum(1)
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
    ends, left_out = None, 0
    if step_id is not None and step_scores is not None:
        stream, left_out = _steps(trained, lengths, step_id, step_scores)
        return {"process": stream}, _ends_alone(stream.ends, stream.counts), left_out
    if step_id is not None:
        at, counts, _ = _step_ends(trained, lengths, step_id, MOST_STEPS)
        ends = _ends_alone(at, counts)
    if token_scores is None:
        return {}, ends, 0
    values = _trained(token_scores, trained, "token_scores")
    values, counts = pack_numbers(values, lengths, "token_scores")
    return {"process": Tokens._of(values=values, counts=counts)}, ends, 0


def _ends_alone(ends: Tensor, counts: Tensor) -> Stream:
    return Stream._of(values=ends, counts=counts)


def _logprobs(
    given: Mapping[str, Tensor] | None, trained: Tensor, lengths: Tensor
) -> dict[str, Tokens]:
    named = {}
    for name, tensor in by_name(given, "logprobs", "log-probs by model").items():
        field = logprobs_field(name)
        values, counts = pack_numbers(_trained(tensor, trained, field), lengths, field)
        named[name] = Tokens._of(values=values, counts=counts)
    return named


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


def _trained(given: Any, trained: Tensor, field: str) -> Tensor:
    values = grid_of(given, field)
    if values.shape != trained.shape:
        reason = f"shape is {tuple(values.shape)}, the mask's is {tuple(trained.shape)}"
        raise RolloutError(reason, field=field)
    return values.to(trained.device)[trained]


def _steps(trained: Tensor, lengths: Tensor, step_id: Tensor, scores: Tensor) -> tuple[Steps, int]:
    """The steps that have a trained token, and the number of steps that have none."""
    scores = grid_of(scores, "step_scores").to(trained.device)
    if scores.ndim != 2 or scores.shape[0] != trained.shape[0]:
        expected = f"({trained.shape[0]}, steps)"
        reason = f"shape is {tuple(scores.shape)}, expected {expected}"
        raise RolloutError(reason, field="step_scores")
    ends, counts, ids = _step_ends(trained, lengths, step_id, scores.shape[1])
    rows = row_index(counts)
    values, _ = pack_numbers(scores[rows, ids], counts, "step_scores")
    kept = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    kept[rows, ids] = True
    left_out = _left_out(trained, step_id, kept)
    return Steps._of(ends=ends, values=values, counts=counts), left_out


def _left_out(trained: Tensor, step_id: Tensor, kept: Tensor) -> int:
    """The number of steps that have tokens, but no trained one."""
    step_id = step_id.to(trained.device)
    off = (step_id >= 0) & ~trained
    if not bool(off.any()):
        return 0
    off[:, 1:] &= step_id[:, 1:] != step_id[:, :-1]
    rows = off.nonzero()[:, 0]
    ids = step_id[off]
    scored = ids < kept.shape[1]
    lost = torch.zeros_like(kept)
    lost[rows[scored], ids[scored]] = True
    return int((lost & ~kept).sum())


def _step_ends(
    trained: Tensor, lengths: Tensor, step_id: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Last trained token of each step that has one, steps per rollout, and the steps' ids."""
    ids = _trained(step_id, trained, "step_id")
    rows = row_index(lengths)
    _check_ids(ids, rows, steps)
    starts = lengths.cumsum(0) - lengths
    ids = _join(ids, rows)
    last = torch.ones_like(ids, dtype=torch.bool)
    last[:-1] = (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1])
    at = (last & (ids >= 0)).nonzero().squeeze(1)
    counts = torch.bincount(rows[at], minlength=lengths.numel())
    return at - starts[rows[at]], counts, ids[at]


def _check_ids(ids: Tensor, rows: Tensor, steps: int) -> None:
    if ids.numel() and (int(ids.max()) >= steps or int(ids.min()) < -1):
        index = int(((ids >= steps) | (ids < -1)).nonzero()[0])
        reason = f"{int(ids[index])} is outside -1..{steps - 1}"
        raise RolloutError(reason, row=int(rows[index]), field="step_id")


def _join(ids: Tensor, rows: Tensor) -> Tensor:
    """Give tokens outside all steps the id before them, or at a row's beginning the first id."""
    span = int(ids.max()) + 2 if ids.numel() else 1
    keyed = torch.where(ids >= 0, ids + rows * span, rows * span - 1)
    filled = keyed.cummax(0).values - rows * span
    on_step = ids >= 0
    if bool((on_step & (filled != ids)).any()):
        row = int(rows[(on_step & (filled != ids)).nonzero()[0, 0]])
        raise RolloutError("step ids must not decrease", row=row, field="step_id")
    if bool((filled < 0).any()):
        filled = torch.where(filled < 0, _next_id(ids, rows), filled)
    return filled


def _next_id(ids: Tensor, rows: Tensor) -> Tensor:
    """For each token, the id of the first token on a step from it on in its row; -1 if none."""
    at = torch.where(ids >= 0, torch.arange(ids.numel(), device=ids.device), ids.numel())
    nearest = at.flip(0).cummin(0).values.flip(0).clamp(max=ids.numel() - 1)
    same_row = (rows[nearest] == rows) & (ids[nearest] >= 0)
    return torch.where(same_row, ids[nearest], -1)
