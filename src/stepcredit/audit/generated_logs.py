"""Clean logs with drawn signals, outcomes and sizes, on which the self-test plants faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.method_registry import METHODS

LogRows = list[dict[str, Any]]
Scores = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""Scores of steps, from a generator and from 1 for each right step and 0 for each wrong one."""
SIGNALS: dict[str, Scores] = {
    "probability": lambda rng, right: rng.beta(2 + 4 * right, 6 - 4 * right),
    "difference": lambda rng, right: np.tanh(1.4 * right - 0.7 + rng.normal(0, 0.5, len(right))),
    "log-ratio": lambda rng, right: rng.normal(4 * right - 6, 2.5, len(right)),
}
"""Kinds of step scores: a chance of 0 to 1, a difference of -1 to 1, an unbounded log-ratio."""
OUTCOMES: dict[str, tuple[float, float]] = {"0 or 1": (0.0, 1.0), "-1 or 1": (-1.0, 1.0)}
"""Kinds of outcomes: of a wrong and of a right response."""
CREDITING = ("pass", "grpo", "pure", "grpo-process", "rloo")
"""Methods whose advantages a generated log may hold."""
COMPARED = (*CREDITING, "pass-min")
"""Methods that are compared on a generated log, if they fit its scores and outcomes."""


def generated_log(rng: np.random.Generator) -> LogRows:
    """A clean log: 10 to 24 groups of 4 to 9 responses, with one process signal and its outcomes.

    Signals, outcomes, sizes, tool output, labels of steps, formats and the method whose advantages
    are stored are drawn; the method fits the signal and the outcomes (`fitting_methods`). A right
    response has more right steps, and right steps higher scores.

    Args:
        rng: draws everything.

    Returns:
        Rows of the format of rollouts, with `advantages` of one method of `CREDITING` on trained
        tokens.

    Example:
        >>> rows = generated_log(np.random.default_rng(0))
        >>> len(rows) == len(LoggedBatch.of(rows).rows), sorted(rows[0])[:3]
        (True, ['advantages', 'format', 'format_ok'])
    """
    scores = list(SIGNALS.values())[rng.integers(len(SIGNALS))]
    values = list(OUTCOMES.values())[rng.integers(len(OUTCOMES))]
    groups, size, has_tools = (
        int(rng.integers(10, 25)),
        int(rng.integers(4, 10)),
        rng.random() < 0.5,
    )
    rows: LogRows = []
    for group in range(groups):
        for at in range(size):
            is_right = at % 2 == 1 if at < 2 else bool(rng.random() < 0.5)
            row = _response(rng, is_right, scores, has_tools)
            row |= {"group": group, "prompt": f"question {group}", "outcome": values[is_right]}
            rows.append(row)
    fitting = [name for name in CREDITING if name in fitting_methods(rows)]
    method = fitting[rng.integers(len(fitting))]
    return with_advantages(rows, credited(rows, method))


def _response(
    rng: np.random.Generator, is_right: bool, scores: Scores, has_tools: bool
) -> dict[str, Any]:
    """A response of 2 to 8 steps of 2 to 12 tokens."""
    sizes = rng.integers(2, 13, rng.integers(2, 9))
    ends, right = sizes.cumsum() - 1, rng.random(len(sizes)) < (0.8 if is_right else 0.45)
    keeps_format = bool(rng.random() < 0.9)
    row: dict[str, Any] = {
        "text": " ".join(f"{number:x}" for number in rng.integers(1, 2**40, len(sizes))),
        "step_ends": ends.tolist(),
        "step_scores": scores(rng, right.astype(np.int64)).tolist(),
        "step_labels": [int(each) for each in right],
        "format": float(keeps_format),
        "format_ok": keeps_format,
    }
    if has_tools:  # what a tool wrote opens the second step
        mask = np.ones(int(sizes.sum()), dtype=np.int64)
        mask[ends[0] + 1 : ends[0] + 1 + max(1, sizes[1] // 2)] = 0
        row["loss_mask"] = mask.tolist()
    return row


def fitting_methods(rows: LogRows) -> tuple[str, ...]:
    """The methods of `COMPARED` for which a generated log is as it should be.

    PURE's baseline is the others' minimum per token, so that scores far below 0 pay for length.
    GRPO on pooled streams adds scores and outcomes as they stand, so that outcomes of -1 and 1
    drown scores from 0 to 1. Where the audit says this of such a log, it is right.

    Args:
        rows: a generated log.

    Example:
        >>> rows = [{"step_scores": [-8.0, -1.0], "outcome": 1.0}]
        >>> fitting_methods(rows)
        ('pass', 'grpo', 'grpo-process', 'rloo', 'pass-min')
    """
    scores = [score for row in rows for score in row["step_scores"]]
    unfit = set[str]()
    if min(scores) < -1:
        unfit.add("pure")
    if min(scores) >= 0 and any(row["outcome"] == -1 for row in rows):
        unfit.add("grpo-process")
    return tuple(name for name in COMPARED if name not in unfit)


def credited(rows: LogRows, method: str) -> list[list[float]]:
    """A method's advantages of rows, one list per row, one number per trained token.

    Args:
        rows: rows of rollouts; their own advantages are not read.
        method: a method's name.
    """
    advantages = METHODS.build(method, {})(LoggedBatch.of(rows).rollouts)
    return [row.tolist() for row in advantages.ragged()]


def with_advantages(rows: LogRows, advantages: list[list[float]]) -> LogRows:
    """The rows with advantages of trained tokens, at all tokens of the response, 0 elsewhere.

    Args:
        rows: rows of rollouts; they are not changed.
        advantages: one list per row, one number per trained token.

    Example:
        >>> with_advantages([{"group": 0, "loss_mask": [1, 0, 1]}], [[0.5, 2.0]])[0]["advantages"]
        [0.5, 0.0, 2.0]
    """
    found = []
    for row, values in zip(rows, advantages, strict=True):
        left = iter(values)
        mask = row.get("loss_mask", [1] * len(values))
        placed = [next(left) if trained else 0.0 for trained in mask]
        found.append(row | {"advantages": placed})
    return found
