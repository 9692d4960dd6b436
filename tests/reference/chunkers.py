"""Chunk ends by every rule, one response or one group at a time."""

from __future__ import annotations

import itertools

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


def segmentation_cost(u: list[float], ends: list[int], penalty: float) -> float:
    """Squared distance to each segment's mean, plus the penalty for every boundary."""
    cost, start = penalty * (len(ends) - 1), 0
    for end in ends:
        part = u[start : end + 1]
        m = mean(part)
        cost += sum((v - m) ** 2 for v in part)
        start = end + 1
    return cost


def all_segmentations(length: int) -> list[list[int]]:
    """Every way to cut `length` tokens: 2^(length-1) lists of ends."""
    inner = range(length - 1)
    return [[*cut, length - 1] for r in range(length) for cut in itertools.combinations(inner, r)]


def best_segmentation(u: list[float], penalty: float) -> list[int]:
    """The ends of the cheapest segmentation, by trying all of them."""
    return min(all_segmentations(len(u)), key=lambda ends: segmentation_cost(u, ends, penalty))
