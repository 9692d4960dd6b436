"""Find the sums that are written out in running text."""

from __future__ import annotations

import re

from stepcredit.signals.programs.assertions import is_stated
from stepcredit.signals.programs.equations import value_of
from stepcredit.signals.programs.plain_spelling import spelled_plainly
from stepcredit.signals.programs.remainders import with_remainder
from stepcredit.signals.programs.sum_edges import (
    OPERATION,
    Reading,
    in_hundredths,
    is_rounded,
    left_edge,
    right_edge,
)

NEIGHBOURS = 60
"""Characters beside a sum that are looked at."""
BEYOND = 200
"""Characters of the next step that are looked at."""
_ANNOTATED = re.compile(r"<<[^<>]*>>")
_BULLET = re.compile(r"^[ \t]*(?:#{1,6}|>|[-*•]|\(?\d+\))[ \t]+(?=[\d(-])", re.MULTILINE)
_RUN = re.compile(r"[-+*/()=.%\d \t]+")
_FULL_STOP = re.compile(r"\.(?!\d)")
_CLOCK = re.compile(r"(?<![\d.])0\d{3}(?![\d.])")
"""Times as `0930`, which no sum counts."""


def written_equations(text: str, following: str = "") -> list[str]:
    """Sums written out in running text, with LaTeX's signs, without GSM8K's annotations.

    Args:
        text: a step.
        following: what comes after it, which may refute it.

    Returns:
        Equations of at least one operation. What the text doubts, refutes or supposes is none, nor
        is a side that is a part of something else, as `2` in `x = 3 - 1 = 2 y`. A division with a
        remainder ends in `R` and the remainder, as `27 / 6 = 4 R 3`.

    Example:
        >>> written_equations("So 3 × 4 = 12 apples, and $5 + 1 = 7. But x = 3.")
        ['3 * 4 = 12', '5 + 1 = 7']
        >>> written_equations("27 ÷ 6 = 4 with a remainder of 3. Is 3 + 4 = 8?")
        ['27 / 6 = 4 R 3']
    """
    plain = _BULLET.sub("", spelled_plainly(_ANNOTATED.sub("", text)))
    whole = plain + "\n" + spelled_plainly(following[:BEYOND]) if following else plain
    found = []
    for run in _RUN.finditer(plain):
        if "=" in run[0] and not _CLOCK.search(run[0]) and is_stated(whole, *run.span()):
            found += _equations(run, whole)
    return found


def _equations(run: re.Match[str], text: str) -> list[str]:
    """The equations in a run of their signs, sentence by sentence."""
    before = text[max(0, run.start() - NEIGHBOURS) : run.start()]
    after = text[run.end() : run.end() + NEIGHBOURS]
    parts = _FULL_STOP.split(run[0].removesuffix("."))
    if run[0].endswith("."):
        after = "." + after
    found = []
    for index, part in enumerate(parts):
        if "=" not in part:
            continue
        beside = before if index == 0 else parts[index - 1] + "."
        sides = _sides(part, beside, after if index == len(parts) - 1 else "")
        if len(sides) > 1 and any(map(OPERATION.search, sides)):
            found.append(" = ".join(sides))
    return found


def _sides(part: str, before: str, after: str) -> list[str]:
    """The sides of an equation that can be read as sums."""
    first, *rest = part.split("=")
    if not rest:
        return []
    reading = left_edge(before, first)
    if reading is Reading.UNCLEAR:
        return []
    sides = ([_unopened(first)] if reading is Reading.WHOLE else []) + rest[:-1]
    sides = [side.strip(" \t") for side in sides if value_of(side) is not None]
    return sides + _last(sides, rest[-1], after)


def _last(sides: list[str], last: str, after: str) -> list[str]:
    """The last side, if it is whole; with the remainder that the text states."""
    plain = _unclosed(last.rstrip("-+*/( \t").strip(" \t"))
    if not plain:
        return []
    if sides and (stated := with_remainder(sides[-1], plain, after)):
        return [stated]
    if value_of(plain) is None or is_rounded(plain, after) or not right_edge(last, after):
        return []
    return [plain + "%" if in_hundredths(after) else plain]


def _unopened(side: str) -> str:
    side = side.strip(" \t")
    return side.removeprefix("(" * (side.count("(") > side.count(")")))


def _unclosed(side: str) -> str:
    return side.removesuffix(")" * (side.count(")") > side.count("(")))
