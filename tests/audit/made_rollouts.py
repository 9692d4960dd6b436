"""Generated rollouts of known make, for the tests of the checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.estimator import Estimator

Row = dict[str, Any]


def clean_rows(seed: int = 0, groups: int = 20, size: int = 8) -> list[Row]:
    """Responses of 3 to 7 steps: a right step scores about 0.85, a wrong one about 0.25.

    A response is right where all its steps are; the length says nothing of it.
    """
    rng, rows = np.random.default_rng(seed), []
    for group in range(groups):
        easy = rng.uniform(0.75, 0.97)
        for _ in range(size):
            steps = int(rng.integers(3, 8))
            sizes = rng.integers(2, 9, steps)
            wrong = rng.random() > easy**2
            right = np.ones(steps, bool)
            if wrong:
                right[rng.integers(steps) :] = False
            scores = np.where(right, 0.85, 0.25) + rng.normal(0, 0.08, steps)
            rows.append(
                {
                    "group": group,
                    "step_ends": (np.cumsum(sizes) - 1).tolist(),
                    "step_scores": scores.clip(0, 1).tolist(),
                    "outcome": float(right.all()),
                }
            )
    return rows


def small_rows(size: int) -> list[Row]:
    """Two groups, "a" and "b", of responses of two steps; every second one is right."""
    return [
        {"group": g, "outcome": float(i % 2), "step_ends": [1, 3], "step_scores": [0.1 * i, 0.5]}
        for g in ("a", "b")
        for i in range(size)
    ]


def audited(rows: list[Row], **methods: Estimator) -> AuditInput:
    """The input of a check."""
    return AuditInput.of(LoggedBatch.of(rows), methods)
