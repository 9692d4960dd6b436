"""The maths grader of a worker process: math-verify on untrusted text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

from stepcredit.rewards.serving import BAD_GOLD, RIGHT, WRONG, Grader

_SYMBOL = re.compile(r"(?<![\\a-zA-Z])(?:([Ee])(?=\s*_)|(I)(?![a-zA-Z]))")
"""Letters that are symbols, but which the parser takes for constants."""


class MathsGrader(Grader):
    """Grades with math-verify, which parses text and never evaluates it as code.

    Example:
        >>> half = r"\\frac{1}{2}"
        >>> GRADER.verdict("0.5", half), GRADER.verdict("2", "3"), GRADER.verdict("2", "t(0,4]")
        ('R', 'W', 'G')
    """

    process_per_item = False
    trial = (r"\frac{1}{2}", "0.5")

    def prepare(self) -> None:
        """Grade once: the first call imports math-verify and builds its parser."""
        self.verdict("1", "2")

    def verdict(self, answer: str, gold: str, /) -> str:
        """Whether an answer equals the gold answer; `BAD_GOLD` if the latter cannot be read."""
        from stepcredit.rewards.comparing import same_value

        expected = _gold(gold)
        if not expected:
            return BAD_GOLD
        found = parsed(answer)
        if not found or _misuses_infinity(found, expected):
            return WRONG
        return RIGHT if same_value(expected[0], found[0]) else WRONG


GRADER = MathsGrader()


def _misuses_infinity(answer: list[Any], gold: list[Any]) -> bool:
    """Whether an answer computes with an infinity, or has one as a value and the gold has none.

    math-verify would call such an answer equal to nearly every number, because the difference of
    the two is an infinity, and its numeric value is not a number.
    """
    import sympy

    held, known = (
        [pair for part in parts for pair in _infinities(part, None)] for parts in (answer, gold)
    )
    if any(_is_computed_with(parent) for _, parent in known):
        return False  # the gold answer is misread: only the same misreading equals it
    if any(_is_computed_with(parent) for _, parent in held):
        return True
    return not known and any(not isinstance(parent, sympy.Interval) for _, parent in held)


def _infinities(part: Any, parent: Any) -> Iterator[tuple[Any, Any]]:
    """The infinities in an expression, each with its parent; the bounds of sums are left out."""
    import sympy

    if part in (sympy.oo, -sympy.oo, sympy.zoo, sympy.nan):
        yield part, parent
    bounded = isinstance(part, sympy.Sum | sympy.Product | sympy.Integral | sympy.Limit)
    inner = part.flat() if hasattr(part, "flat") else getattr(part, "args", ())
    for each in inner[:1] if bounded else inner:
        yield from _infinities(each, part)


def _is_computed_with(parent: Any) -> bool:
    """Whether an infinity with this parent is part of a calculation; a sign alone is not one."""
    import sympy

    sign = isinstance(parent, sympy.Mul) and len(parent.args) == 2 and -1 in parent.args
    kinds = sympy.Add | sympy.Mul | sympy.Pow | sympy.Function
    return isinstance(parent, kinds) and not sign


def parsed(answer: str) -> list[Any]:
    """The expression that a normalized answer is; empty if it is none.

    Capital and small letters are different variables. Of a chain of equations that can't be read as
    a whole, the last side is read.
    """
    from latex2sympy2_extended.math_normalization import normalize_latex
    from math_verify.parser import get_last_eq

    text = normalize_latex(_SYMBOL.sub(r"\\mathcal{\1\2}", answer), _rules())
    for part in dict.fromkeys([text, get_last_eq(text)]):
        with suppress(Exception):
            found = _expression(part)
            return [] if found is None else [found]
    return []


def _expression(text: str) -> Any:
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    return latex2sympy(
        text,
        is_real=True,
        normalization_config=None,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )


@lru_cache(maxsize=1024)
def _gold(gold: str) -> list[Any]:
    return parsed(gold)


@cache
def _rules() -> Any:
    """The normalization of math-verify, without units, which are removed before."""
    from latex2sympy2_extended import NormalizationConfig

    return NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
