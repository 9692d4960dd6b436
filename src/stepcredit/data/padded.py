"""Rollouts from a trainer's padded tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from stepcredit.data.forest import not_zero
from stepcredit.data.inputs import Scalars
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream, Tokens
from stepcredit.errors import RolloutError


def from_padded(
    mask: Shaped[Tensor, "rollout token"],
    group: Sequence[Any] | Tensor,
    step_id: Int[Tensor, "rollout token"] | None = None,
    step_scores: Float[Tensor, "rollout step"] | None = None,
    token_scores: Float[Tensor, "rollout token"] | None = None,
    outcome: Scalars | None = None,
    format: Scalars | None = None,
    format_ok: Sequence[bool] | Tensor | None = None,
    process: Mapping[str, Stream] | None = None,
    logprobs: Mapping[str, Float[Tensor, "rollout token"]] | None = None,
) -> Rollouts:
    """Rollouts from padded tensors: left padding, right padding and holes (tool output) alike.

    Args:
        mask: nonzero where a token is trained.
        group: prompt of each rollout.
        step_id: the step each token belongs to, an index into its row of `step_scores`, -1 off any
            step. Along the trained tokens it may not decrease. A trained token off any step joins
            the step before it, at the beginning the first one. A step without a trained token is
            left out, with its score; a rollout without any step has none of the signal.
        step_scores: one score a step; the stream "process".
        token_scores: or one score a token, read where the mask is set.
        outcome, format, format_ok: one a rollout, as for `Rollouts`.
        process: further streams, over trained tokens, as for `Rollouts`.
        logprobs: {"student" | "teacher" | ...: one log-prob a token, read where the mask is set}.

    Returns:
        Rollouts on the mask's device; `estimator(rollouts).padded(mask)` goes back.

    Raises:
        RolloutError: shapes that differ, step ids that decrease or lie outside `step_scores`.

    Example:
        >>> ids, scores = torch.tensor([[-1, 0, 0, 1]]), torch.tensor([[0.9, 0.2]])
        >>> mask = torch.tensor([[0, 1, 1, 1]])
        >>> r = from_padded(mask, group=[7], step_id=ids, step_scores=scores)
        >>> r.streams["process"].ends.tolist(), r.lengths.tolist()
        ([1, 2], [3])
    """
    if mask.ndim != 2:
        raise RolloutError(
            f"shape is {tuple(mask.shape)}, expected (rollouts, tokens)", field="mask"
        )
    trained = not_zero(mask)
    lengths = trained.sum(1)
    streams = dict(process or {})
    if step_scores is not None:
        if step_id is None or token_scores is not None:
            reason = "step_scores need step_id, and exclude token_scores"
            raise RolloutError(reason, field="step_scores")
        streams = {"process": _steps(trained, lengths, step_id, step_scores), **streams}
    elif token_scores is not None:
        tokens = Tokens(_trained(token_scores, trained, "token_scores"), lengths)
        streams = {"process": tokens, **streams}
    probs = {
        name: Tokens(_trained(values, trained, name), lengths)
        for name, values in (logprobs or {}).items()
    }
    return Rollouts(group, lengths, streams, outcome, format, format_ok, logprobs=probs)


def _trained(values: Tensor, trained: Tensor, field: str) -> Tensor:
    if values.shape != trained.shape:
        reason = f"shape is {tuple(values.shape)}, the mask's is {tuple(trained.shape)}"
        raise RolloutError(reason, field=field)
    return values[trained]


def _steps(trained: Tensor, lengths: Tensor, step_id: Tensor, scores: Tensor) -> Steps:
    """Ends and scores of the steps that have a trained token."""
    if scores.ndim != 2 or scores.shape[0] != trained.shape[0]:
        expected = f"({trained.shape[0]}, steps)"
        raise RolloutError(
            f"shape is {tuple(scores.shape)}, expected {expected}", field="step_scores"
        )
    ids = _trained(step_id, trained, "step_id").to(torch.int64)
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=ids.device), lengths)
    _check_ids(ids, rows, scores.shape[1])
    starts = lengths.cumsum(0) - lengths
    ids = _join(ids, rows)
    last = torch.ones_like(ids, dtype=torch.bool)
    last[:-1] = (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1])
    at = (last & (ids >= 0)).nonzero().squeeze(1)
    counts = torch.bincount(rows[at], minlength=lengths.numel())
    return Steps(at - starts[rows[at]], scores[rows[at], ids[at]], counts)


def _check_ids(ids: Tensor, rows: Tensor, steps: int) -> None:
    if ids.numel() and (int(ids.max()) >= steps or int(ids.min()) < -1):
        index = int(((ids >= steps) | (ids < -1)).nonzero()[0])
        reason = f"{int(ids[index])} is outside -1..{steps - 1}"
        raise RolloutError(reason, row=int(rows[index]), field="step_id")


def _join(ids: Tensor, rows: Tensor) -> Tensor:
    """Tokens off any step take the id before them, at a row's beginning the first one's."""
    span = int(ids.max()) + 2 if ids.numel() else 1
    keyed = torch.where(ids >= 0, ids + rows * span, rows * span - 1)
    carried = keyed.cummax(0).values - rows * span
    on_step = ids >= 0
    if bool((on_step & (carried != ids)).any()):
        row = int(rows[(on_step & (carried != ids)).nonzero()[0, 0]])
        raise RolloutError("step ids must not decrease", row=row, field="step_id")
    if bool((carried < 0).any()):
        carried = torch.where(carried < 0, _next_id(ids, rows), carried)
    return carried


def _next_id(ids: Tensor, rows: Tensor) -> Tensor:
    """The id of the first on-step token at or after each token in its row, -1 if there is none."""
    at = torch.where(ids >= 0, torch.arange(ids.numel(), device=ids.device), ids.numel())
    nearest = at.flip(0).cummin(0).values.flip(0).clamp(max=ids.numel() - 1)
    same_row = (rows[nearest] == rows) & (ids[nearest] >= 0)
    return torch.where(same_row, ids[nearest], -1)
