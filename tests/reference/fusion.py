"""PASS and pass-min: standardize, fuse, chunk, divide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import chunkers
from .numbers import broadcast, constant, mean, softmin, standardized, suffix_sums, variance
from .rows import Row, Stream

SCALARS = ("outcome", "format")


def named_weights(weights: Sequence[float] | Mapping[str, float]) -> dict[str, float]:
    if isinstance(weights, Mapping):
        return dict(weights)
    return dict(zip(("process", *SCALARS), weights, strict=True))


def pooled(rows: list[Row], name: str, operator: str, ddof: int, eps: float) -> list[list[float]]:
    """The stream of a group standardized over all its values; empty where a row has none."""
    streams = [r.streams.get(name) for r in rows]
    values = [v for s in streams if s is not None for v in s.scores]
    if not values:
        return [[] for _ in rows]
    flat = iter(standardized(values, operator, ddof, eps))
    return [[next(flat) for _ in (s.scores if s is not None else [])] for s in streams]


def scalar(rows: list[Row], name: str, operator: str, ddof: int, eps: float) -> list[float]:
    """Outcome or format standardized over the group's responses; 0 where unknown."""
    values = [getattr(r, name) for r in rows]
    if any(v is None for v in values):
        return [0.0 for _ in rows]
    return standardized(values, operator, ddof, eps)


def unit_at(row: Row, name: str, token: int) -> int:
    """The index of the step (or token) of a stream that holds `token`."""
    return next(j for j, e in enumerate(row.streams[name].step_ends()) if token <= e)


def divided(values: list[float], k: float, gamma: float) -> list[float]:
    """A_j = G_j / (K - j + 1)^k, G_j the sum of gamma^(j' - j) A_j'."""
    K = len(values)
    returns = [math.fsum(gamma**i * v for i, v in enumerate(values[j:])) for j in range(K)]
    return [g / (K - j) ** k for j, g in enumerate(returns)]


def read_chunk(row: Row, name: str, z: list[float], start: int, end: int, how: str) -> float:
    """The stream's z at the chunk's last token; over its tokens; or of what ends in the chunk."""
    if how == "last":
        return z[unit_at(row, name, end)]
    if how == "ends":
        last = row.length - 1
        ends = [
            t
            for t in range(start, end + 1)
            if t == last or unit_at(row, name, t) != unit_at(row, name, t + 1)
        ]
        return math.fsum(z[unit_at(row, name, t)] for t in ends)
    values = [z[unit_at(row, name, t)] for t in range(start, end + 1)]
    return mean(values) if how == "mean" else math.fsum(values)


def chunk_stream(rows: list[Row], weights: dict[str, float], chunks_from: str | None) -> str | None:
    """The stream that chunks follow: the one named if the group has it, or the first weighted."""
    if any(chunks_from in r.streams for r in rows):
        return chunks_from
    for name in weights:
        if any(name in r.streams and not r.streams[name].is_advantage for r in rows):
            return name
    return None


def group_chunks(
    rows: list[Row], name: str | None, chunks: Any, z: list[list[float]]
) -> list[list[int]]:
    """Each response's chunk ends; a response without the stream is one chunk."""
    out = [[row.length - 1] for row in rows]
    with_it = [i for i, row in enumerate(rows) if name in row.streams]
    streams = [rows[i].streams[name] for i in with_it]
    raw = [broadcast(s.scores, s.step_ends()) for s in streams]
    by_token = [broadcast(z[i], s.step_ends()) for i, s in zip(with_it, streams, strict=True)]
    rule, options = (chunks, {}) if isinstance(chunks, str) else next(iter(chunks.items()))
    for at, i in enumerate(with_it):
        auto = "group_runs" if streams[at].ends is None else "steps"
        chosen = auto if rule == "auto" else rule
        if chosen == "steps":
            out[i] = streams[at].step_ends()
        elif chosen == "group_runs":
            u = chunkers.group_signal(by_token, len(rows))
            out[i] = chunkers.ends_of_runs(u, rows[i].length, max(abs(v) for v in u))
        elif chosen == "cut_points":
            given = {"below": 0.9, "per_chunk": 5, **options}
            out[i] = chunkers.ends_of_cut_points(rows[i].logprobs["student"], **given)
        elif chosen == "change_points":
            pool = [v for s in streams for v in s.scores]
            out[i] = _change_points(streams[at], options, pool)
        else:
            out[i] = _row_chunks(chosen, options, at, raw, by_token)
        out[i] = sorted({*out[i], *rows[i].part_ends})
    return out


def _change_points(stream: Stream, options: dict[str, Any], pool: list[float]) -> list[int]:
    """Ends of the best segments, in tokens; a group of equal scores has one per response."""
    rule = {"penalty": 2.0, "min_tokens": 4, "cost": "absolute", **options}
    ends = stream.step_ends()
    if constant(pool):
        return [ends[-1]]
    unit = variance(pool, 0)
    penalty = rule["penalty"] * (unit if rule["cost"] == "squared" else math.sqrt(unit))
    sizes = [b - a for a, b in zip([-1, *ends[:-1]], ends, strict=True)]
    cut = chunkers.best_segmentation(
        stream.scores, penalty, sizes, rule["min_tokens"], rule["cost"]
    )
    return [ends[j] for j in cut]


