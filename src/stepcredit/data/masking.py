"""The change between response tokens and trained tokens.

`padded` and `step_ids` read a trainer's tables, whose step ids are per response token; every other
module makes the change by these functions.

A token of a response has two numbers. Its *response* number counts all tokens of the response:
those of the policy, and those that a tool put between them. Its *trained* number counts only the
tokens that the mask trains. Signals read whole responses and give response numbers; `Rollouts` and
`Advantages` hold one value per trained token.

Functions ending in `_to_trained` go from response tokens to trained tokens, those ending in
`_to_response` go back. The functions whose names begin with `row_` change one row of Python lists,
as a file holds it; all others change a batch of tensors.
"""

from __future__ import annotations

from itertools import compress
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from stepcredit.data.forest import (
    masked_values,
    place_values,
    previous_values,
    row_index,
    slot_mask,
    to_dense,
    true_counts,
)
from stepcredit.data.streams import Stream

AnyStream = TypeVar("AnyStream", bound=Stream)
Mask = Bool[Tensor, "rollout token"]


def stream_to_trained(stream: AnyStream, trained: Mask) -> AnyStream:
    """A process stream over response tokens as the same stream over trained tokens.

    Args:
        stream: `Steps`, `StepStates`, `Tokens` or `TokenAdvantages`. It must fit the responses: a
            last step ends at the response's last token, and token streams have one value per
            response token.
        trained: True on the tokens that are trained, on the stream's device.

    Returns:
        The stream's own kind. A step without a trained token is left out, together with its score
        or its state.

    Example:
        >>> from stepcredit.data.streams import Steps
        >>> mask = torch.tensor([[True, False, False, True]])
        >>> kept = stream_to_trained(Steps(ends=[[0, 2, 3]], scores=[[0.75, 0.5, 0.25]]), mask)
        >>> kept.ends.tolist(), kept.values.tolist()
        ([0, 1], [0.75, 0.25])
    """
    of_steps: Tensor | None = getattr(stream, "ends", None)
    if of_steps is not None:
        ends, counts, kept = _ends_to_trained(of_steps, stream.counts, trained)
        return stream._of(ends=ends, values=stream.values[kept], counts=counts)
    values, counts = tokens_to_trained(stream.values, stream.counts, trained)
    return stream._of(values=values, counts=counts)


def step_ends_to_trained(step_ends: Stream, trained: Mask) -> Stream:
    """Step ends without scores, whose `values` are the ends, over trained tokens.

    A step without a trained token is left out.

    Example:
        >>> ends = Stream._of(values=torch.tensor([0, 2, 3]), counts=torch.tensor([3]))
        >>> step_ends_to_trained(ends, torch.tensor([[True, False, False, True]])).values.tolist()
        [0, 1]
    """
    ends, counts, _ = _ends_to_trained(step_ends.values, step_ends.counts, trained)
    return Stream._of(values=ends, counts=counts)


def _ends_to_trained(
    ends: Int[Tensor, " step"], counts: Int[Tensor, " rollout"], trained: Mask
) -> tuple[Int[Tensor, " kept"], Int[Tensor, " rollout"], Bool[Tensor, " step"]]:
    """Ends counted in trained tokens, steps per rollout, and which of the steps are kept."""
    rows = row_index(counts)
    last = ends.clamp(max=trained.shape[1] - 1)
    changed = trained.cumsum(1, dtype=torch.int32)[rows, last].long() - 1
    kept = changed > previous_values(changed, counts, -1)
    return changed[kept], torch.bincount(rows[kept], minlength=len(counts)), kept


