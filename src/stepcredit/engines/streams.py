"""Process streams that count all tokens of a response, over its trained tokens alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

import stepcredit as sc
from stepcredit.credit.stages.fusion import SCALARS, canonical_weights
from stepcredit.data.forest import slot_mask
from stepcredit.data.streams import Stream


def trained_steps(stream: sc.Steps, trained: Bool[Tensor, "rollout token"]) -> sc.Steps:
    """Ends counted over trained tokens; steps that hold none are left out.

    Example:
        >>> mask = torch.tensor([[True, False, False, True]])
        >>> found = trained_steps(sc.Steps(ends=[[0, 2, 3]], scores=[[0.9, 0.5, 0.1]]), mask)
        >>> found.ends.tolist(), [round(float(score), 1) for score in found.values]
        ([0, 1], [0.9, 0.1])
    """
    rows = torch.repeat_interleave(torch.arange(len(stream.counts)), stream.counts)
    counted = trained.long().cumsum(1)
    ends = counted[rows, stream.ends.clamp(max=trained.shape[1] - 1)] - 1
    previous = torch.cat([ends.new_full((1,), -1), ends[:-1]])
    previous[torch.cat([rows.new_ones(1, dtype=torch.bool), rows[1:] != rows[:-1]])] = -1
    kept = ends > previous
    counts = torch.bincount(rows[kept], minlength=len(stream.counts))
    return sc.Steps(ends=ends[kept], scores=stream.values[kept], counts=counts)


def trained_tokens(stream: Stream, trained: Bool[Tensor, "rollout token"]) -> Stream:
    """Values of trained tokens.

    Example:
        >>> mask = torch.tensor([[True, False, True]])
        >>> trained_tokens(sc.Tokens([[1.0, 2.0, 3.0]]), mask).values.tolist()
        [1.0, 3.0]
    """
    width = trained.shape[1]
    all_tokens = slot_mask(stream.counts, width)
    dense = stream.values.new_zeros(all_tokens.shape).masked_scatter(all_tokens, stream.values)
    kept = trained & all_tokens
    rebuilt = sc.TokenAdvantages if isinstance(stream, sc.TokenAdvantages) else sc.Tokens
    return rebuilt(dense[kept], counts=kept.sum(1))


def unweighed(
    estimator: sc.Estimator, streams: Iterable[str], scalars: Sequence[str] = SCALARS
) -> tuple[str, dict[str, float]] | None:
    """The first stream that a method of weighted process streams would leave out, and its weights.

    Args:
        estimator: the method.
        streams: names of the process streams it will be given.
        scalars: names of streams that are no process signal.

    Returns:
        None where all have a weight, or the method weighs no process streams, as GDPO.

    Example:
        >>> unweighed(sc.PASS(weights={"prm": 1.0, "outcome": 1.0}), ["prm", "judge"])
        ('judge', {'prm': 1.0, 'outcome': 1.0})
        >>> unweighed(sc.PASS(), ["process"]), unweighed(sc.GDPO(), ["process"])
        (None, None)
    """
    usual, given = (getattr(of, "weights", None) for of in (type(estimator), estimator))
    if given is None:
        return None
    weights = canonical_weights(given)
    if {*weights, *canonical_weights(usual or {})} <= set(scalars):
        return None
    return next(((stream, weights) for stream in streams if stream not in weights), None)
