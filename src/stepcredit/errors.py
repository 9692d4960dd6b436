"""The errors stepcredit raises: one small tree.

Each error is also the built-in error a caller would expect (`ValueError`, `OSError`, ...) and carries
where it happened as data, so that a command can print `FILE:LINE: FIELD: reason` and a trainer can
name the row.
"""

from __future__ import annotations


class StepCreditError(Exception):
    """Base of every error stepcredit raises.

    Args:
        reason: what came and what was expected, one line.
        row: index of the rollout at fault, from 0, where one is.
        field: name of the field, argument or setting at fault, where one is.

    Example:
        >>> print(RolloutError("is NaN", row=3, field="outcome"))
        row 3: outcome: is NaN
    """

    def __init__(self, reason: str, *, row: int | None = None, field: str | None = None) -> None:
        self.reason, self.row, self.field = reason, row, field
        place = [] if row is None else [f"row {row}"]
        super().__init__(": ".join([*place, *([field] if field else []), reason]))


class RolloutError(StepCreditError, ValueError):
    """Rollouts that break a rule of the format."""


class MethodError(StepCreditError, ValueError):
    """An unknown method, or a field of one with a wrong name, type or range."""


class FileError(StepCreditError, OSError):
    """A file that cannot be read or written."""


class MissingExtra(StepCreditError, ImportError):
    """A feature whose optional dependency is not installed; the reason names the extra."""


class EngineError(StepCreditError, RuntimeError):
    """A trainer's setting under which token credit would be lost or counted twice."""
