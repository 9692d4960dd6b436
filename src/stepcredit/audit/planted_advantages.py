"""The faults of `conformance`, planted on a method's advantages at a known size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from stepcredit.audit.generated_logs import LogRows

TrainedValues = list[list[float]]
"""One list per response, one number per trained token."""
PlantAdvantages = Callable[[np.random.Generator, LogRows, TrainedValues], TrainedValues]


def _each(change: Callable[[np.ndarray], np.ndarray]) -> PlantAdvantages:
    return lambda rng, rows, values: [change(np.array(row)).tolist() for row in values]


def _less_mean(values: TrainedValues, pool: TrainedValues) -> TrainedValues:
    """Less the mean of a pool's tokens, over their std; unchanged where these are all equal."""
    flat = np.concatenate([np.array(row) for row in pool])
    std = flat.std(ddof=1) if len(flat) > 1 else 0.0
    return [((np.array(row) - flat.mean()) / (std or 1.0)).tolist() for row in values]


def _twice(rng: np.random.Generator, rows: LogRows, values: TrainedValues) -> TrainedValues:
    group = [row["group"] for row in rows]
    found = list(values)
    for of in set(group):
        at = [index for index, each in enumerate(group) if each == of]
        chosen = [values[index] for index in at]
        for index, row in zip(at, _less_mean(chosen, chosen), strict=True):
            found[index] = row
    return found


def _misplaced(rng: np.random.Generator, rows: LogRows, values: TrainedValues) -> TrainedValues:
    """Each response holds what the next one should, cut or continued by 0 to its own length."""
    found = []
    for at, row in enumerate(values):
        other = values[(at + 1) % len(values)][: len(row)]
        found.append(other + [0.0] * (len(row) - len(other)))
    return found


def _reset(rng: np.random.Generator, rows: LogRows, values: TrainedValues) -> TrainedValues:
    """The trainer's loop `running = (running + reward) * mask`, which forgets what follows a tool.

    The advantages must be sums over what follows, so that a reward is a difference of two of them.
    """
    found = []
    for row, value in zip(rows, values, strict=True):
        mask = row.get("loss_mask", [1] * len(value))
        rewards = iter([*(a - b for a, b in pairwise(value)), value[-1]][::-1])
        running, sums = 0.0, list[float]()
        for trained in reversed(mask):
            running = (running + (next(rewards) if trained else 0.0)) * trained
            sums += [running] * trained
        found.append(sums[::-1])
    return found


def _zeroed(rng: np.random.Generator, rows: LogRows, values: TrainedValues) -> TrainedValues:
    dropped = rng.random(len(values)) < 0.3
    return [[0.0] * len(row) if drop else row for row, drop in zip(values, dropped, strict=True)]


RESET = "reset at tool output"
"""A fault of logs with tool output, on advantages that are sums."""
PLANTED_ADVANTAGES: dict[str, PlantAdvantages] = {
    "sign flipped": _each(lambda row: -row),
    "scaled": _each(lambda row: 2.5 * row),
    "shifted by one token": _each(lambda row: np.concatenate([[0.0], row[:-1]])),
    "normalized twice": _twice,
    "whitened again": lambda rng, rows, values: _less_mean(values, values),
    RESET: _reset,
    "broadcast": _each(lambda row: np.full(len(row), row.mean())),
    "misplaced": _misplaced,
    "zeroed": _zeroed,
    "moved by a constant": _each(lambda row: 0.7 * row + 0.4),
}
"""By the name of the fault that `conformance` must give."""
