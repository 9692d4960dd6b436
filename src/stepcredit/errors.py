"""The errors that stepcredit raises.

Each error is also a built-in error (`ValueError`, `OSError`, ...). Its place is kept in attributes,
so that a command can print `FILE:LINE: FIELD: reason` and a trainer can name the row.

A caller that knows more about the place catches an error and raises it again with `at`:

    try:
        ...
    except RolloutError as error:
        raise error.at(place=response.name) from error.__cause__
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Self, TypeVar

Kind = TypeVar("Kind", bound="StepCreditError")


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
        self._set_message()

    def _set_message(self) -> None:
        super().__init__(": ".join(filter(None, [self.place, self.field, self.reason])))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles keep every attribute, whatever arguments a subclass takes."""
        return _restored, (type(self), self.__dict__)

    def at(
        self,
        *,
        place: str | None = None,
        row: int | None = None,
        field: str | None = None,
        under: str | None = None,
    ) -> Self:
        """The same error for a caller that knows more about where it happened.

        The class, its other attributes, the reason and the cause stay as they are.

        Args:
            place: is put in front of the error's place. If that is only a row's number, `place`
                replaces it; an empty `place` removes it.
            row: the caller's number of the row, from 0; replaces another number.
            field: the caller's name of the field at fault; replaces the field.
            under: the setting or the option of the command line that holds the field:
                `under.field`, or `--under field`. Where no field is known, it is the field.

        Example:
            >>> error = RolloutError("is NaN", row=0, field="outcome")
            >>> print(error.at(place="rollouts.jsonl:17"))
            rollouts.jsonl:17: outcome: is NaN
            >>> print(SettingError("expected a number", field="k").at(under="fields"))
            fields.k: expected a number
            >>> print(SettingError("expected a number", field="k").at(under="--set"))
            --set k: expected a number
        """
        error = copy(self)
        if row is not None or place is not None:
            if error.row is not None and error.place == f"row {error.row}":
                error.row = error.place = None
            error.row = error.row if row is None else row
            outer = place or (None if row is None else f"row {row}")
            error.place = ": ".join(filter(None, [outer, error.place])) or None
        error.field = _nested(under, field or error.field)
        error._set_message()
        return _with_cause_of(self, error)


def _restored(kind: type[StepCreditError], attributes: dict[str, Any]) -> StepCreditError:
    error = kind.__new__(kind)
    error.__dict__.update(attributes)
    error._set_message()
    return error


def _with_cause_of(other: StepCreditError, error: Kind) -> Kind:
    error.__cause__, error.__suppress_context__ = other.__cause__, other.__suppress_context__
    return error


def _nested(outer: str | None, field: str | None) -> str | None:
    if not outer or not field:
        return outer or field
    return f"{outer} {field}" if outer.startswith("--") else f"{outer}.{field}"


class RolloutError(StepCreditError, ValueError):
    """Raised for rollouts that break a rule of the format."""

    def at_line(self, path: str, line: int, *, more: int = 0, groups: int = 0) -> RowError:
        """The error of a row of a file: the same reason and field, at FILE:LINE.

        Args:
            path: the file, as the user named it.
            line: the row's line, from 1.
            more: how many more faults the file has.
            groups: how many more groups have faults that were not counted row by row.

        Example:
            >>> print(RolloutError("is NaN", row=3, field="outcome").at_line("r.jsonl", 4))
            r.jsonl:4: outcome: is NaN
        """
        counts = {"more": more, "groups": groups}
        error = RowError(self.reason, path=path, line=line, field=self.field, **counts)
        return _with_cause_of(self, error)


class RowError(RolloutError):
    """Raised for a row of a file that breaks a rule; printed as `FILE:LINE: FIELD: reason`.

    Args:
        reason: what came and what was expected, one line.
        path: the file, as the user named it.
        line: the row's line, from 1 (in a Parquet file: its row).
        field: name of the field at fault, if there is one.
        more: how many more faults the file has.
        groups: how many more groups have faults that were not counted row by row.

    Example:
        >>> print(RowError("is NaN", path="r.jsonl", line=4, field="outcome", more=2))
        r.jsonl:4: outcome: is NaN (and 2 more faults)
        >>> print(RowError("missing", path="r.jsonl", line=1, field="outcome", groups=3))
        r.jsonl:1: outcome: missing (and 3 more groups)
    """

    def __init__(
        self,
        reason: str,
        *,
        path: str,
        line: int,
        field: str | None = None,
        more: int = 0,
        groups: int = 0,
    ) -> None:
        super().__init__(reason, row=line - 1, field=field, place=f"{path}:{line}")
        self.path, self.line, self.more, self.groups = path, line, more, groups

    def __str__(self) -> str:
        counts = {"more fault": self.more, "more group": self.groups}
        rest = [f"{n} {noun}{'s' * (n > 1)}" for noun, n in counts.items() if n]
        return super().__str__() + (f" (and {', and '.join(rest)})" if rest else "")


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


class SeveralErrors(EngineError):
    """Raised for several faults that were found together, each with a line of its own.

    Args:
        errors: of each fault.

    Example:
        >>> print(SeveralErrors([EngineError("is 0", field="beta"), ValueError("no such model")]))
        beta: is 0
        no such model
    """

    def __init__(self, errors: Sequence[BaseException]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


def first_line(error: BaseException) -> str:
    """The first line of another library's error; the name of its class if it has no text.

    Example:
        >>> first_line(ValueError("no such file\\nsee the manual")), first_line(KeyError())
        ('no such file', 'KeyError')
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__
