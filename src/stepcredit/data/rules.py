"""The rules of rollouts that several checks share, each with the sentence that refuses a violation.

The same rule is checked on a file's lists, on tensors, and on what a trainer gives. The checks
differ; the rule and its sentence stand here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch

LARGEST = torch.finfo(torch.float32).max
"""Largest score, outcome or advantage: all of them leave as float32."""
RESERVED_NAMES = ("outcome", "format")
"""Names that no process stream may have."""
NAME_TAKEN = "this name is taken: a process stream needs another"
NO_TRAINED_TOKEN = "a response needs at least one trained token"
PARTLY_UNKNOWN = "unknown, but known for others of its group"


def part_differs(had: Any, other: str, want: Any) -> str:
    """All parts of a trajectory have the same outcome, format and `format_ok`.

    Args:
        had: the value of the part at fault.
        other: a part before it, such as "row 3".
        want: that part's value.

    Example:
        >>> part_differs(0.0, "line 3", 1.0)
        'is 0.0, but line 3 of its trajectory has 1.0'
    """
    value, others = shown(had, as_json=True), shown(want, as_json=True)
    return f"is {value}, but {other} of its trajectory has {others}"


def part_lacks(other: str) -> str:
    """All parts of a trajectory have the same fields of tokens and steps, or none has them.

    Args:
        other: a part that has the field, such as "row 3".

    Example:
        >>> part_lacks("line 3")
        'missing, but line 3 of its trajectory has it'
    """
    return f"missing, but {other} of its trajectory has it"


def shown(value: Any, *, as_json: bool = False) -> str:
    """A value in a message, on one line of at most 40 characters.

    Args:
        value: any value.
        as_json: write it as JSON, as a file holds it; otherwise as Python does.

    Example:
        >>> shown("a" * 99), shown(10**400)
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...", 'an integer of 1329 bits')
        >>> shown(True, as_json=True)
        'true'
    """
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = json.dumps(value, default=repr) if as_json else " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "group"), counted(31204, "token")
        ('1 group', '31,204 tokens')
    """
    return f"{count:,} {noun}" + "s" * (count != 1)


def wrong_last_end(end: int, last_token: int) -> str:
    """The last step must end at the response's last token.

    Example:
        >>> wrong_last_end(3, 4)
        "last step ends at 3, but the response's last token is 4"
    """
    return f"last step ends at {end}, but the response's last token is {last_token}"


def wrong_end_order(end: int, previous: int | None) -> str:
    """Step ends are numbers of tokens, from 0, and increase strictly.

    Args:
        end: the end at fault.
        previous: the end before it; None: it is the response's first.

    Example:
        >>> wrong_end_order(-1, None), wrong_end_order(2, 2)
        ('-1 is before the first token', '2 follows 2: ends must increase')
    """
    if previous is None:
        return f"{end} is before the first token"
    return f"{end} follows {previous}: ends must increase"


def fits_float32(value: float) -> bool:
    """Whether a number is finite, and float32 can hold it.

    Example:
        >>> fits_float32(0.5), fits_float32(1e39), fits_float32(float("nan"))
        (True, False, False)
    """
    return -LARGEST <= value <= LARGEST


def why_not_float32(value: float) -> str:
    """What is wrong with a number that `fits_float32` refuses.

    Example:
        >>> why_not_float32(float("inf")), why_not_float32(1e39)
        ('is not a finite number', 'is too large for float32')
    """
    infinite = isinstance(value, float) and not isfinite(value)
    return "is not a finite number" if infinite else "is too large for float32"


def first_unknown(values: Sequence[float | None]) -> int | None:
    """Outcome and format are known for all responses of a group, or for none of it.

    Args:
        values: those of one group; None is unknown.

    Returns:
        The first response that lacks what others of its group have; None where the rule holds.

    Example:
        >>> first_unknown([1.0, None]), first_unknown([None, None])
        (1, None)
    """
    unknown = [row for row, value in enumerate(values) if value is None]
    return unknown[0] if 0 < len(unknown) < len(values) else None
