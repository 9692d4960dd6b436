"""The errors stepcredit raises: one small tree.

Each error is also the built-in error a caller would expect (`ValueError`, `OSError`, ...) and
carries where it happened as data, so that a command can print `FILE:LINE: FIELD: reason` and a
trainer can name the row.
"""

from __future__ import annotations


class StepCreditError(Exception):
    """Base of every error stepcredit raises.

    Args:
        reason: what came and what was expected, one line.
        row: index of the rollout at fault, from 0, where one is.
        field: name of the field, argument or setting at fault, where one is.
        place: what to call the row, where it has a better name, such as `rollouts.jsonl:17`.

    Example:
        >>> print(RolloutError("is NaN", row=3, field="outcome"))
        row 3: outcome: is NaN
        >>> print(RolloutError("is empty", place="rollouts.jsonl:17", field="text"))
        rollouts.jsonl:17: text: is empty
    """

    def __init__(
        self,
        reason: str,
        *,
        row: int | None = None,
        field: str | None = None,
        place: str | None = None,
    ) -> None:
        self.reason, self.row, self.field = reason, row, field
        self.place = place or (None if row is None else f"row {row}")
        super().__init__(": ".join(filter(None, [self.place, field, reason])))


class RolloutError(StepCreditError, ValueError):
    """Rollouts that break a rule of the format."""


class RowError(RolloutError):
    """A row of a file that breaks a rule; printed as `FILE:LINE: FIELD: reason`.

    Args:
        reason: what came and what was expected, one line.
        path: the file, as the user named it.
        line: the row's line, from 1 (in a Parquet file: its row).
        field: name of the field at fault, where one is.
        more: how many more faults the file has.

    Example:
        >>> print(RowError("is NaN", path="r.jsonl", line=4, field="outcome", more=2))
        r.jsonl:4: outcome: is NaN (and 2 more faults)
    """

    def __init__(
        self, reason: str, *, path: str, line: int, field: str | None = None, more: int = 0
    ) -> None:
        super().__init__(reason, row=line - 1, field=field, place=f"{path}:{line}")
        self.path, self.line, self.more = path, line, more

    def __str__(self) -> str:
        rest = f" (and {self.more} more fault{'s' * (self.more > 1)})" if self.more else ""
        return super().__str__() + rest


class SettingError(StepCreditError, ValueError):
    """An unknown name of a signal or reward, or a field with a wrong name, type or range."""


class MethodError(SettingError):
    """An unknown method, or a field of one with a wrong name, type or range."""


class SignalError(StepCreditError, RuntimeError):
    """A model or server that failed, answered malformed, or does not fit the policy."""


class FileError(StepCreditError, OSError):
    """A file that cannot be read or written."""


class MissingExtra(StepCreditError, ImportError):
    """A feature whose optional dependency is not installed; the reason names the extra."""


class EngineError(StepCreditError, RuntimeError):
    """A trainer's setting under which token credit would be lost or counted twice."""
