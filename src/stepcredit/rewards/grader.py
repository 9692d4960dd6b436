"""The maths grader of a worker process: math-verify on untrusted text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from stepcredit.rewards.serving import BAD_GOLD, RIGHT, WRONG, Grader


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
        from math_verify import verify

        expected = _gold(gold)
        if not expected:
            return BAD_GOLD
        found = parsed(answer)
        if not found or _misuses_infinity(found, expected):
            return WRONG
        same = verify(expected, found, allow_set_relation_comp=True, timeout_seconds=None)
        return RIGHT if same else WRONG


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
    """The result of math-verify's parser for an answer: an empty list, or one expression."""
    from math_verify import parse

    expressions: list[Any] = parse(
        rf"\boxed{{{answer}}}", _config(), fallback_mode="no_fallback", parsing_timeout=None
    )
    return expressions


@lru_cache(maxsize=1024)
def _gold(gold: str) -> list[Any]:
    return parsed(gold)


@cache
def _config() -> list[Any]:
    """math-verify's settings: one box, LaTeX only, and no units, which are removed before."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    rules = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last"
    )
    return [LatexExtractionConfig(boxed_match_priority=0, normalization_config=rules)]
