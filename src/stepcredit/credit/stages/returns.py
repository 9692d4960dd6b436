"""Returns along a response: the return-to-go, Divide-Length, and the min-form.

All functions take dense row x slot tables in float64. A chunk is a run of slots, and `chunk_ends`
is True on its last slot, where its value is read (None: every slot is a chunk). A result is the
same on all slots of a chunk.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from stepcredit.credit.stages.groups import TOLERANCE, Group, Mask, Values
from stepcredit.data.forest import (
    countdown,
    discounted_suffix_sum,
    falling,
    from_row_ends,
    suffix_sum,
)


def return_to_go(values: Values, chunk_ends: Mask | None = None, gamma: float = 1.0) -> Values:
    """Sum of the chunk values from a slot's chunk to the response's end.

        G_j = sum over j' >= j of gamma^(j' - j) A_j'          0^0 = 1

    Args:
        values: (rollout, slot), 0 past a response's end; read at chunk ends.
        chunk_ends: the last slot of each chunk; None: every slot is a chunk.
        gamma: the discount per chunk, from 0 to 1.

    Returns:
        (rollout, slot): each slot holds its chunk's G_j.

    Example:
        >>> return_to_go(torch.tensor([[1.0, 2.0, 4.0]]).double()).tolist()
        [[7.0, 6.0, 4.0]]
        >>> ends = torch.tensor([[False, True, True]])
        >>> return_to_go(torch.tensor([[1.0, 2.0, 4.0]]).double(), ends).tolist()
        [[6.0, 6.0, 4.0]]
        >>> return_to_go(torch.tensor([[1.0, 2.0, 4.0]]).double(), ends, gamma=0.5).tolist()
        [[4.0, 4.0, 4.0]]

    Source: PASS (2606.29296) Eq. 6; GRPO with process supervision (2402.03300) section 4.1.3.
        Differs: both have no discount.
    """
    read = values if chunk_ends is None else values * chunk_ends
    if gamma == 1:
        return suffix_sum(read)
    per_slot = torch.full_like(read, gamma)
    factor = per_slot if chunk_ends is None else torch.where(chunk_ends, per_slot, 1.0)
    return discounted_suffix_sum(read, factor)


def residual(
    counts: Int64[Tensor, " rollout"], width: int, k: float, chunk_ends: Mask | None = None
) -> tuple[Values, Values]:
    """How many chunks are left from a slot's chunk to the response's end, and that number to the k.

        n_j = K - j + 1,  n_j^k

    Args:
        counts: slots per response.
        width: columns of the table.
        k: exponent, at least 0.
        chunk_ends: the last slot of each chunk; None: every slot is a chunk.

    Returns:
        n and n^k, (rollout, slot); past a response's end 0 and 1.

    Example:
        >>> n, power = residual(torch.tensor([3, 1]), 3, k=2.0)
        >>> n.tolist(), power.tolist()
        ([[3.0, 2.0, 1.0], [1.0, 0.0, 0.0]], [[9.0, 4.0, 1.0], [1.0, 1.0, 1.0]])

    Source: PASS (2606.29296) Algorithm 3.
    """
    if chunk_ends is None:
        reversed_tables = _falling(1 << width.bit_length(), k, counts.device)
        left, powers = (countdown(table, counts, width) for table in reversed_tables)
        return left, powers
    passed = chunk_ends.cumsum(1)
    left = (passed[:, -1:] - passed).add_(chunk_ends)
    powers = _whole_and_powers(width, k, counts.device)[1]
    return left.to(torch.float64), powers.index_select(0, left.flatten()).view(left.shape)


def _whole_and_powers(largest: int, k: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """0, 1, ... up to a number, and these to the k with 1 for the first."""
    whole = torch.arange(largest + 1, dtype=torch.float64, device=device)
    powers = whole**k
    powers[0] = 1.0
    return whole, powers


def return_from_end(values: Values, counts: Int64[Tensor, " rollout"]) -> Values:
    """`return_to_go` where every slot is a chunk, each row counted from the response's end.

        column c holds G_j of j = K - c

    So the sum runs forward, and n_j is the same number in all rows, that of `residual_from_end`.

    Args:
        values: (rollout, slot).
        counts: slots per response.

    Returns:
        (rollout, slot); past a response's first slot it has no meaning.

    Example:
        >>> x, counts = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 0.0]]), torch.tensor([3, 1])
        >>> from_row_ends(return_from_end(x, counts), counts).tolist()
        [[7.0, 6.0, 4.0], [3.0, 0.0, 0.0]]
    """
    return from_row_ends(values, counts).cumsum_(1)


def residual_from_end(width: int, k: float, device: torch.device) -> tuple[Values, Values]:
    """`residual` where every slot is a chunk, from the response's end: n and n^k, (1, slot).

    Example:
        >>> n, power = residual_from_end(3, 2.0, torch.device("cpu"))
        >>> n.tolist(), power.tolist()
        ([[1.0, 2.0, 3.0]], [[1.0, 4.0, 9.0]])
    """
    whole, powers = _kept_powers(1 << width.bit_length(), k, device)
    return whole[None, 1 : width + 1], powers[None, 1 : width + 1]


@lru_cache(maxsize=16)
def _falling(largest: int, k: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both as `countdown` reads them; kept, because a trainer's batches are of few sizes."""
    whole, powers = map(falling, _whole_and_powers(largest, k, device))
    return whole, powers