def tokens_to_trained(
    values: Shaped[Tensor, " value"], counts: Int[Tensor, " rollout"], trained: Mask
) -> tuple[Shaped[Tensor, " kept"], Int[Tensor, " rollout"]]:
    """Packed values, one per response token, as those of trained tokens, and values per rollout.

    A rollout without values stays without.

    Example:
        >>> values, counts = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3])
        >>> tokens_to_trained(values, counts, torch.tensor([[True, False, True]]))[0].tolist()
        [1.0, 3.0]
    """
    present = slot_mask(counts, trained.shape[1])
    kept = trained & present
    dense = to_dense(values, counts, width=trained.shape[1], mask=present)
    return masked_values(dense, kept), true_counts(kept)


def tokens_to_response(
    values: Shaped[Tensor, " trained"], trained: Bool[Tensor, "*tokens"]
) -> Shaped[Tensor, "*tokens"]:
    """Packed values of trained tokens at their places among the response tokens, 0 elsewhere.

    Args:
        values: one per True of `trained`, rollout after rollout.
        trained: (rollout, token), or (token,) for one response.

    Example:
        >>> mask = torch.tensor([[True, False, True]])
        >>> tokens_to_response(torch.tensor([0.5, -1.0]), mask).tolist()
        [[0.5, 0.0, -1.0]]
    """
    return place_values(values, trained)


def ends_to_response(ends: Int[Tensor, " step"], trained: Bool[Tensor, " token"]) -> list[int]:
    """One response's step ends counted in response tokens; the last step ends with the response.

    Example:
        >>> ends_to_response(torch.tensor([0, 1]), torch.tensor([True, False, True, False]))
        [0, 3]
    """
    places: list[int] = trained.nonzero()[:, 0][ends].tolist()
    return [*places[:-1], trained.numel() - 1]


def turn_ends(trained: Mask) -> Stream:
    """The last token of each turn, counted in trained tokens; a turn is a run of trained tokens.

    Returns:
        Step ends without scores: `values` are the ends, `counts` the turns per rollout.

    Example:
        >>> ends = turn_ends(torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0]]).bool())
        >>> ends.values.tolist(), ends.counts.tolist()
        ([1, 2, 1], [2, 1])
    """
    following = torch.cat([trained[:, 1:], trained.new_zeros(len(trained), 1)], dim=1)
    last = trained & ~following
    return Stream._of(values=(trained.long().cumsum(1) - 1)[last], counts=last.sum(1))


def row_tokens_to_trained(values: list[Any], mask: list[int] | list[bool] | None) -> list[Any]:
    """One response's values at its trained tokens.

    Args:
        values: one per response token.
        mask: nonzero for a trained token; flags beyond the last token are padding. None: all tokens
            are trained.

    Example:
        >>> row_tokens_to_trained(["a", "b", "c"], [1, 0, 1])
        ['a', 'c']
    """
    return values if mask is None else list(compress(values, mask))


def row_steps_to_trained(
    ends: list[int], scores: list[Any], mask: list[int] | None
) -> tuple[list[int], list[Any]]:
    """One response's step ends counted in trained tokens, and the scores of the steps kept.

    A step without a trained token is left out, together with its score.

    Example:
        >>> row_steps_to_trained([0, 2, 3], [0.9, 0.5, 0.1], [1, 0, 0, 1])
        ([0, 1], [0.9, 0.1])
    """
    if mask is None:
        return ends, scores
    kept, values, start, trained = [], [], 0, 0
    for end, score in zip(ends, scores, strict=True):
        inside = sum(mask[start : end + 1])
        start = end + 1
        if inside:
            trained += inside
            kept.append(trained - 1)
            values.append(score)
    return kept, values


def row_tokens_to_response(
    values: np.ndarray[Any, Any], mask: list[int] | None
) -> np.ndarray[Any, Any]:
    """One response's values of trained tokens at their places among its tokens, 0 elsewhere.

    Example:
        >>> row_tokens_to_response(np.array([0.5, -1.0]), [1, 0, 1]).tolist()
        [0.5, 0.0, -1.0]
    """
    if mask is None:
        return values
    response = np.zeros(len(mask), dtype=values.dtype)
    response[np.array(mask, dtype=bool)] = values
    return response
