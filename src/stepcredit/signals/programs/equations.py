"""Find equations in running text and check them exactly, by a small grammar, without `eval`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

READING = 1
"""Increased when equations are read differently, so that cached scores are not used."""
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
    (re.compile(r"\\\\"), "\n"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])|[×·∙]"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|÷"), "/"),
    (re.compile("[−–]"), "-"),
    (re.compile(r"\\[()\[\]]|\\(?=text|mathrm)"), " "),
    (re.compile(r"\\?[$£€]|\\[,;:! ]|\\left|\\right|&(?==)"), ""),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<=[\d)])[ \t]*\\?%"), "%"),
    (re.compile(r"(?<=%)\s+of\s+(?=[\d(])"), "*"),
    (re.compile(r"(?<=[\d)%])(?:[ \t]*[xX][ \t]*(?=\.?\d)|[ \t]+[xX][ \t]+(?=\())"), " * "),
    (re.compile(r"(?<![\d)])(?<![\d)] )\*\*"), ""),
)
_CALCULATOR = re.compile(r"<<([^<>]*)>>")
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\(?\d+\))[ \t]+(?=[\d(-])", re.MULTILINE)
_RUN = re.compile(r"[-+*/()=.%\d \t]+")
_SENTENCE = re.compile(r"\.(?!\d)")
_OPERATION = re.compile(r"[\d)%]\s*[-+*/]")
_OPEN_END = re.compile(r"(?:\^|(?<!\w)[b-zB-HJ-Z]|\b(?:times|mod)|\d\s+and)\Z")
_SUM = re.compile(r"[-+*/(). \t\d]*", re.ASCII)
_PERCENT = re.compile(r"\s*[-+]?\s*[\d.]+%\s*")
_SHOWN = re.compile(r"\s*[-+]?\s*\d*\.\d+\s*")


def annotated_equations(text: str) -> list[str]:
    """The calculator's annotations of GSM8K's solutions.

    Example:
        >>> annotated_equations("He has 48/2 = <<48/2=24>>24 left.")
        ['48/2=24']
    """
    return _CALCULATOR.findall(text)


def written_equations(text: str) -> list[str]:
    """Sums written out in running text, with LaTeX's signs, without GSM8K's annotations.

    Returns:
        Equations of at least one operation; an equation with a letter in it is none.

    Example:
        >>> written_equations("So 3 × 4 = 12 apples, and $5 + 1 = 7. But x = 3.")
        ['3 * 4 = 12', '5 + 1 = 7']
    """
    plain = _BULLET.sub("", spelled_plainly(_CALCULATOR.sub("", text)))
    found = []
    for run in _RUN.finditer(plain):
        if "=" not in run[0]:
            continue
        start, end = run.span()
        before, after = plain[max(0, start - 9) : start], plain[end : end + 12]
        parts = _SENTENCE.split(run[0].removesuffix("."))
        for index, part in enumerate(parts):
            is_first, is_last = index == 0, index == len(parts) - 1
            sides = _sides(part, before if is_first else "", after if is_last else "")
            if len(sides) > 1 and any(map(_OPERATION.search, sides)):
                found.append(" = ".join(sides))
    return found


def _sides(part: str, before: str, after: str) -> list[str]:
    """Sides of an equation, without a first or last side that is part of a longer expression."""
    sides = part.split("=")
    if _continues(before, sides[0]):
        sides = sides[1:]
    if sides and _is_continued(sides[-1], after):
        sides = sides[:-1]
    sides = [side.strip(" \t") for side in sides]
    if sides:
        sides[-1] = sides[-1].rstrip("-+*/( \t")
        sides[0] = sides[0].removeprefix("(" * (sides[0].count("(") > sides[0].count(")")))
        sides[-1] = sides[-1].removesuffix(")" * (sides[-1].count(")") > sides[-1].count("(")))
    return [side for side in sides if side]


def _continues(before: str, side: str) -> bool:
    """Whether a side ends an expression that is no plain sum: `x + 3`, `2^2 + 1`, `f(3)`."""
    glued = re.match(r"[-\d.(]", side) and re.search(r"[^\s:;|>\"'“‘]\Z", before)
    operated = re.match(r"\s*(?:[+*/)]|-\s)", side) and re.search(r"\S\Z", before)
    return bool(glued or operated or _OPEN_END.search(before))


def _is_continued(side: str, after: str) -> bool:
    """Whether the text after a side belongs to it: `7x`, `2^2`, `+ x`, `and 1/3`."""
    glued = side[-1:] not in " \t" and re.match(r"[\w\\\[{!]|,\d", after)
    operated = after and re.search(r"(?<!\*)[-+*/]\s*\Z", side)
    return bool(glued or operated or re.match(r"\^|[xyz]\b|and \(?\d+/\d", after))


def spelled_plainly(text: str) -> str:
    r"""The text with signs, currency, thousands' commas and percent rewritten as in a plain sum.

    Example:
        >>> spelled_plainly(r"$1,200 \times 5% = \frac{120}{2}")
        '1200 * 5% = ((120)/(2))'
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
        None where a side is no sum of numbers, or there is only one side. A percentage is also the
        number before its sign, as in `100 - 20 = 80%`.

    Example:
        >>> holds("10/3=3.33"), holds("10/3=3.33", exact=True), holds("2+2=5"), holds("x=1")
        (True, False, False, None)
    """
    sides = spelled_plainly(equation).split("=")
    values = [value for side in sides if (value := value_of(side)) is not None]
    if len(sides) < 2 or len(values) < len(sides):
        return None
    steps = zip(pairwise(values), sides[1:], strict=True)
    return all(_agree(left, right, side, exact) for (left, right), side in steps)


def _agree(value: Fraction, shown: Fraction, side: str, exact: bool) -> bool:
    if _PERCENT.fullmatch(side):
        number = side.strip().removesuffix("%")
        return any(_agree(given, 100 * shown, number, exact) for given in (value, 100 * value))
    return value == shown or (not exact and _is_shown(value, shown, side))


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
