"""Exact penalized segmentation by mean or median, for all rows of a table at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from stepcredit.credit.stages.groups import TOLERANCE, Group, Mask, Values, weighted_std

Table = NDArray[np.float64]
IN_CACHE = 32_768
"""Scores processed together, so that their tables of levels fit in a core's cache."""


@dataclass(frozen=True)
class Segments:
    """The cost that the best segmentation minimizes, and the segmentations that are allowed.

        sum over segments of their cost + penalty x unit per segment
        squared    sum (x - mean of the segment)^2,   unit: the group's population variance s^2
        absolute   sum |x - median of the segment|,   unit: s

    Args:
        penalty: above 0.
        min_tokens: the fewest trained tokens of a segment, at least 1; a row with fewer is one
            segment.
        cost: "squared" or "absolute".
    """

    penalty: float
    min_tokens: int = 1
    cost: str = "squared"


def segment_ends(
    values: Values,
    mask: Mask,
    sizes: Int[torch.Tensor, "rollout slot"],
    group: Group,
    rule: Segments,
) -> Bool[torch.Tensor, "rollout slot"]:
    """Last slots of the segments of the best segmentation of each row.

    Among equal minima it is the one whose last segments are longest; ties are decided at 1e-9.

    Args:
        values: (rollout, slot), 0 off the mask; the scores of a row fill its first slots.
        mask: which slots hold a score.
        sizes: trained tokens of each slot.
        group: whose scores' deviation scales the penalty.
        rule: the cost to minimize.

    Returns:
        True at each segment's last slot. A group of equal scores is one segment per row.

    Example:
        >>> one = Group(torch.tensor([0]), 1)
        >>> x = torch.tensor([[0.0, 0.1, 5.0, 5.1]]).double()
        >>> every = torch.ones(1, 4)
        >>> segment_ends(x, every.bool(), every.long(), one, Segments(0.1)).tolist()
        [[False, True, False, True]]

    Source: optimal partitioning (Jackson et al. 2005) with PELT's pruning (Killick et al. 2012).
    """
    std = group.to_rows(weighted_std(values, mask.to(torch.float64), group))
    counts = mask.sum(1)
    mean = values.sum(1, keepdim=True) / counts[:, None].clamp(min=1)
    unit = torch.where(mask & (std > 0), (values - mean) / torch.where(std > 0, std, 1.0), 0.0)
    rows = _Rows(unit.cpu().numpy(), _passed(sizes), counts.cpu().numpy())
    ends = _BEST[rule.cost](rows, rule)
    return torch.from_numpy(ends).to(values.device) & mask


@dataclass(frozen=True, eq=False)
class _Rows:
    """Scores in units of their group's std, the tokens before each slot's end, scores per row."""

    scores: Table
    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]


def _passed(sizes: Int[torch.Tensor, "rollout slot"]) -> NDArray[np.int64]:
    """(rollout, slot + 1): the tokens of the slots before each slot."""
    return np.pad(np.cumsum(sizes.cpu().numpy(), axis=1), ((0, 0), (1, 0)))


