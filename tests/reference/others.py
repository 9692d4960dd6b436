"""The other estimators of SPEC 3, one group at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .fusion import SCALARS, divided, named_weights
from .numbers import broadcast, mean, minus_others, standardized, suffix_sums, whitened
from .rows import Row, Stream


def outcome_group(
    rows: list[Row], operator: str, ddof: int = 1, eps: float = 1e-6
) -> list[list[float]]:
    """N(outcome) on every token: GRPO, Dr.GRPO, RLOO."""
    if any(r.outcome is None for r in rows):
        raise ValueError("the outcome is unknown")
    values = standardized([r.outcome for r in rows], operator, ddof, eps)
    return [[a] * r.length for a, r in zip(values, rows, strict=True)]


def process_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """grpo-process: the return-to-go of standardized steps, pooled in one of three ways."""
    w = named_weights(p["weights"])
    scored = any("process" in r.streams for r in rows)
    rows = rows if scored else [one_step(r) for r in rows]
    none = Stream([], [])
    scores = [r.streams.get("process", none).scores for r in rows]
    flat = {n: [getattr(r, n) or 0.0 for r in rows] for n in SCALARS}
    if p["pooling"] == "union":
        steps = _union(scores, flat, w, scored)
    else:
        if p["pooling"] == "sum":
            scores = [
                [w["process"] * s + sum(w[n] * flat[n][i] for n in SCALARS) for s in row]
                for i, row in enumerate(scores)
            ]
        values = iter(standardized([s for row in scores for s in row], "masked_norm"))
        steps = [[next(values) for _ in row] for row in scores]
    return [
        broadcast(divided(z, p["k"], p["gamma"]), r.streams["process"].step_ends())
        if z
        else [0.0] * r.length
        for z, r in zip(steps, rows, strict=True)
    ]


def one_step(row: Row) -> Row:
    """The response as one step of score 0: what a group without the stream has."""
    return replace(row, streams={"process": Stream([0.0], [row.length - 1])})


def _union(scores, flat, w, scored):
    """One mean and std over all scores, outcomes and formats; an absent format counts as 0."""
    pool = [s for row in scores for s in row if scored] + [v for n in SCALARS for v in flat[n]]
    values = iter(standardized(pool, "masked_norm"))
    z = [[next(values) if scored else 0.0 for _ in row] for row in scores]
    zs = {n: [next(values) for _ in scores] for n in SCALARS}
    return [
        [w["process"] * v + sum(w[n] * zs[n][i] for n in SCALARS) for v in row]
        for i, row in enumerate(z)
    ]


def gdpo_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """The weighted sum of standardized scalar rewards, before the batch's own normalization."""
    eps = p["eps"]
    if eps is None:
        eps = 1e-6 if p["batch_norm"] == "token" else 1e-4
    total = [0.0] * len(rows)
    for name, weight in p["weights"].items():
        values = [getattr(r, name) for r in rows]
        if any(v is None for v in values):
            continue
        z = standardized(values, "masked_norm", 1, eps)
        total = [a + weight * b for a, b in zip(total, z, strict=True)]
    return [[a] * r.length for a, r in zip(total, rows, strict=True)]


def gdpo_batch(ragged: list[list[float]], batch_norm: str) -> list[list[float]]:
    if batch_norm == "token":
        return whitened(ragged)
    values = standardized([row[0] for row in ragged], "masked_norm", 1, 1e-4)
    return [[a] * len(row) for a, row in zip(values, ragged, strict=True)]


def adca_group(rows: list[Row], alpha: float) -> list[list[float]]:
    """Step scores centred and scaled by response means; the outcome's z-score at the last step."""
    if not any("process" in r.streams for r in rows):
        rows = [one_step(r) for r in rows]
    scores = [r.streams["process"].scores for r in rows]
    mu = mean([mean(s) for s in scores])
    var = mean([mean([(v - mu) ** 2 for v in s]) for s in scores])
    z = [0.0] * len(rows)
    if all(r.outcome is not None for r in rows):
        z = standardized([r.outcome for r in rows], "masked_norm", 0, 1e-8)
    out = []
    for i, row in enumerate(rows):
        steps = [alpha * (v - mu) / math.sqrt(var + 1e-8) for v in scores[i]]
        steps[-1] += z[i]
        out.append(broadcast(suffix_sums(steps), row.streams["process"].step_ends()))
    return out


def opd_row(row: Row, coefficient: float) -> list[float]:
    lp = row.logprobs
    return [-coefficient * (s - t) for s, t in zip(lp["student"], lp["teacher"], strict=True)]


def g_opd_row(row: Row, coefficient: float, lam: float) -> list[float]:
    lp = row.logprobs
    return [
        -coefficient * ((s - b) - lam * (t - b))
        for s, t, b in zip(lp["student"], lp["teacher"], lp["base"], strict=True)
    ]


def prime_batch_beta(rows: list[Row]) -> float:
    """1 / the largest |suffix sum| of any row's log-ratios; 0 where all of them are 0."""
    largest = 0.0
    for row in rows:
        pairs = zip(row.logprobs["prm"], row.logprobs["ref"], strict=True)
        largest = max(largest, *(abs(g) for g in suffix_sums([a - b for a, b in pairs])))
    return 1 / largest if largest else 0.0


def prime_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """Implicit rewards minus the others' mean, outcome at the last token, suffix sums."""
    r = [
        [p["beta"] * (a - b) for a, b in zip(x.logprobs["prm"], x.logprobs["ref"], strict=True)]
        for x in rows
    ]
    means = [mean(v) for v in r]
    outcome = [0.0] * len(rows)
    if all(x.outcome is not None for x in rows):
        outcome = minus_others([x.outcome for x in rows])
    out = []
    for i, values in enumerate(r):
        others = [m for j, m in enumerate(means) if j != i]
        steps = [p["process_weight"] * (v - mean(others)) if others else 0.0 for v in values]
        steps[-1] += outcome[i]
        out.append(suffix_sums(steps))
    return out
