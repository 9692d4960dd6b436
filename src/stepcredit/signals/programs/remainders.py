"""Divisions whose remainder, or smaller unit, is written in words."""

from __future__ import annotations

import re

_QUOTIENT = re.compile(r"\(*(\d+)\)*[ \t]*/[ \t]*\(*(\d+)\)*")
_WHOLE = re.compile(r"\d+")
_LETTER = re.compile(r"[ \t(,;]*(?:[rR](?:em)?\b\.?|余数?[为是]?)[ \t:=]*(\d+)?")
_REMAINDER = re.compile(r"\bremainder\b|余", re.IGNORECASE)
_CLAUSE_END = re.compile(r"\.(?!\d)|[!?。\n]")
_NUMBER = re.compile(r"(?<![\d./])\d+(?![\d.]*\d|[ \t]*/)")
_COMPUTED = re.compile(r"[ \t]*[-+*/]")
_UNITS = re.compile(r"[ \t]*([A-Za-z]+),?[ \t]+(?:and[ \t]+)?(\d+)[ \t]+([A-Za-z]+)")
_FULL = re.compile(r"[ \t]*(?:full|whole|complete|entire)\b")
RATIOS = {
    ("dollar", "cent"): 100,
    ("hour", "minute"): 60,
    ("minute", "second"): 60,
    ("foot", "inch"): 12,
    ("yard", "foot"): 3,
    ("day", "hour"): 24,
    ("week", "day"): 7,
    ("year", "month"): 12,
    ("pound", "ounce"): 16,
    ("meter", "centimeter"): 100,
    ("metre", "centimetre"): 100,
    ("kilometer", "meter"): 1000,
    ("kilogram", "gram"): 1000,
    ("liter", "milliliter"): 1000,
    ("gallon", "quart"): 4,
}
"""How many of the smaller unit make one of the larger."""


def with_remainder(division: str, quotient: str, after: str) -> str | None:
    """The side of an equation that a quotient and the words after it make.

    Args:
        division: the side before.
        quotient: the side itself.
        after: the text after it.

    Returns:
        `4 R 3` for a stated remainder, `4 R` for one that is mentioned only, `3 + 30/60` for hours
        and minutes; None where there is no such thing.

    Example:
        >>> with_remainder("27 / 6", "4", " with a remainder of 3.")
        '4 R 3'
        >>> with_remainder("7/2", "3", " full"), with_remainder("6/2", "3", " apples")
        ('3 R', None)
        >>> with_remainder("7/2", "3", " hours and 30 minutes")
        '3 + 30/60'
    """
    parts = _QUOTIENT.fullmatch(division)
    if not _WHOLE.fullmatch(quotient):
        return None
    if units := _in_units(quotient, after):
        return units
    if parts is None or parts[2].strip("0") == "":
        return None
    if letter := _LETTER.match(after):
        return f"{quotient} R {letter[1] or ''}".strip()
    whole, rest = divmod(int(parts[1]), int(parts[2]))
    if rest == 0 and whole == int(quotient) and not _REMAINDER.search(after):
        return None
    if stated := _stated(quotient, _CLAUSE_END.split(after, maxsplit=1)[0], rest):
        return stated
    return f"{quotient} R" if _FULL.match(after) else None


def _stated(quotient: str, clause: str, rest: int) -> str | None:
    """The remainder among the numbers of a clause; the right one if it is there."""
    numbers = list(_NUMBER.finditer(clause))
    values = [int(number[0]) for number in numbers]
    word = _REMAINDER.search(clause)
    if rest in values:
        return f"{quotient} R {rest}"
    if word is None:
        return None
    if not values or any(_COMPUTED.match(clause, number.end()) for number in numbers):
        return f"{quotient} R"
    return f"{quotient} R {values[0]}"


def _in_units(quotient: str, after: str) -> str | None:
    units = _UNITS.match(after)
    if units is None:
        return None
    ratio = RATIOS.get((_singular(units[1]), _singular(units[3])))
    return f"{quotient} + {units[2]}/{ratio}" if ratio else None


def _singular(unit: str) -> str:
    unit = unit.lower()
    return {"feet": "foot", "inches": "inch"}.get(unit, unit.removesuffix("s"))
