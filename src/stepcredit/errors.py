"""The errors that stepcredit raises.

Each error is also a built-in error (`ValueError`, `OSError`, ...). Its place is kept in attributes,
so that a command can print `FILE:LINE: FIELD: reason` and a trainer can name the row.
"""

from __future__ import annotations


class StepCreditError(Exception):
    """Base class of all errors that stepcredit raises.

    Args:
        reason: what came and what was expected, one line.
        row: index of the rollout at fault, from 0, if there is one.
        field: name of the field, argument or setting at fault, if there is one.
        place: a better name of the row than its index, such as `rollouts.jsonl:17`.

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
    """Raised for rollouts that break a rule of the format."""


class RowError(RolloutError):
    """Raised for a row of a file that breaks a rule; printed as `FILE:LINE: FIELD: reason`.

    Args:
        reason: what came and what was expected, one line.
        path: the file, as the user named it.
        line: the row's line, from 1 (in a Parquet file: its row).
        field: name of the field at fault, if there is one.
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
    """Raised for an unknown signal or reward, or a field with a wrong name, type or range."""


class MethodError(SettingError):
    """Raised for an unknown method, or a method's field with a wrong name, type or range."""


class SignalError(StepCreditError, RuntimeError):
    """Raised if a model or server fails, gives a malformed answer, or does not fit the policy."""


class FileError(StepCreditError, OSError):
    """Raised for a file that cannot be read or written."""


class MissingExtra(StepCreditError, ImportError):
    """Raised if an optional dependency is not installed; the reason names the extra."""


class EngineError(StepCreditError, RuntimeError):
    """Raised for a trainer's setting that would lose token credit or count it twice."""
