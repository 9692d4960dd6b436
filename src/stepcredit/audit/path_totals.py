"""Chunk values of logged responses under PASS, to which the theory of its path score applies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stepcredit.audit.step_credit import chunk_ends_of, step_credit
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.credit.metrics.leave_one_out import without_format, without_outcome
from stepcredit.credit.theory import admission_threshold, paying_padding
from stepcredit.data.rollouts import Rollouts

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PathTotals:
    """What PASS adds up along each response.

    Args:
        values: A_b of every chunk, packed, in units of an advantage.
        chunks: K, chunks per response.
    """

    values: Floats
    chunks: NDArray[np.int64]

    @property
    def totals(self) -> Floats:
        """T, the sum of each response's chunk values."""
        return np.add.reduceat(self.values, np.cumsum(self.chunks) - self.chunks)


def path_totals(method: PASS, rollouts: Rollouts) -> PathTotals | None:
    """The chunk values that Divide-Length acts on.

        A_b = G_b - G_{b+1},   G the advantages at k = 0

    Under scope "process" they are those of the process streams alone.

    Args:
        method: PASS; its k, clip, `match_std` and `recenter` have no effect here.
        rollouts: the batch.

    Returns:
        None for a discount below 1, to which the theory does not apply.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[0.5, 1.0], [0.5]]))
        >>> found = path_totals(PASS(operator="abs_max"), r)
        >>> found.values.tolist(), found.totals.tolist()
        ([0.5, 1.0, 0.5], [1.5, 0.5])
    """
    if method.gamma != 1:
        return None
    plain = replace(method, k=0.0, clip=None, match_std=False, recenter=False)
    if method.scope == "process":
        rollouts = without_format(without_outcome(rollouts))
    ends = chunk_ends_of(plain, rollouts)
    returns = step_credit(plain(rollouts), ends).numpy()
    after = np.append(returns[1:], 0.0)
    after[np.cumsum(ends.counts.numpy()) - 1] = 0.0
    return PathTotals(returns - after, ends.counts.numpy())


def break_even_values(totals: PathTotals, k: float) -> Floats:
    """The value above which one more chunk raises each response's path score.

        `admission_threshold`:  T [(1 + 1/K)^k - 1]

    Args:
        totals: chunk values of the responses.
        k: Divide-Length's exponent.

    Returns:
        One value per response, in units of an advantage.

    Example:
        >>> break_even_values(PathTotals(np.array([1.0, 2.0, 3.0]), np.array([3])), 1.0).tolist()
        [2.0]
    """
    pairs = zip(totals.totals.tolist(), totals.chunks.tolist(), strict=True)
    return np.array([admission_threshold(total, chunks, k) for total, chunks in pairs])


def paying_stretches(totals: PathTotals, k: float, filler: float) -> Floats:
    """How far each response of a positive total must be stretched before padding pays.

        (K + m)/K,   m = `paying_padding`: the fewest chunks of value eps that raise the path score

    From there on Divide-Length does not bound the response's length. Below k = 1 it is finite for
    every filler above 0.

    Args:
        totals: chunk values of the responses.
        k: Divide-Length's exponent.
        filler: eps, value of one redundant chunk.

    Returns:
        One number above 1 per response with T > 0; infinite where no padding pays.

    Example:
        >>> totals = PathTotals(np.array([1.0] * 6 + [-1.0]), np.array([6, 1]))
        >>> [paying_stretches(totals, k, 0.4).round(2).tolist() for k in (0.7, 1.0)]
        [[15.67], [inf]]
    """
    pairs = zip(totals.totals.tolist(), totals.chunks.tolist(), strict=True)
    return np.array(
        [
            1 + paying_padding(total, chunks, filler, k) / chunks
            for total, chunks in pairs
            if total > 0 and math.isfinite(total)
        ]
    )
