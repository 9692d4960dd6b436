"""Methods made of other methods, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .numbers import TIE, broadcast, mean, whitened
from .rows import Row

PARTS = ("first", "second", "outcome", "of")
Ragged = list[list[float]]


def mix(inside: dict[str, Ragged], rows: list[Row], p: dict[str, Any]) -> Ragged:
    pairs = zip(inside["first"], inside["second"], strict=True)
    return [
        [p["share"] * a + (1 - p["share"]) * b for a, b in zip(one, other, strict=True)]
        for one, other in pairs
    ]


def sign_size(inside: dict[str, Ragged], rows: list[Row], p: dict[str, Any]) -> Ragged:
    largest: dict[str, float] = {}
    for row, one in zip(rows, inside["first"], strict=True):
        largest[row.group] = max([largest.get(row.group, 0.0), *map(abs, one)])
    triples = zip(rows, inside["first"], inside["second"], strict=True)
    return [
        [
            0.0 if abs(a) <= TIE * largest[row.group] else math.copysign(abs(b), a)
            for a, b in zip(one, other, strict=True)
        ]
        for row, one, other in triples
    ]


def redistribute(inside: dict[str, Ragged], rows: list[Row], p: dict[str, Any]) -> Ragged:
    out = []
    for flat, row in zip(inside["outcome"], rows, strict=True):
        stream = row.streams.get("process")
        scores = [0.0] * row.length
        if stream is not None:
            scores = broadcast(stream.scores, stream.step_ends())
        sign = -1.0 if p["by_sign"] and flat[0] < 0 else 1.0
        top = max(sign * s for s in scores)
        out.append(spread(flat, [math.exp((sign * s - top) / p["temperature"]) for s in scores]))
    return out


def reweight(inside: dict[str, Ragged], rows: list[Row], p: dict[str, Any]) -> Ragged:
    out = []
    for flat, row in zip(inside["outcome"], rows, strict=True):
        if p["by"] == "surprise":
            weights = [max(-v, 0.0) for v in row.logprobs["student"]]
        else:
            stream = row.streams.get(p["by"])
            weights = [0.0] * row.length
            if stream is not None:
                weights = broadcast(stream.scores, stream.step_ends())
        out.append(spread(flat, weights))
    return out


def spread(flat: list[float], weights: list[float]) -> list[float]:
    """The advantage times each token's weight over the mean weight; unchanged if all are 0."""
    largest = max(weights)
    if largest == 0:
        return flat
    shares = [w / largest for w in weights]
    return [a * w / mean(shares) for a, w in zip(flat, shares, strict=True)]


def rlsd(inside: dict[str, Ragged], rows: list[Row], p: dict[str, Any]) -> Ragged:
    out = []
    for flat, row in zip(inside["outcome"], rows, strict=True):
        ratios = zip(row.logprobs["teacher"], row.logprobs["student"], strict=True)
        tokens = []
        for a, (teacher, student) in zip(flat, ratios, strict=True):
            toward = math.copysign(1.0, a) * (teacher - student) if a else 0.0
            ratio = math.exp(min(toward, 50.0))
            bounded = min(max(ratio, 1 - p["eps"]), 1 + p["eps"])
            tokens.append(a * (1 - p["share"] + p["share"] * bounded))
        out.append(tokens)
    return out


def reinforce_plus_plus(inside: dict[str, Ragged], rows: list[Row], p: dict[str, Any]) -> Ragged:
    return whitened(inside["of"])


RULES: dict[str, Callable[[dict[str, Ragged], list[Row], dict[str, Any]], Ragged]] = {
    "mix": mix,
    "sign-size": sign_size,
    "redistribute": redistribute,
    "reweight": reweight,
    "rlsd": rlsd,
    "reinforce-plus-plus": reinforce_plus_plus,
}
