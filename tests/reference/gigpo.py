"""GiGPO of SPEC 5, and HGPO's weights for several states per step, one group at a time."""

from __future__ import annotations

import math
from typing import Any

from .fusion import SCALARS, named_weights
from .numbers import TIE, broadcast, standardized
from .rows import Row

OPERATORS = {"std": "masked_norm", "center": "center"}


def gigpo_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """A = w_prc N_state(G) + w_out N(r_out) + w_fmt N(r_fmt); gated: W N(r_fmt)."""
    w = named_weights(p["weights"])
    name = next(n for n in w if n not in SCALARS)
    operator = OPERATORS[p["norm"]]
    steps = _within_states(rows, [_returns(row, name, p) for row in rows], operator, p)
    scalars = {n: _scalar([getattr(r, n) for r in rows], operator) for n in SCALARS}
    out = []
    for i, row in enumerate(rows):
        if p["gate"] and not row.format_ok:
            out.append([sum(w.values()) * scalars["format"][i]] * row.length)
            continue
        flat = sum(w.get(n, 0.0) * scalars[n][i] for n in SCALARS)
        out.append(broadcast([w[name] * z + flat for z in steps[i]], row.ends))
    return out


def _scalar(values: list[float | None], operator: str) -> list[float]:
    if any(v is None for v in values):
        return [0.0] * len(values)
    return standardized([float(v) for v in values if v is not None], operator)


def _returns(row: Row, name: str, p: dict[str, Any]) -> list[float]:
    """The discounted return of each step; 0 where only rounding is left of its terms."""
    scores = row.streams[name].scores if name in row.streams else [0.0] * len(row.ends)
    rewards = [[s] for s in scores]
    if p["outcome_in_return"] and row.outcome is not None:
        rewards[-1].append(row.outcome)
    out = []
    for j in range(len(rewards)):
        terms = [p["gamma"] ** (at - j) * r for at in range(j, len(rewards)) for r in rewards[at]]
        total = math.fsum(terms)
        out.append(0.0 if abs(total) <= TIE * math.fsum(map(abs, terms)) else total)
    return out


def _within_states(
    rows: list[Row], returns: list[list[float]], operator: str, p: dict[str, Any]
) -> list[list[float]]:
    """N among the steps of the group in the same state, over the levels that `combine` takes."""
    places = [(i, j) for i, row in enumerate(rows) for j in range(len(row.ends))]
    levels = len(rows[0].states[0])
    out = [[0.0] * len(row.ends) for row in rows]
    for i, j in places:
        found = []  # (k, N) of every level with another member, the finest first
        for level in range(levels):
            key = rows[i].states[j][level]
            pool = [at for at in places if rows[at[0]].states[at[1]][level] == key]
            if len(pool) > 1:
                z = standardized([returns[a][b] for a, b in pool], operator)
                found.append((levels - 1 - level, z[pool.index((i, j))]))
        if found and p["combine"] == "fallback":
            out[i][j] = found[0][1]
        elif found:
            shares = [(k + 1) ** p["alpha"] for k, _ in found]
            parts = [share * z for share, (_, z) in zip(shares, found, strict=True)]
            out[i][j] = math.fsum(parts) / math.fsum(shares)
    return out
