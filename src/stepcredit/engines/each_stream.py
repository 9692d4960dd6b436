"""What is made of each of several streams, with errors that name the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepcredit.errors import StepCreditError


def of_each_stream(given: Mapping[str, Any], make: Callable[[Any], Any]) -> dict[str, Any]:
    """What is made of each stream; an error names the stream.

    Example:
        >>> import stepcredit as sc
        >>> of_each_stream({"prm": [0.5], "judge": [float("nan")]}, lambda row: sc.Tokens([row]))
        Traceback (most recent call last):
        stepcredit.errors.RolloutError: row 0: judge.scores: nan is not a finite number
    """
    made = {}
    for name, each in given.items():
        try:
            made[name] = make(each)
        except StepCreditError as error:
            if error.field == "process_signal":
                raise error.at(field=f"process_signal.{name}") from error.__cause__
            raise error.at(under=name) from error.__cause__
    return made
