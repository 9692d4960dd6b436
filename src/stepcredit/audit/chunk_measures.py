"""Measures of resolution: how the chunks that are credited fit the signal that they follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from stepcredit.audit.step_credit import chunk_sizes, on_tokens
from stepcredit.credit.stages.groups import TOLERANCE
from stepcredit.data.advantages import Advantages
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def standardized_tokens(values: Floats, group: Ints, lengths: Ints) -> Floats:
    """A signal on tokens, standardized over the tokens of each group.

        z = (x - mean of the group's tokens) / their population std

    Args:
        values: one number per token, packed.
        group: the group of each response, from 0.
        lengths: tokens per response, at least 1 each.

    Returns:
        z, packed; 0 in a group of equal values (1e-9 of the largest).

    Example:
        >>> standardized_tokens(np.array([1.0, 3.0]), np.array([0, 0]), np.array([1, 1])).tolist()
        [-1.0, 1.0]
    """
    if not values.size:
        return values
    starts, groups = np.cumsum(lengths) - lengths, int(group.max()) + 1

    def mean_of(table: Floats) -> Floats:
        totals = np.bincount(group, np.add.reduceat(table, starts), groups)
        return np.asarray(totals / np.bincount(group, lengths, groups).clip(min=1))

    off = values - np.repeat(mean_of(values)[group], lengths)
    std = np.sqrt(mean_of(off * off))
    alive = std > TOLERANCE * float(np.abs(values).max())
    scale = np.where(alive, 1 / np.where(alive, std, 1.0), 0.0)
    return np.asarray(off * np.repeat(scale[group], lengths))


def within_chunk_share(values: Floats, sizes: Ints) -> float | None:
    """How much of a signal's variance lies inside chunks, where one credit stands for all of it.

        sum over tokens of (z - mean of its chunk)^2 / sum over tokens of z^2

    Args:
        values: z, the signal per token, packed, with mean 0 in each group.
        sizes: tokens per chunk, in the tokens' order.

    Returns:
        From 0, where every chunk has one value, to 1; None for a signal that is 0 everywhere.

    Example:
        >>> within_chunk_share(np.array([1.0, 1.0, -3.0, 1.0]), np.array([2, 2]))
        0.6666666666666666
    """
    total = float(values @ values)
    if total == 0:
        return None
    off = values - np.repeat(chunk_means(values, sizes), sizes)
    return min(1.0, float(off @ off) / total)


def chunk_means(values: Floats, sizes: Ints) -> Floats:
    """Mean over the tokens of each chunk.

    Example:
        >>> chunk_means(np.array([1.0, 3.0, 5.0]), np.array([2, 1])).tolist()
        [2.0, 5.0]
    """
    return np.asarray(np.add.reduceat(values, np.cumsum(sizes) - sizes) / sizes)


@dataclass(frozen=True)
class LastToken:
    """How much the last token of a chunk says of the whole chunk.

    Args:
        chunks: chunks of at least two tokens, which alone are counted.
        correlation: of the signal at the last token with its mean over the chunk; None where one of
            the two is equal in all chunks.
        opposite: share of chunks in which the two have opposite signs; None without such chunks.
    """

    chunks: int
    correlation: float | None
    opposite: float | None


def last_token_says(values: Floats, sizes: Ints) -> LastToken:
    """How much the last token of a chunk says of the whole chunk.

        corr(z at the chunk's last token, mean of z over the chunk)

    Args:
        values: z, the signal per token, packed.
        sizes: tokens per chunk, in the tokens' order.

    Example:
        >>> last_token_says(np.array([1.0, 3.0, 2.0, -4.0, 9.0]), np.array([2, 2, 1]))
        LastToken(chunks=2, correlation=1.0, opposite=0.0)
    """
    several = sizes > 1
    last, mean = values[np.cumsum(sizes) - 1][several], chunk_means(values, sizes)[several]
    if not last.size:
        return LastToken(0, None, None)
    opposite = float(np.mean(last * mean < 0))
    x, y = last - last.mean(), mean - mean.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    least = TOLERANCE * last.size * float(np.abs(values).max()) ** 2
    return LastToken(last.size, float(x @ y) / size if size > least else None, opposite)


def unchanged_credit_share(
    credit: Floats, values: Floats, sizes: Ints, first: NDArray[np.bool_]
) -> float | None:
    """Share of the credit on chunks that begin where the signal did not change.

        sum of n |A| over chunks whose first token has the signal of the token before / the same
        over all chunks,   n the chunk's tokens

    Args:
        credit: A of each chunk.
        values: the signal per token, packed.
        sizes: tokens per chunk, in the tokens' order.
        first: which chunks are the first of their response; they never count as unchanged.

    Returns:
        From 0 to 1; None where all credit is 0.

    Example:
        >>> first, sizes = np.array([True, False, False]), np.array([1, 1, 1])
        >>> unchanged_credit_share(np.ones(3), np.array([0.5, 0.5, 0.9]), sizes, first)
        0.3333333333333333
    """
    paid = np.abs(credit) * sizes
    total = float(paid.sum())
    if total == 0:
        return None
    starts = np.cumsum(sizes) - sizes
    change = np.abs(values[starts] - values[np.maximum(starts - 1, 0)])
    same = ~first & (change <= TOLERANCE * float(np.abs(values).max()))
    return float(paid[same].sum()) / total


@dataclass(frozen=True)
class Resolution:
    """How the chunks of one method fit one signal.

    Args:
        responses, tokens, chunks: what was counted; responses without the signal are left out.
        one_token_share: share of chunks of one token.
        within_share: `within_chunk_share`.
        unchanged_share: `unchanged_credit_share`.
        last: `last_token_says`.
        sizes: {tokens per chunk, rounded down to a power of 2: chunks}.
    """

    responses: int
    tokens: int
    chunks: int
    one_token_share: float
    within_share: float | None
    unchanged_share: float | None
    last: LastToken
    sizes: dict[int, int]


@dataclass(frozen=True, eq=False)
class TokenSignal:
    """A process stream on the tokens of those responses that have it.

    Args:
        rows: these responses; None: all.
        values: the signal per token, packed, in its own unit.
        z: `standardized_tokens` of it.
        lengths: tokens per response.
    """

    rows: Int[Tensor, " row"] | None
    values: Floats
    z: Floats
    lengths: Ints

    @classmethod
    def of(cls, stream: Stream, rollouts: Rollouts) -> TokenSignal | None:
        """The signal of a process stream of the rollouts; None where no response has it.

        Example:
            >>> import stepcredit as sc
            >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 3], [1]], [[3.0, 1.0], [2.0]]))
            >>> TokenSignal.of(r.streams["process"], r).values.tolist()
            [3.0, 1.0, 1.0, 1.0, 2.0, 2.0]
        """
        held = (stream.counts > 0).nonzero()[:, 0]
        if not held.numel():
            return None
        rows = None if held.numel() == rollouts.num_rollouts else held
        if rows is not None:
            rollouts, stream = rollouts.take(rows), stream.take(rows)
        values = on_tokens(stream, rollouts).to(torch.float64).numpy()
        lengths = rollouts.lengths.numpy()
        z = standardized_tokens(values, rollouts.group_index.numpy(), lengths)
        return cls(rows, values, z, lengths)


def resolution_of(ends: Stream, signal: TokenSignal, advantages: Advantages) -> Resolution:
    """How chunks fit a signal, over the responses that have it.

    Args:
        ends: the chunks' last tokens, as `chunk_ends_of` gives them.
        signal: a process stream of the rollouts.
        advantages: of the method whose chunks they are.

    Example:
        >>> import stepcredit as sc
        >>> from stepcredit.audit.step_credit import chunk_ends_of
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 3], [1]], [[3.0, 1.0], [2.0]]))
        >>> ends, signal = chunk_ends_of(sc.PASS(), r), TokenSignal.of(r.streams["process"], r)
        >>> resolution_of(ends, signal, sc.PASS()(r)).one_token_share
        0.3333333333333333
    """
    if signal.rows is not None:
        ends, advantages = ends.take(signal.rows), advantages.take(signal.rows)
    sizes = chunk_sizes(ends).numpy()
    last_tokens = np.cumsum(sizes) - 1
    credit = advantages.packed().numpy()[last_tokens].astype(np.float64)
    first = np.zeros(sizes.size, dtype=bool)
    first[(ends.counts.cumsum(0) - ends.counts).numpy()] = True
    powers = np.bincount(np.log2(sizes).astype(np.int64))
    return Resolution(
        responses=len(signal.lengths),
        tokens=int(signal.lengths.sum()),
        chunks=sizes.size,
        one_token_share=float(np.mean(sizes == 1)),
        within_share=within_chunk_share(signal.z, sizes),
        unchanged_share=unchanged_credit_share(credit, signal.values, sizes, first),
        last=last_token_says(signal.z, sizes),
        sizes={2**power: int(count) for power, count in enumerate(powers) if count},
    )
