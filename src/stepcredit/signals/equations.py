"""Equations in running text, checked exactly: found, read by a small grammar, never executed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

LONGEST = 300
FLOAT = Fraction(1, 10**14)
"""How far a calculator that counts in floats may be off, as a share of the value."""
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SPELLINGS = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])|[×·∙]"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|÷"), "/"),
    (re.compile("[−–]"), "-"),
    (re.compile(r"\\?[$£€]|\\[,;! ]|\\left|\\right"), ""),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<=[\d)])\s*\\?%(?:\s+of\s+(?=[\d(]))"), "/100*"),
    (re.compile(r"(?<=[\d)])\s*\\?%"), "/100"),
)
_CALCULATOR = re.compile(r"<<([^<>]*)>>")
_RUN = re.compile(r"[-+*/()=.\d \t]+")
_SENTENCE = re.compile(r"\.(?!\d)")
_SHOWN = re.compile(r"\s*[-+]?\s*\d*\.\d+\s*")


def annotated_equations(text: str) -> list[str]:
    """The calculator's annotations of GSM8K's solutions.

    Example:
        >>> annotated_equations("He has 48/2 = <<48/2=24>>24 left.")
        ['48/2=24']
    """
    return _CALCULATOR.findall(text)


def written_equations(text: str) -> list[str]:
    """Sums written out in running text, LaTeX's signs among it, without GSM8K's annotations.

    Returns:
        Equations of at least one operation; an equation with a letter in it is none.

    Example:
        >>> written_equations("So 3 × 4 = 12 apples, and $5 + 1 = 7. But x = 3.")
        ['3 * 4 = 12', '5 + 1 = 7']
    """
    plain = spelled_plainly(_CALCULATOR.sub("", text))
    found = []
    for run in _RUN.finditer(plain):
        before, after = plain[: run.start()][-1:], plain[run.end() :][:1]
        parts = _SENTENCE.split(run[0])
        for index, part in enumerate(parts):
            is_first, is_last = index == 0, index == len(parts) - 1
            sides = _sides(part, before if is_first else "", after if is_last else "")
            if len(sides) > 1 and any(re.search(r"[\d)]\s*[-+*/]", side) for side in sides):
                found.append(" = ".join(sides))
    return found


def _sides(part: str, before: str, after: str) -> list[str]:
    """Sides of an equation in a run of its signs, those left out that go on as something else."""
    sides = part.split("=")
    if before and re.match(r"\s*[+*/)]|\s*-\s|[\d.(]", sides[0]):
        sides = sides[1:]
    if sides and after and re.match(r"[\w^\\\[{!]", after) and sides[-1][-1:] not in " \t":
        sides = sides[:-1]
    sides = [side.strip(" \t") for side in sides]
    if sides:
        sides[-1] = re.sub(r"[-+*/(\s]+$", "", sides[-1])
        sides[0] = sides[0].removeprefix("(" * (sides[0].count("(") > sides[0].count(")")))
        sides[-1] = sides[-1].removesuffix(")" * (sides[-1].count(")") > sides[-1].count("(")))
    return [side for side in sides if side]


def spelled_plainly(text: str) -> str:
    r"""Signs, currency, thousands' commas and percent as a plain sum has them.

    Example:
        >>> spelled_plainly(r"$1,200 \times 5% = \frac{120}{2}")
        '1200 * 5/100 = ((120)/(2))'
    """
    for spelling, plain in _SPELLINGS:
        text = spelling.sub(plain, text)
    return text


def holds(equation: str, *, exact: bool = False) -> bool | None:
    """Whether all sides of an equation are equal.

    Args:
        equation: sides joined by `=`.
        exact: whether a decimal must be the value itself; else it may be the value rounded or
            truncated to the places shown, as `10/3 = 3.33` and `2/3 = 0.66` are.

    Returns:
        None where a side is no sum of numbers, or there is but one side.

    Example:
        >>> holds("10/3=3.33"), holds("10/3=3.33", exact=True), holds("2+2=5"), holds("x=1")
        (True, False, False, None)
    """
    sides = spelled_plainly(equation).split("=")
    values = [value_of(side) for side in sides]
    if len(sides) < 2 or any(value is None for value in values):
        return None
    return all(
        left == right or (not exact and _is_shown(left, right, side))
        for (left, right), side in zip(pairwise(values), sides[1:], strict=True)
    )


def _is_shown(value: Fraction | None, shown: Fraction | None, side: str) -> bool:
    """Whether a decimal is the value rounded or truncated to its places, or as a float has it."""
    if value is None or shown is None or not _SHOWN.fullmatch(side):
        return False
    places = len(side.strip().partition(".")[2])
    return abs(value - shown) < max(Fraction(1, 10**places), abs(value) * FLOAT)


def value_of(expression: str) -> Fraction | None:
    """The exact value of a sum of decimal numbers with `+ - * / ( )`.

    Returns:
        None for anything else, a division by zero, or what is longer than 300 characters.

    Example:
        >>> value_of("(1.5 + 2) * 4"), value_of("1/0"), value_of("__import__('os')")
        (Fraction(14, 1), None, None)
    """
    if len(expression) > LONGEST:
        return None
    try:
        plain = re.sub(r"(?<![\d.])0+(?=\d)", "", expression.strip())
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
