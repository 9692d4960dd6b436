"""The maths grader of a worker process: math-verify on untrusted text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

from stepcredit.rewards.serving import BAD_GOLD, RIGHT, WRONG, Grader

_SYMBOL = re.compile(
    r"(?<![\\a-zA-Z])(?:[Ee](?=\s*_)|I(?![a-zA-Z]))"
    r"|\\gamma(?![a-zA-Z])|\\Gamma(?![a-zA-Z])(?!\s*\()"
)
"""Letters that are symbols, but which the parser takes for constants or functions."""
_PRIMED = re.compile(
    r"(?<![\\a-zA-Z])(?P<name>[a-zA-Z])(?:(?P<marks>'+)|\s*\^\s*(?:\\prime(?![a-zA-Z])"
    r"|\{\s*(?P<words>(?:\\prime\s*)+)\}))"
)
"""A letter with primes, which the parser leaves out."""


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
        if not expected or _computes_with_infinity(expected):
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

    known = [pair for part in gold for pair in _infinities(part, None)]
    held = [parent for part in answer for _, parent in _infinities(part, None)]
    return _computes_with_infinity(answer) or (
        not known and any(not isinstance(parent, sympy.Interval) for parent in held)
    )


def _computes_with_infinity(parts: list[Any]) -> bool:
    """Whether an infinity is part of a calculation, whose value is then none or misread."""
    return any(_is_computed_with(parent) for part in parts for _, parent in _infinities(part, None))


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

    named = _PRIMED.sub(_with_subscript, _SYMBOL.sub(r"\\mathcal{\g<0>}", answer))
    text = normalize_latex(named, _rules())
    for part in dict.fromkeys([text, get_last_eq(text)]):
        with suppress(Exception):
            found = _expression(part)
            return [] if found is None else [_with_rates(found)]
    return []


def _with_subscript(primed: re.Match[str]) -> str:
    """y' as a symbol with a subscript, another one for each number of primes."""
    count = len(primed["marks"] or "") or (primed["words"] or r"\prime").count(r"\prime")
    return f"{primed['name']}_{{{'prime' * count}}}"


def _with_rates(value: Any) -> Any:
    """The expression with a symbol for each derivative of unknown functions, such as dx/dt.

    sympy would take x for a constant, and its derivative for zero.
    """
    import sympy

    if not isinstance(value, sympy.Basic) or not value.has(sympy.Derivative):
        return value
    rates = {
        rate: sympy.Symbol(str(rate), real=True)
        for rate in value.atoms(sympy.Derivative)
        if not set(rate.variables) & rate.expr.free_symbols
    }
    return value.xreplace(rates)


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
