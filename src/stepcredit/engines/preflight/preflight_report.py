"""`Preflight`: runs checks one after the other and keeps what each of them found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.table import Table

from stepcredit.credit.rich_table import literal, table_lines
from stepcredit.errors import EngineError, SeveralErrors, StepCreditError

Value = TypeVar("Value")
PASSED, NOTED, SKIPPED, REFUSED = "ok", "note", "skipped", "FAULT"


@dataclass(frozen=True)
class TriedCheck:
    """What one check found.

    Args:
        state: `PASSED`, `NOTED`, `SKIPPED` or `REFUSED`.
        what: what was checked.
        said: what was found; of a fault its place and reason, as the error has them.
    """

    state: str
    what: str
    said: str


@dataclass
class Preflight:
    """The results of checks. A check that raises is a fault, and the next one runs all the same.

    Args:
        results: in the order of the checks.
        errors: of the checks that failed.
        left_out: settings whose values were refused, so that their defaults are checked in their
            place; a fault that names one is not kept.

    Example:
        >>> found = Preflight()
        >>> found.run("the number", lambda: int("7"), at="number")
        7
        >>> found.run("the other", lambda: int("x"), at="other") is None
        True
        >>> print(*found.faults)
        other: ValueError: invalid literal for int() with base 10: 'x'
    """

    results: list[TriedCheck] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def run(self, what: str, check: Callable[[], Value], *, at: str = "") -> Value | None:
        """Run a check.

        Args:
            what: what it checks.
            check: raises where there is a fault. A text that it returns is shown.
            at: the setting at fault, where the error does not begin with it.

        Returns:
            What the check returns; None if it raises.
        """
        try:
            value = check()
        except SeveralErrors as error:
            for each in error.errors:
                self.refuse(what, each, at=at)
            return None
        except (Exception, SystemExit) as error:  # code of users and of trainers raises anything
            self.refuse(what, error, at=at)
            return None
        self.results.append(TriedCheck(PASSED, what, value if isinstance(value, str) else ""))
        return value

    def refuse(self, what: str, error: BaseException, *, at: str = "") -> None:
        """Keep a fault, unless it is about the default of a setting that was left out.

        Args:
            what: what was checked.
            error: why it failed.
            at: the setting at fault, where the error does not begin with it.
        """
        located = located_error(error, at)
        named = self.left_out.intersection(re.findall(r"\w+", str(located)))
        if named:
            self.skip(what, f"{sorted(named)[0]} has a fault")
            return
        self.results.append(TriedCheck(REFUSED, what, str(located)))
        self.errors.append(located)

    def note(self, what: str, said: str) -> None:
        """Keep what a person should read, and is no fault."""
        self.results.append(TriedCheck(NOTED, what, said))

    def skip(self, what: str, why: str) -> None:
        """Keep that something was not checked, and why."""
        self.results.append(TriedCheck(SKIPPED, what, why))

    @property
    def faults(self) -> list[str]:
        """One line per fault."""
        return [result.said for result in self.results if result.state == REFUSED]

    def stop(self) -> None:
        """End the run if there is a fault.

        Raises:
            Exception: the one fault's own error.
            SeveralErrors: all of several faults.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise SeveralErrors(self.errors)

    @property
    def summary(self) -> str:
        """How many checks passed, what was skipped, and what was noted, in one line.

        Example:
            >>> found = Preflight()
            >>> found.note("outcomes", "none is known")
            >>> found.summary
            'preflight: 0 checks passed; note: outcomes (none is known)'
        """
        states = [result.state for result in self.results]
        line = f"preflight: {states.count(PASSED)} checks passed"
        for state, heading in ((SKIPPED, "skipped"), (NOTED, "note")):
            told = [f"{each.what} ({each.said})" for each in self.results if each.state == state]
            line += f"; {heading}: {', '.join(told)}" if told else ""
        return line

    def lines(self) -> list[str]:
        """A table of all results, and one line per fault below it."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("", "checked", "found"):
            table.add_column(heading)
        for each in self.results:
            table.add_row(*map(literal, (each.state, each.what, each.said)))
        return table_lines(table)


def located_error(error: BaseException, at: str) -> Exception:
    """An error that begins with the setting at fault, in one line.

    Args:
        error: of a check. One of stepcredit that already begins with the setting is not changed.
        at: the setting; empty: none is known.

    Example:
        >>> print(located_error(KeyError("x"), "rewards.mine"))
        rewards.mine: KeyError: 'x'
    """
    if isinstance(error, StepCreditError):
        return error.at(place=at) if at and not str(error).startswith(at) else error
    if not at and isinstance(error, ValueError | OSError | ImportError):  # of the trainer itself
        return error
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}".removesuffix(": ")
    located = EngineError(reason, field=at or None)
    located.__cause__ = error
    return located


def first_rows(rows: Any, count: int) -> list[dict[str, Any]]:
    """The first rows of a data set; none where rows can be read only once.

    Args:
        rows: a data set of `datasets`, a list, or another.
        count: how many at most.

    Example:
        >>> first_rows([{"a": 1}, {"a": 2}], 1)
        [{'a': 1}]
    """
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        return []
    return [dict(rows[index]) for index in range(min(count, len(rows)))]