_kept_powers = lru_cache(maxsize=16)(_whole_and_powers)


def divide_length(returns: Values, divisors: Values, *, out: Values | None = None) -> Values:
    """Divide-Length: the return-to-go over a power of the chunks left.

        A_j = G_j / (K - j + 1)^k

    Args:
        returns: G, from `return_to_go`.
        divisors: (K - j + 1)^k, from `residual`; k = 0 is the plain return, k = 1 the mean.
        out: a table that takes the result, such as `returns` itself; None: a new one.

    Returns:
        (rollout, slot), 0 past a response's end.

    Example:
        >>> returns = torch.tensor([[7.0, 6.0, 4.0]]).double()
        >>> divide_length(returns, residual(torch.tensor([3]), 3, k=1.0)[1]).tolist()
        [[2.3333333333333335, 3.0, 4.0]]

    Source: PASS (2606.29296) Eq. 7, Algorithm 3. Differs: any k >= 0, not only [0, 1].
    """
    return torch.div(returns, divisors, out=out)


def min_form(values: Values, mask: Mask, group: Group, temperature: float) -> Values:
    """Rewards whose sum is a soft minimum of a response's scores.

        w = softmax(-s / T) over the response's steps;  r*_j = w_j s_j

    Args:
        values: step scores s (rollout, slot), 0 off the mask.
        mask: which slots hold a score.
        group: ties at T = 0 are decided at 1e-9 of the group's largest |s|.
        temperature: T >= 0; 0 is strict: r* = s at the first worst step, 0 elsewhere.

    Returns:
        r*, (rollout, slot), 0 off the mask; a rollout without scores gives 0.

    Example:
        >>> one, s = Group(torch.tensor([0]), 1), torch.tensor([[0.8, -0.5, 0.6]]).double()
        >>> min_form(s, torch.ones(1, 3).bool(), one, temperature=0.0).tolist()
        [[0.0, -0.5, 0.0]]

    Source: PURE (2504.15275) Eq. 7. Differs: the minimum is over steps; the authors' strict form
        takes it over tokens, with a 0 for each token without a score.
    """
    lowest = torch.where(mask, values, torch.inf).amin(1, keepdim=True)
    lowest = torch.where(mask.any(1, keepdim=True), lowest, 0.0)
    above = torch.where(mask, values - lowest, torch.inf)
    if temperature == 0:
        tied = above <= group.to_rows(TOLERANCE * group.largest(values))
        weight = (tied & (tied.cumsum(1) == 1)).to(torch.float64)
    else:
        weight = above.div_(-temperature).exp_()
        weight /= weight.sum(1, keepdim=True).clamp(min=1.0)
    return torch.mul(weight, values)


def future_min(values: Values, mask: Mask) -> Values:
    """The lowest score from a slot to the response's end.

        G_j = min over j' >= j of s_j'

    Args:
        values: step scores s (rollout, slot), 0 off the mask.
        mask: which slots hold a score.

    Returns:
        (rollout, slot), 0 off the mask. Scores that are off by at most e move it by at most e.

    Example:
        >>> s = torch.tensor([[0.75, -0.5, 0.25]]).double()
        >>> future_min(s, torch.ones(1, 3).bool()).tolist()
        [[-0.5, -0.5, 0.25]]

    Source: the strict form in the verl branch of PURE's code (2504.15275).
    """
    scored = torch.where(mask, values, torch.inf).flip(1)
    return torch.where(mask, scored.cummin(1).values.flip(1), 0.0)


def whiten(
    values: Float64[Tensor, " value"], mean: float, variance: float, eps: float
) -> Float64[Tensor, " value"]:
    """(A - m) / sqrt(v + eps); no variance gives 0.

    Example:
        >>> whiten(torch.tensor([1.0, 3.0]).double(), 2.0, 4.0, 0.0).tolist()
        [-0.5, 0.5]
    """
    if variance == 0:
        return torch.zeros_like(values)
    return torch.div(values - mean, (variance + eps) ** 0.5)
