"""The responses of two files whose credit differs most, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepcredit.audit.batch_pairs import BatchPairs
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.shown_rows import mean_advantages
from stepcredit.audit.step_credit import step_credit
from stepcredit.credit.metrics.group_averages import Floats

ROWS_SHOWN = 10
"""Responses whose credit changed most that are shown per method."""
TEXT_CHARACTERS = 400
"""Characters of a step, or of a response whose steps are not known, that are shown."""


@dataclass(frozen=True)
class RowChange:
    """A response under one method in both files.

    Args:
        method: the method.
        lines: its line in each file.
        group: its group in the second file.
        outcome: its outcome in the second file; None where it is not known.
        first, second: its mean advantage in each file.
        steps: each step's text, and its credit in each file; none where they end elsewhere.
        text: the response; "" without one.
    """

    method: str
    lines: tuple[int, int]
    group: str
    outcome: float | None
    first: float
    second: float
    steps: tuple[tuple[str, float, float], ...]
    text: str


def row_changes(
    first: AuditInput, second: AuditInput, pairs: BatchPairs, method: str
) -> list[RowChange]:
    """The responses whose mean advantage changed most under a method, the largest change first.

    Args:
        first, second: the inputs, which both have the method.
        pairs: of their batches.
        method: its name.

    Returns:
        At most `ROWS_SHOWN`; none where the files hold other responses, or none changed.
    """
    rows = pairs.rows
    if not len(rows[0]):
        return []
    means = [
        mean_advantages({method: given.advantages[method]})[method][own]
        for given, own in zip((first, second), rows, strict=True)
    ]
    size = np.abs(means[1] - means[0])
    largest = [int(at) for at in np.argsort(-size, kind="stable")[:ROWS_SHOWN] if size[at] > 0]
    tables = [_StepTable.of(given, method) for given in (first, second)]
    found = []
    for at in largest:
        a, b = int(rows[0][at]), int(rows[1][at])
        row, text = second.batch.rows[b], second.batch.texts[b]
        found.append(
            RowChange(
                method,
                (first.batch.line(a), second.batch.line(b)),
                str(row.group),
                row.outcome,
                float(means[0][at]),
                float(means[1][at]),
                _steps(tables, (a, b), second),
                (text or "")[:TEXT_CHARACTERS],
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class _StepTable:
    """Each response's steps under a method: their last tokens and their credit."""

    ends: list[Floats]
    credit: list[Floats]

    @classmethod
    def of(cls, given: AuditInput, method: str) -> _StepTable | None:
        kinds = given.step_kinds
        if kinds is None:
            return None
        cuts = kinds.ends.counts.numpy().cumsum()[:-1]
        credit = step_credit(given.advantages[method], kinds.ends).numpy()
        return cls(np.split(kinds.ends.values.numpy(), cuts), np.split(credit, cuts))


def _steps(
    tables: list[_StepTable | None], rows: tuple[int, int], given: AuditInput
) -> tuple[tuple[str, float, float], ...]:
    """A response's steps with their credit in both files."""
    first, second = tables
    if first is None or second is None:
        return ()
    if not np.array_equal(first.ends[rows[0]], second.ends[rows[1]]):
        return ()
    credit = [table.credit[row].tolist() for table, row in zip((first, second), rows, strict=True)]
    texts = None if given.batch.steps is None else given.batch.steps[rows[1]]
    names = texts or [f"step {at + 1}" for at in range(len(credit[0]))]
    cut = [name[:TEXT_CHARACTERS] for name in names]
    return tuple(zip(cut, *credit, strict=True))
