"""Turn returns: the discounted return of each turn less what the other responses had."""

from __future__ import annotations

from typing import Any

from .numbers import broadcast, mean
from .rows import Row


def turn_group(rows: list[Row], p: dict[str, Any]) -> list[list[float]]:
    """turn-return on one group: every turn's return is summed term by term."""
    returns = [turn_returns(row, p) for row in rows]
    out = []
    for i, row in enumerate(rows):
        rivals = [g for k, g in enumerate(returns) if k != i]
        values = [g - baseline(g, j, rivals, p["baseline"]) for j, g in enumerate(returns[i])]
        out.append(broadcast(values, turn_ends(row)))
    return out


def turn_ends(row: Row) -> list[int]:
    """The steps of the process stream; a response without it is one turn, or one a token."""
    stream = the_stream(row)
    return [row.length - 1] if stream is None else stream.step_ends()


def the_stream(row: Row) -> Any:
    return row.streams.get("process")


def turn_returns(row: Row, p: dict[str, Any]) -> list[float]:
    stream = the_stream(row)
    scores = [0.0] if stream is None else stream.scores
    rewards = [p["process_weight"] * s for s in scores]
    rewards[-1] += p["outcome_weight"] * (row.outcome or 0.0)
    count = len(rewards)
    return [
        sum(p["gamma"] ** (later - j) * rewards[later] for later in range(j, count))
        for j in range(count)
    ]


def baseline(own: float, turn: int, rivals: list[list[float]], kind: str) -> float:
    """What a turn is compared with; its own return where there is nobody else."""
    if kind == "none":
        return 0.0
    if not rivals:
        return own
    reached = [g[turn] for g in rivals if len(g) > turn]
    if kind == "turns" and reached:
        return mean(reached)
    return mean([g[0] for g in rivals])
