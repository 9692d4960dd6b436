"""The faults of the lints, planted on clean rows at a known size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from stepcredit.audit.checks.lints import GATE, GROUPS, OUTCOMES
from stepcredit.audit.checks.repeated_responses import REPEATED
from stepcredit.audit.checks.shifted_scores import SHIFTED
from stepcredit.audit.checks.signal_lints import VALUES, VARIANCE
from stepcredit.audit.checks.stored_lints import MASKED, NO_METHOD
from stepcredit.audit.generated_logs import LogRows

Plant = Callable[[np.random.Generator, LogRows], float | None]
"""Changes the rows, and gives the size of what it planted; None: it has no size."""


@dataclass(frozen=True)
class PlantedLint:
    """A fault that one of the lints must find.

    Args:
        name: what is planted.
        check: the check that must find it.
        plant: plants it.
        words: what its sentence must hold.
    """

    name: str
    check: str
    plant: Plant
    words: str


def _groups(rows: LogRows) -> list[list[int]]:
    """The rows of each group."""
    found: dict[object, list[int]] = {}
    for at, row in enumerate(rows):
        found.setdefault(row["group"], []).append(at)
    return list(found.values())


def _flat_rows(groups: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(groups))


def _torn(rng: np.random.Generator, rows: LogRows) -> float:
    groups = _groups(rows)
    torn = groups[: len(groups) // 2]
    for at in _flat_rows(torn):
        rows[at]["group"] = f"row {at}"
    alone = sum(map(len, torn))
    return alone / (alone + len(groups) - len(torn))


def _cut(rng: np.random.Generator, rows: LogRows) -> float:
    groups = _groups(rows)
    short = max(2, len(groups) // 5)
    for group in sorted(groups[:short], reverse=True):
        del rows[group[-1]]
    return short / len(groups)


def _without_outcomes(rng: np.random.Generator, rows: LogRows) -> float:
    groups = _groups(rows)
    chosen = _flat_rows(groups[: len(groups) // 3])
    for at in chosen:
        rows[at]["outcome"] = None
    return len(chosen) / len(rows)


def _one_without(rng: np.random.Generator, rows: LogRows) -> float:
    rows[int(rng.integers(len(rows)))]["outcome"] = None
    return 1 / len(rows)


def _gated(rng: np.random.Generator, rows: LogRows) -> float:
    for row in rows:
        row.update(format_ok=False, format=0.0)
    return 1.0


def _twice(rng: np.random.Generator, rows: LogRows) -> float:
    groups = _groups(rows)
    again = groups[: max(1, len(groups) // 4)]
    rows.extend(rows[at] | {"group": f"again {rows[at]['group']}"} for at in _flat_rows(again))
    return float(len(again))


def _shifted(by: int) -> Plant:
    def plant(rng: np.random.Generator, rows: LogRows) -> None:
        for row in rows:
            scores = row["step_scores"]
            row["step_scores"] = [scores[0], *scores[:-1]] if by > 0 else [*scores[1:], scores[-1]]

    return plant


def _shifted_through(rng: np.random.Generator, rows: LogRows) -> None:
    """Only last scores know the outcome; then each score stands one on, through the whole file."""
    flat = []
    for row in rows:
        del row["step_labels"]
        row["step_scores"] = rng.normal(size=len(row["step_scores"])).tolist()
        row["step_scores"][-1] = 3 * row["outcome"] + 0.5 * rng.normal()
        flat += row["step_scores"]
    late = iter([flat[-1], *flat[:-1]])
    for row in rows:
        row["step_scores"] = [next(late) for _ in row["step_scores"]]


def _scored(change: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> Plant:
    def plant(rng: np.random.Generator, rows: LogRows) -> None:
        for row in rows:
            row["step_scores"] = change(rng, np.array(row["step_scores"])).tolist()

    return plant


def _saturated(rng: np.random.Generator, rows: LogRows) -> float:
    total = at_end = 0
    for row in rows:
        low = rng.random(len(row["step_scores"])) < 0.05
        row["step_scores"] = np.where(low, rng.uniform(0, 0.9, len(low)), 1.0).tolist()
        total, at_end = total + len(low), at_end + int((~low).sum())
    return at_end / total


def _all_right(rng: np.random.Generator, rows: LogRows) -> float:
    groups = _groups(rows)
    chosen = groups[: round(0.8 * len(groups))]
    for at in _flat_rows(chosen):
        rows[at]["outcome"] = 1.0
    return len(chosen) / len(groups)


def _masked(rng: np.random.Generator, rows: LogRows) -> float:
    """Every second tool's token holds an advantage."""
    masked = credited = 0
    for row in rows:
        count = len(row["advantages"])
        mask = row.setdefault("loss_mask", [1] * (count - 2) + [0, 0])
        for at in range(count):
            if not mask[at]:
                row["advantages"][at] = 1.0 if masked % 2 else 0.0
                credited, masked = credited + masked % 2, masked + 1
    return credited / masked


def _noise(rng: np.random.Generator, rows: LogRows) -> float:
    for row in rows:
        row["advantages"] = rng.normal(size=len(row["advantages"])).tolist()
    return 1.0


PLANTED_LINTS: tuple[PlantedLint, ...] = (
    PlantedLint("groups torn apart", GROUPS, _torn, "torn apart"),
    PlantedLint("incomplete groups", GROUPS, _cut, "fewer than"),
    PlantedLint("outcomes missing", OUTCOMES, _without_outcomes, "have no outcome"),
    PlantedLint("one outcome missing", OUTCOMES, _one_without, "some responses only"),
    PlantedLint("the gate fails", GATE, _gated, "break the format"),
    PlantedLint("groups logged twice", REPEATED, _twice, "twice"),
    PlantedLint("scores a step later", SHIFTED, _shifted(1), "one step later"),
    PlantedLint("scores a step earlier", SHIFTED, _shifted(-1), "one step earlier"),
    PlantedLint("scores on in the file", SHIFTED, _shifted_through, "the row before"),
    PlantedLint("constant", VALUES, _scored(lambda rng, s: np.full(len(s), 0.5)), "are 0.5"),
    PlantedLint(
        "almost constant",
        VALUES,
        _scored(lambda rng, s: rng.normal(0.8, 0.005, len(s))),
        "almost constant",
    ),
    PlantedLint("saturated", VALUES, _saturated, "stand at"),
    PlantedLint(
        "three-valued",
        VALUES,
        _scored(lambda rng, s: np.sign(np.round(s + rng.normal(0, 0.5, len(s))))),
        "different values",
    ),
    PlantedLint("groups all right", VARIANCE, _all_right, "'outcome' are equal"),
    PlantedLint("masked tokens credited", MASKED, _masked, "not trained hold"),
    PlantedLint("advantages of no method", NO_METHOD, _noise, "none of the methods"),
)
"""Each lint's faults."""
