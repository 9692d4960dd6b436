"""Check equations exactly, by a small grammar, without `eval`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from stepcredit.signals.programs.plain_spelling import spelled_plainly

READING = 3
"""Increased when equations are read differently, so that cached scores are not used."""
LONGEST = 300
FLOAT = Fraction(1, 10**14)
"""How far a calculator that counts in floats may be off, as a share of the value."""
LARGE = 100
"""From here on a sum of decimals may be shown as the nearest whole number, alone on its side."""
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_CALCULATOR = re.compile(r"<<([^<>]*)>>")
_REMAINDER = re.compile(r"\s*(\d+)\s*R\s*(\d+)?\s*", re.ASCII)
_DIVISION = re.compile(r"[\s(]*(\d+)[\s)]*/[\s(]*(\d+)[\s)]*", re.ASCII)
_GROUPED = re.compile(r"/\s+(\d+\s*/\s*\d+)(?![\d.])")
_START = re.compile(r"\s*[\d.]+%?(?=\s*[-+*/])")
_SUM = re.compile(r"[-+*/(). \t\d]*", re.ASCII)
_PERCENT = re.compile(r"\s*[-+]?\s*[\d.]+%\s*")
_SHOWN = re.compile(r"\s*[-+]?\s*\d*\.\d+\s*")
_WHOLE = re.compile(r"\s*[-+]?\s*\d+\s*")


def annotated_equations(text: str) -> list[str]:
    """The calculator's annotations of GSM8K's solutions.

    Example:
        >>> annotated_equations("He has 48/2 = <<48/2=24>>24 left.")
        ['48/2=24']
    """
    return _CALCULATOR.findall(text)


def holds(equation: str, *, exact: bool = False) -> bool | None:
    """Whether all sides of an equation are equal.

    Args:
        equation: sides joined by `=`. The last may be a quotient and a remainder, `4 R 3`, or `4 R`
            for a quotient with any remainder.
        exact: whether a decimal must be the value itself; else it may be the value rounded or
            truncated to the places shown, as `10/3 = 3.33` and `2/3 = 0.66` are.

    Returns:
        None where a side is no sum of numbers, or there is only one side, or a side goes on with
        the value before it, as in `5 + 3 = 8 * 2 = 16`. A percentage is also the number before its
        sign, as in `100 - 20 = 80%`.

    Example:
        >>> holds("10/3=3.33"), holds("10/3=3.33", exact=True), holds("2+2=5"), holds("x=1")
        (True, False, False, None)
        >>> holds("27/6 = 4 R 3"), holds("27/6 = 4 R 2"), holds("5 + 3 = 8 * 2 = 16")
        (True, False, None)
    """
    sides = spelled_plainly(equation).split("=")
    *sides, last = sides
    if remainder := _REMAINDER.fullmatch(last):
        return _divides(sides, remainder, exact)
    sides.append(last)
    values = [value for side in sides if (value := value_of(side)) is not None]
    if len(sides) < 2 or len(values) < len(sides):
        return None
    equal = [_equal(one, next_, exact) for one, next_ in pairwise(zip(values, sides, strict=True))]
    if all(equal):
        return True
    return None if _is_running(sides, values) else False


def _equal(one: tuple[Fraction, str], next_: tuple[Fraction, str], exact: bool) -> bool:
    """Whether two neighbouring sides agree, in any reading of `a / b/c` and of percent."""
    (value, side), (shown, shown_side) = one, next_
    if _agree(value, shown, shown_side, exact, has_decimals="." in side):
        return True
    if "%" in side + shown_side and value in (100 * shown, shown / 100):
        return True
    grouped = _GROUPED.sub(r"/(\1)", side)
    other = value_of(grouped) if grouped != side else None
    return other is not None and _agree(other, shown, shown_side, exact)


def _is_running(sides: Sequence[str], values: Sequence[Fraction]) -> bool:
    """Whether a side goes on with the value before it, and all others are equal to theirs."""
    goes_on = False
    for (before, _), (value, side) in pairwise(zip(values, sides, strict=True)):
        if not _agree(before, value, side, exact=False):
            start = _START.match(side)
            if start is None or value_of(start[0]) != before:
                return False
            goes_on = True
    return goes_on


def _divides(sides: Sequence[str], remainder: re.Match[str], exact: bool) -> bool | None:
    """Whether the division before a remainder, and what is equal to it, leaves that remainder."""
    division = _DIVISION.fullmatch(sides[-1]) if sides else None
    if division is None or int(division[2]) == 0:
        return None
    whole, rest = divmod(int(division[1]), int(division[2]))
    stated = rest if remainder[2] is None else int(remainder[2])
    before = holds("=".join(sides), exact=exact) if len(sides) > 1 else True
    return before is not False and (whole, rest) == (int(remainder[1]), stated)


def _agree(
    value: Fraction, shown: Fraction, side: str, exact: bool, *, has_decimals: bool = False
) -> bool:
    if _PERCENT.fullmatch(side):
        number = side.strip().removesuffix("%")
        return any(_agree(given, 100 * shown, number, exact) for given in (value, 100 * value))
    if value == shown:
        return True
    rounded = has_decimals and abs(shown) >= LARGE and _WHOLE.fullmatch(side)
    if not exact and rounded and abs(value - shown) <= Fraction(1, 2):
        return True
    return not exact and _is_shown(value, shown, side)


def _is_shown(value: Fraction, shown: Fraction, side: str) -> bool:
    """Whether a decimal is the value rounded or truncated to its places, or as a float has it."""
    if not _SHOWN.fullmatch(side):
        return False
    off = abs(value - shown)
    places = Fraction(1, 10 ** len(side.strip().partition(".")[2]))
    truncated = off < places and abs(shown) < abs(value)
    return off <= max(places / 2, abs(value) * FLOAT) or truncated


def value_of(expression: str) -> Fraction | None:
    """The exact value of a sum of decimal numbers with `+ - * / ( ) %`.

    Returns:
        None for anything else, a division by zero, or what is longer than 300 characters.

    Example:
        >>> value_of("(1.5 + 2) * 4"), value_of("5% * 40"), value_of("1/0"), value_of("9e9")
        (Fraction(14, 1), Fraction(2, 1), None, None)
    """
    if len(expression) > LONGEST:
        return None
    plain = re.sub(r"(\d[\d.]*)%", r"(\1/100)", expression.strip()).replace(")%", ")/100")
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)
    if not _SUM.fullmatch(plain):
        return None
    try:
        return _value(ast.parse(plain, mode="eval").body, plain)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, source: str) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(ast.get_source_segment(source, node) or "")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, source)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, source), _value(node.right, source))
    raise ValueError(ast.dump(node))