def _by_squares(rows: _Rows, rule: Segments) -> NDArray[np.bool_]:
    """Optimal partitioning of all rows together; a start is pruned when no row can still use it.

    A start that is useless beside a segment from t on may be used until that one is long enough.
    """
    x, counts, penalty = rows.scores, rows.counts, rule.penalty
    width = x.shape[1]
    total = np.pad(np.cumsum(x, axis=1), ((0, 0), (1, 0)))
    square = np.pad(np.cumsum(x * x, axis=1), ((0, 0), (1, 0)))
    best = np.full((len(x), width + 1), -penalty)
    start = np.zeros((len(x), width + 1), dtype=np.int64)
    everyone = np.arange(len(x))
    candidates, until = np.zeros(1, dtype=np.int64), np.full(1, width)
    for t in range(1, width + 1):
        gap = total[:, t, None] - total[:, candidates]
        cost = best[:, candidates] - square[:, candidates] - gap * gap / (t - candidates)
        cost += square[:, t, None]
        allowed = cost
        if rule.min_tokens > 1:
            short = rows.tokens[:, t, None] - rows.tokens[:, candidates] < rule.min_tokens
            allowed = np.where(short, np.inf, cost)
        least = allowed.min(axis=1)
        slack = _slack(least)
        first = (allowed <= (least + slack)[:, None]).argmax(axis=1)
        best[:, t] = allowed[everyone, first] + penalty
        start[:, t] = candidates[first]
        useful = (cost <= (best[:, t] + slack)[:, None])[counts > t].any(axis=0)
        until = np.where(useful, until, np.minimum(until, t + rule.min_tokens - 1))
        candidates = np.append(candidates[until > t], t)
        until = np.append(until[until > t], width)
    return _trace(start, counts, width)


def _slack(least: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest difference of costs that count as equal."""
    return TOLERANCE * (1 + np.where(np.isfinite(least), np.abs(least), 0.0))


def _by_distances(rows: _Rows, rule: Segments) -> NDArray[np.bool_]:
    """The best levels of each row by dynamic programming, a few rows at a time.

    A segment's median is one of the row's scores, so no other level needs to be tried.
    """
    width = rows.scores.shape[1]
    few = max(1, IN_CACHE // width)
    parts = [
        _levels(
            _Rows(rows.scores[i : i + few], rows.tokens[i : i + few], rows.counts[i : i + few]),
            rule,
        )
        for i in range(0, len(rows.scores), few)
    ]
    return np.concatenate(parts)


def _levels(rows: _Rows, rule: Segments) -> NDArray[np.bool_]:
    """For each level: the least cost up to a slot with a segment of that level open there."""
    levels, width = rows.scores, rows.scores.shape[1]
    best = np.full((len(levels), width + 1), np.inf)
    best[:, 0] = -rule.penalty
    start = np.zeros((len(levels), width + 1), dtype=np.int64)
    cost, since = np.full(levels.shape, np.inf), np.zeros(levels.shape, dtype=np.int64)
    sums = deque([np.zeros(levels.shape)], maxlen=rule.min_tokens + 1)
    for t in range(1, width + 1):
        distance = np.abs(rows.scores[:, t - 1, None] - levels)
        sums.append(sums[-1] + distance)
        cost += distance
        for lag in range(1, len(sums)):
            opens = _just_long_enough(rows.tokens, t, lag, rule.min_tokens)
            if opens.any():
                fresh = sums[-1] - sums[-1 - lag] + (best[:, t - lag] + rule.penalty)[:, None]
                better = opens[:, None] & (fresh * (1 + TOLERANCE) + TOLERANCE < cost)
                cost, since = np.where(better, fresh, cost), np.where(better, t - lag, since)
        least = cost.min(axis=1)
        tied = cost <= (least + _slack(least))[:, None]
        best[:, t], start[:, t] = least, np.where(tied, since, width).min(axis=1)
    return _trace(start, rows.counts, width)


def _just_long_enough(tokens: NDArray[np.int64], t: int, lag: int, least: int) -> NDArray[np.bool_]:
    """The rows whose last `lag` slots before t are long enough, and were not one slot earlier."""
    before = tokens[:, t - lag]
    return (tokens[:, t] - before >= least) & (tokens[:, t - 1] - before < least)


def _trace(start: NDArray[np.int64], counts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    ends = np.zeros((len(counts), width), dtype=bool)
    for row, t in enumerate(counts.tolist()):
        while t > 0:
            ends[row, t - 1] = True
            t = int(start[row, t])
    return ends


_BEST: dict[str, Callable[[_Rows, Segments], NDArray[np.bool_]]] = {
    "squared": _by_squares,
    "absolute": _by_distances,
}
COSTS = tuple(_BEST)
