"""Exact penalized change points in the mean, for all rows of a table at once."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray

from stepcredit.credit.groups import TOLERANCE, Group, Mask, Values, weighted_std

Table = NDArray[np.float64]


def segment_ends(
    values: Values, mask: Mask, group: Group, penalty: float
) -> Bool[torch.Tensor, "rollout slot"]:
    """Last slots of the segments that minimize squared error + penalty x variance a segment.

        min over segmentations of  sum over segments of sum (x - mean of segment)^2 + penalty s^2

    with s^2 the population variance of the group's scores. Among equal minima the one whose last
    segments are longest; ties are decided at 1e-9.

    Args:
        values: (rollout, slot), 0 off the mask; a row's scores stand at its beginning.
        mask: which slots hold a score.
        group: whose variance scales the penalty.
        penalty: above 0.

    Returns:
        True at each segment's last slot. A group of equal scores is one segment a row.

    Example:
        >>> one = Group(torch.tensor([0]), 1)
        >>> x = torch.tensor([[0.0, 0.1, 5.0, 5.1]]).double()
        >>> segment_ends(x, torch.ones(1, 4).bool(), one, 0.1).tolist()
        [[False, True, False, True]]

    Source: optimal partitioning (Jackson et al. 2005) with PELT's pruning (Killick et al. 2012).
    """
    std = group.spread(weighted_std(values, mask.to(torch.float64), group))
    counts = mask.sum(1)
    mean = values.sum(1, keepdim=True) / counts[:, None].clamp(min=1)
    unit = torch.where(mask & (std > 0), (values - mean) / torch.where(std > 0, std, 1.0), 0.0)
    ends = _partition(unit.cpu().numpy(), counts.cpu().numpy(), penalty)
    return torch.from_numpy(ends).to(values.device) & mask


def _partition(x: Table, counts: NDArray[np.int64], penalty: float) -> NDArray[np.bool_]:
    """Optimal partitioning of all rows together; a start is pruned when no row can still use it."""
    rows, width = x.shape
    total = np.pad(np.cumsum(x, axis=1), ((0, 0), (1, 0)))
    square = np.pad(np.cumsum(x * x, axis=1), ((0, 0), (1, 0)))
    best = np.full((rows, width + 1), -penalty)
    start = np.zeros((rows, width + 1), dtype=np.int64)
    everyone = np.arange(rows)
    candidates = np.zeros(1, dtype=np.int64)
    for t in range(1, width + 1):
        gap = total[:, t, None] - total[:, candidates]
        cost = best[:, candidates] - square[:, candidates] - gap * gap / (t - candidates)
        cost += square[:, t, None]
        least = cost.min(axis=1)
        slack = TOLERANCE * (1 + np.abs(least))
        first = (cost <= (least + slack)[:, None]).argmax(axis=1)
        best[:, t] = cost[everyone, first] + penalty
        start[:, t] = candidates[first]
        useful = (cost <= (best[:, t] + slack)[:, None])[counts > t].any(axis=0)
        candidates = np.append(candidates[useful], t)
    return _trace(start, counts, width)


def _trace(start: NDArray[np.int64], counts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    ends = np.zeros((len(counts), width), dtype=bool)
    for row, t in enumerate(counts.tolist()):
        while t > 0:
            ends[row, t - 1] = True
            t = int(start[row, t])
    return ends
