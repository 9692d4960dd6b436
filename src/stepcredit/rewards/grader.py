"""Maths in a worker process: math-verify on untrusted text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from stepcredit.rewards.letters import BAD_GOLD, RIGHT, WRONG

_UNITS = {"cm", "mm", "km", "kg", "mg", "ml", "ft", "lb", "hr", "hrs", "min", "sec", "mph", "deg"}
_TAIL = re.compile(r"(?:\d|\}|\s)\s*([a-zA-Z]+)\s*$")


def ready() -> None:
    """Import what grading needs, and run it once: the first run builds the parser."""
    verdict("1", "2")


def verdict(answer: str, gold: str) -> str:
    """Whether an answer equals the gold answer; `BAD_GOLD` where that one can't be read.

    Example:
        >>> verdict("0.5", r"\\frac{1}{2}"), verdict("2", "3"), verdict("2", "t(0,4]")
        ('R', 'W', 'G')
    """
    from math_verify import verify

    expected = _gold(gold)
    if not expected:
        return BAD_GOLD
    found = parsed(answer)
    return RIGHT if found and verify(expected, found, timeout_seconds=None) else WRONG


def parsed(answer: str) -> list[Any]:
    """What math-verify reads in an answer: nothing, or one expression."""
    from math_verify import parse

    config = _config(_ends_in_unit(answer))
    expressions: list[Any] = parse(
        rf"\boxed{{{answer}}}", config, fallback_mode="no_fallback", parsing_timeout=None
    )
    return expressions


@lru_cache(maxsize=1024)
def _gold(gold: str) -> list[Any]:
    return parsed(gold)


@lru_cache(maxsize=2)
def _config(units: bool) -> list[Any]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    rules = NormalizationConfig(
        basic_latex=True, units=units, malformed_operators=True, nits=True, boxed="last"
    )
    return [LatexExtractionConfig(boxed_match_priority=0, normalization_config=rules)]


def _ends_in_unit(answer: str) -> bool:
    """Does it end in a unit? A bare letter or two, as in `2m` or `3ab`, are variables."""
    tail = _TAIL.search(answer)
    return not tail or len(tail.group(1)) > 3 or tail.group(1) in _UNITS