def _row_chunks(
    rule: str, options: dict[str, Any], at: int, raw: list[list[float]], z: list[list[float]]
) -> list[int]:
    """The chunkers that look at one response's signal, in units of the group's."""
    length = len(raw[at])
    if rule == "runs":
        return chunkers.ends_of_runs(raw[at], length, max(abs(v) for row in raw for v in row))
    if rule == "tokens":
        return list(range(length))
    if rule == "sign_runs":
        return chunkers.ends_of_signs(z[at], max(abs(v) for row in z for v in row))
    if rule == "windows":
        return chunkers.ends_of_windows(length, options["size"])
    raise ValueError(rule)


def operator_of(operator: str | Mapping[str, str], name: str) -> str:
    return operator if isinstance(operator, str) else operator.get(name, "masked_norm")


def pass_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """PASS on one group. Every response's advantage is P (process) + Q (the rest)."""
    w, ddof, eps = named_weights(p["weights"]), p["ddof"], p["eps"]
    k, gamma = p["k"], p["gamma"]
    outer = p["outcome_operator"] or p["operator"]
    ready = {n for n in w for r in rows if n in r.streams and r.streams[n].is_advantage}
    names = [n for n in w if n not in SCALARS and n not in ready]
    z = {n: pooled(rows, n, operator_of(p["operator"], n), ddof, eps) for n in names}
    flats = {n: scalar(rows, n, operator_of(outer, n), ddof, eps) for n in SCALARS}
    lead = chunk_stream(rows, w, p["chunks_from"])
    if lead is not None and lead not in z:
        z[lead] = pooled(rows, lead, operator_of(p["operator"], lead), ddof, eps)
    ends = group_chunks(rows, lead, p["chunks"], z[lead] if lead else [])
    P, P0, Q = [], [], []
    for i, row in enumerate(rows):
        K, last = len(ends[i]), ends[i]
        if p["gate"] and not row.format_ok:
            flat = sum(w.values()) * flats["format"][i]
            process = [0.0] * K
            extra = [0.0] * row.length
        else:
            flat = sum(w.get(n, 0.0) * flats[n][i] for n in SCALARS)
            spans = list(zip([0, *(b + 1 for b in last)], last, strict=False))
            process = [
                sum(
                    w[n] * read_chunk(row, n, z[n][i], a, b, p["read"])
                    for n in names
                    if n in row.streams
                )
                for a, b in spans
            ]
            extra = [
                sum(w[n] * row.streams[n].scores[t] for n in ready if n in row.streams)
                for t in range(row.length)
            ]
        rest = [flat] * K if p["scope"] == "process" else divided([flat] * K, k, gamma)
        P.append(broadcast(divided(process, k, gamma), last))
        P0.append(broadcast(divided(process, 0.0, gamma), last))
        Q.append([a + b for a, b in zip(broadcast(rest, last), extra, strict=True)])
    open_rows = [i for i, r in enumerate(rows) if r.format_ok or not p["gate"]]
    adjust(P, P0, open_rows, p)
    return [[x + y for x, y in zip(a, b, strict=True)] for a, b in zip(P, Q, strict=True)]


def adjust(P: list[list[float]], P0: list[list[float]], rows: list[int], p: dict[str, Any]) -> None:
    """`match_std`, then `recenter`, over the tokens of a group's ungated responses."""
    pool = [v for i in rows for v in P[i]]
    if p["match_std"] and pool:
        plain = [v for i in rows for v in P0[i]]
        if not constant(pool) and not constant(plain):
            now, then = math.sqrt(variance(pool, 0)), math.sqrt(variance(plain, 0))
            for i in rows:
                P[i] = [v * then / now for v in P[i]]
    if p["recenter"] and pool:
        m = mean([v for i in rows for v in P[i]])
        for i in rows:
            P[i] = [v - m for v in P[i]]


def pass_min_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """pass-min on one group: the min-form return of the standardized steps, standardized again."""
    w, ddof, eps = named_weights(p["weights"]), p["ddof"], p["eps"]
    outer = p["outcome_operator"] or p["operator"]
    flats = {n: scalar(rows, n, operator_of(outer, n), ddof, eps) for n in SCALARS}
    out = []
    last: list[list[float]] = [[] for _ in rows]
    if p["outcome_in_min"] > 0 and all(r.outcome is not None for r in rows):
        last = [[p["outcome_in_min"] * v] for v in flats["outcome"]]
    returns = {
        n: min_form(rows, n, operator_of(p["operator"], n), last, p) for n in w if n not in SCALARS
    }
    lead = chunk_stream(rows, w, None)
    for i, row in enumerate(rows):
        if p["gate"] and not row.format_ok:
            out.append([sum(w.values()) * flats["format"][i]] * row.length)
            continue
        flat = sum(w.get(n, 0.0) * flats[n][i] for n in SCALARS)
        ends = row.streams[lead].step_ends() if lead in row.streams else [row.length - 1]
        held = [n for n in returns if n in row.streams]
        values = [flat + sum(w[n] * returns[n][i][unit_at(row, n, b)] for n in held) for b in ends]
        out.append(broadcast(values, ends))
    return out


def min_form(
    rows: list[Row], name: str, operator: str, last: list[list[float]], p: dict[str, Any]
) -> list[list[float]]:
    """N(G) over the group's steps, G the suffix sums of softmin-weighted z = N(s), then `last`."""
    ddof, eps = p["ddof"], p["eps"]
    z = pooled(rows, name, operator, ddof, eps)
    returns = [
        suffix_sums(softmin(v + end, p["temperature"]))[: len(v)] if v else []
        for v, end in zip(z, last, strict=True)
    ]
    flat = [g for v in returns for g in v]
    if not flat:
        return returns
    values = iter(standardized(flat, operator, ddof, eps))
    return [[next(values) for _ in v] for v in returns]
