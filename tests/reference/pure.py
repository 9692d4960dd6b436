"""PURE: its three forms with its four baselines."""

from __future__ import annotations

from typing import Any

from .numbers import broadcast, mean, minus_others, softmin, suffix_sums
from .rows import Row


def pure_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """PURE on one group, before whitening."""
    reward: list[list[float]] = []
    for row in rows:
        scores = row.streams["process"].scores if "process" in row.streams else []
        shaped = rewards(scores, p) if scores else []
        reward.append([p["process_weight"] * r for r in shaped])
    outcome = [0.0] * len(rows)
    if all(r.outcome is not None for r in rows):
        outcome = [p["outcome_weight"] * v for v in minus_others([r.outcome for r in rows])]
    out = []
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i and reward[j]]
        process = [0.0] * row.length
        if reward[i] and others:
            process = BASELINES[p["baseline"]](rows, reward, i, others, p)
        out.append([v + outcome[i] for v in process])
    return out


def rewards(scores: list[float], p: dict[str, Any]) -> list[float]:
    """What adds up to the form's returns: of future_min, the differences of the suffix minima."""
    if p["form"] == "softmin":
        return softmin(scores, p["temperature"])
    if p["form"] == "sum":
        return scores
    lowest = [min(scores[j:]) for j in range(len(scores))]
    return [a - b for a, b in zip(lowest, [*lowest[1:], 0.0], strict=True)]


def _per_token(rows, reward, i, others, p):
    ends = rows[i].streams["process"].step_ends()
    rate = sum(sum(reward[j]) for j in others) / sum(rows[j].length for j in others)
    sizes = [e - s for s, e in zip([-1, *ends[:-1]], ends, strict=True)]
    return broadcast(
        suffix_sums([r - n * rate for r, n in zip(reward[i], sizes, strict=True)]), ends
    )


def _per_step(rows, reward, i, others, p):
    rate = mean([sum(reward[j]) / len(reward[j]) for j in others])
    return broadcast(
        suffix_sums([r - rate for r in reward[i]]), rows[i].streams["process"].step_ends()
    )


def _rollout(rows, reward, i, others, p):
    level = mean([sum(reward[j]) for j in others])
    return [g - level for g in _returns(rows, reward, i)]


def _per_slot(rows, reward, i, others, p):
    total = sum(sum(_returns(rows, reward, j)) for j in others)
    level = total / (len(others) * p["max_length"])
    return [g - level for g in _returns(rows, reward, i)]


def _returns(rows, reward, i):
    return broadcast(suffix_sums(reward[i]), rows[i].streams["process"].step_ends())


BASELINES = {
    "per_token": _per_token,
    "per_step": _per_step,
    "rollout": _rollout,
    "per_slot": _per_slot,
}
