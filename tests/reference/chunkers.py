"""Chunk ends by every rule, one response or one group at a time."""

from __future__ import annotations

import itertools
import math

from .numbers import mean

ETA = 1e-8
TIE = 1e-9


def ends_of_runs(u: list[float], length: int, largest: float, eta: float = ETA) -> list[int]:
    """A new chunk wherever the signal moves by more than eta; the last token always ends one."""
    limit = max(eta, TIE * largest)
    return [t for t in range(length) if t == length - 1 or abs(u[t + 1] - u[t]) > limit]


def group_signal(scores: list[list[float]], size: int) -> list[float]:
    """u_t: the mean over a group's `size` responses of the score at token t, 0 past the end."""
    longest = max(len(s) for s in scores)
    return [sum(s[t] for s in scores if t < len(s)) / size for t in range(longest)] + [0.0]


def ends_of_signs(u: list[float], largest: float) -> list[int]:
    """A new chunk wherever the sign (-, 0, +) changes."""
    flat = TIE * largest
    signs = [0 if abs(v) <= flat else (1 if v > 0 else -1) for v in u]
    return [t for t in range(len(u)) if t == len(u) - 1 or signs[t + 1] != signs[t]]


def ends_of_windows(length: int, width: int) -> list[int]:
    """Windows of `width` tokens from the start; the last may be shorter."""
    return [t for t in range(length) if t == length - 1 or (t + 1) % width == 0]


def ends_of_cut_points(logprobs: list[float], below: float, per_chunk: int) -> list[int]:
    """A chunk ends with every m-th token of a probability below the threshold."""
    ends, seen = [], 0
    for t, logprob in enumerate(logprobs):
        if logprob < math.log(below):
            seen += 1
            if seen % per_chunk == 0:
                ends.append(t)
    return sorted({*ends, len(logprobs) - 1})


def spread(part: list[float], cost: str) -> float:
    """Squared distance to the mean, or absolute distance to a median."""
    if cost == "squared":
        return sum((v - mean(part)) ** 2 for v in part)
    middle = sorted(part)[len(part) // 2]
    return sum(abs(v - middle) for v in part)


def segments(ends: list[int]) -> list[tuple[int, int]]:
    """First and last unit of each segment."""
    return list(zip([0, *(e + 1 for e in ends[:-1])], ends, strict=True))


def segmentation_cost(
    u: list[float], ends: list[int], penalty: float, cost: str = "squared"
) -> float:
    """Distance to each segment's level, plus the penalty for every boundary."""
    parts = [spread(u[a : b + 1], cost) for a, b in segments(ends)]
    return penalty * (len(ends) - 1) + sum(parts)


def all_segmentations(length: int) -> list[list[int]]:
    """Every way to cut `length` units: 2^(length-1) lists of ends."""
    inner = range(length - 1)
    return [[*cut, length - 1] for r in range(length) for cut in itertools.combinations(inner, r)]


def best_segmentation(
    u: list[float],
    penalty: float,
    sizes: list[int] | None = None,
    min_tokens: int = 1,
    cost: str = "squared",
) -> list[int]:
    """The ends of the cheapest segmentation, by trying all of them.

    No segment has fewer than `min_tokens` tokens, unless all of them together have fewer; among
    the cheapest (at 1e-9) it is the one whose last segments are longest.
    """
    tokens = sizes or [1] * len(u)
    allowed = [
        ends
        for ends in all_segmentations(len(u))
        if len(ends) == 1 or all(sum(tokens[a : b + 1]) >= min_tokens for a, b in segments(ends))
    ]
    costs = [segmentation_cost(u, ends, penalty, cost) for ends in allowed]
    near = min(costs) + TIE * (1 + min(costs))
    tied = [ends for ends, c in zip(allowed, costs, strict=True) if c <= near]
    return min(tied, key=lambda ends: ends[-2::-1])
