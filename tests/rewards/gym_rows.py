"""Rows of reasoning-gym's data sets, and answers as a response marks them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import reasoning_gym

from stepcredit.rewards.gym_table import names

EVALUATING = {
    "binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "number_sorting",
    "bitwise_arithmetic", "countdown", "puzzle24", "polynomial_multiplication",
    "simple_integration", "intermediate_integration",
}  # fmt: skip
"""The data sets whose graders evaluate answers or fields of the row."""


def rows_of(name: str, seed: int, size: int) -> list[dict[str, Any]]:
    """Rows of one data set with its default settings."""
    return list(reasoning_gym.create_dataset(name, size=size, seed=seed))


def one_row_each(wanted: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """One row per data set, by its name."""
    return {name: rows_of(name, 3, 1)[0] for name in sorted(wanted or names())}


def tagged(answers: Iterable[str]) -> list[str]:
    """Responses that give the answers."""
    return [f"<think>hm</think><answer>{answer}</answer>" for answer in answers]
