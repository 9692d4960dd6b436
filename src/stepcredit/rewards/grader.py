"""Maths in a worker process: math-verify on untrusted text."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from stepcredit.rewards.letters import BAD_GOLD, RIGHT, WRONG

PROCESS_PER_ITEM = False
"""math-verify parses text and never evaluates it as code."""
TRIAL = (r"\frac{1}{2}", "0.5")


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
    return (
        RIGHT
        if found and verify(expected, found, allow_set_relation_comp=True, timeout_seconds=None)
        else WRONG
    )


def decided(answer: str, gold: str) -> None:
    """Nothing is decided before math-verify has read both."""


def parsed(answer: str) -> list[Any]:
    """What math-verify reads in an answer: nothing, or one expression."""
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
    """One box, LaTeX alone, and no units: those are cut off before."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    rules = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last"
    )
    return [LatexExtractionConfig(boxed_match_priority=0, normalization_config=rules)]
