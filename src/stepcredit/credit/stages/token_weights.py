"""Weights of a response's tokens that leave its total credit unchanged: their mean is 1."""

from __future__ import annotations

import torch

from stepcredit.credit.stages.groups import PerRow, Values
from stepcredit.data.slots import Slots


def mean_one(weights: Values, slots: Slots) -> Values:
    """Weights divided by their mean over the trained tokens of each response.

        w'_j = w_j / (sum over l of n_l w_l / L),  n_l the tokens of slot l, L of the response

    Args:
        weights: (rollout, slot), at least 0, of any size that float64 holds.
        slots: where the columns lie; every token of a slot has its weight.

    Returns:
        (rollout, slot), 0 past a response's end; 1 everywhere where all weights are 0.

    Example:
        >>> steps = Slots(torch.tensor([2]), torch.tensor([4]), torch.tensor([[2, 3]]))
        >>> mean_one(torch.tensor([[1.0, 5.0]]).double(), steps).tolist()
        [[0.5, 2.5]]
    """
    kept = weights * slots.mask
    largest = kept.amax(1, keepdim=True)
    share = kept / torch.where(largest > 0, largest, 1.0)
    sizes = slots.sizes.to(torch.float64)
    mean = (share * sizes).sum(1, keepdim=True) / slots.lengths[:, None]
    weighted = share / torch.where(mean > 0, mean, 1.0)
    return torch.where(mean > 0, weighted, 1.0) * slots.mask


def softmax_weights(scores: Values, slots: Slots, temperature: float, sign: PerRow) -> Values:
    """Weights that grow with a score, or fall with it, with mean 1 over a response's tokens.

        w_j = exp(sign s_j / T), divided by its mean over the trained tokens

    Args:
        scores: s, (rollout, slot).
        slots: where the columns lie.
        temperature: T, above 0, in the unit of the scores.
        sign: (rollout, 1): 1, or -1 for a response whose low scores get the large weights.

    Returns:
        (rollout, slot), 0 past a response's end.

    Example:
        >>> steps = Slots(torch.tensor([2]), torch.tensor([2]), torch.tensor([[0, 1]]))
        >>> s, one = torch.tensor([[0.0, 3.0]]).double().log1p(), torch.ones(1, 1).double()
        >>> [round(x, 6) for x in softmax_weights(s, steps, 1.0, one)[0].tolist()]
        [0.4, 1.6]
        >>> [round(x, 6) for x in softmax_weights(s, steps, 1.0, -one)[0].tolist()]
        [1.6, 0.4]
    """
    signed = torch.where(slots.mask, sign * scores, -torch.inf)
    below = signed.amax(1, keepdim=True) - signed
    return mean_one(torch.where(slots.mask, below.div_(-temperature).exp_(), 0.0), slots)
