"""Group operators, softmin and whitening on plain lists."""

from __future__ import annotations

import math

TIE = 1e-9


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def variance(values: list[float], ddof: int) -> float:
    m = mean(values)
    return math.fsum((v - m) ** 2 for v in values) / (len(values) - ddof)


def constant(values: list[float]) -> bool:
    """All equal, at 1e-9 of the largest magnitude, so that rounding makes no difference of none."""
    return max(values) - min(values) <= TIE * max(abs(v) for v in values)


def standardized(
    values: list[float], operator: str, ddof: int = 1, eps: float = 1e-6
) -> list[float]:
    """N(x; S) with S = values (SPEC 1)."""
    if operator == "abs_max":
        top = max(abs(v) for v in values)
        return [v / top if top else 0.0 for v in values]
    if constant(values):
        return [0.0 for _ in values]
    m = mean(values)
    if operator == "center":
        return [v - m for v in values]
    if operator == "leave_one_out":
        total, others = math.fsum(values), len(values) - 1
        return [v - (total - v) / others for v in values]
    if operator == "masked_norm":
        spread = math.sqrt(variance(values, ddof)) + eps
        return [(v - m) / spread for v in values]
    raise ValueError(operator)


def minus_others(values: list[float]) -> list[float]:
    """Each value minus the mean of the others; a lone value gives 0."""
    return standardized(values, "leave_one_out")


def softmin(values: list[float], temperature: float) -> list[float]:
    """w_j s_j with w = softmax(-s/T); at T = 0 the first worst alone is kept (ties at 1e-9)."""
    low = min(values)
    if temperature == 0:
        near = low + TIE * max(abs(v) for v in values)
        first = next(j for j, v in enumerate(values) if v <= near)
        return [v if j == first else 0.0 for j, v in enumerate(values)]
    weights = [math.exp(-(v - low) / temperature) for v in values]
    total = math.fsum(weights)
    return [w * v / total for w, v in zip(weights, values, strict=True)]


def suffix_sums(values: list[float]) -> list[float]:
    return [math.fsum(values[j:]) for j in range(len(values))]


def broadcast(values: list[float], ends: list[int]) -> list[float]:
    """One value a chunk, repeated over its tokens."""
    out: list[float] = []
    for value, end in zip(values, ends, strict=True):
        out += [value] * (end + 1 - len(out))
    return out


def whitened(ragged: list[list[float]]) -> list[list[float]]:
    """(A - m) / sqrt(v + 1e-8) over all tokens of the batch, unbiased v; one token or v = 0: 0."""
    pool = [v for row in ragged for v in row]
    if len(pool) == 1 or constant(pool):
        return [[0.0 for _ in row] for row in ragged]
    m, scale = mean(pool), math.sqrt(variance(pool, 1) + 1e-8)
    return [[(v - m) / scale for v in row] for row in ragged]
