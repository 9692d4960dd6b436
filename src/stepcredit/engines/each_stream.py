"""What is made of each of several streams, with errors that name the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from stepcredit.errors import StepCreditError

Measure = Callable[[str, Any], AbstractContextManager[None]]
"""Measures what is made of a stream, by its name, while it is made."""


def unmeasured(name: str, given: Any) -> AbstractContextManager[None]:
    """Measures nothing."""
    return nullcontext()


def of_each_stream(
    given: Mapping[str, Any], make: Callable[[Any], Any], measure: Measure = unmeasured
) -> dict[str, Any]:
    """What is made of each stream; an error names the stream.

    Args:
        given: by stream.
        make: makes something of one.
        measure: a context around each call of `make`, by the stream's name and what it is made of.

    Example:
        >>> import stepcredit as sc
        >>> of_each_stream({"prm": [0.5], "judge": [float("nan")]}, lambda row: sc.Tokens([row]))
        Traceback (most recent call last):
        stepcredit.errors.RolloutError: row 0: judge.scores: nan is not a finite number
    """
    made = {}
    for name, each in given.items():
        try:
            with measure(name, each):
                made[name] = make(each)
        except StepCreditError as error:
            if error.field == "process_signal":
                raise error.at(field=f"process_signal.{name}") from error.__cause__
            raise error.at(under=name) from error.__cause__
    return made
