"""Finds the boxes of a response, and joins those that are one answer."""

from __future__ import annotations

import re
from typing import NamedTuple

_PIECE = re.compile(
    r"\\{1,2}(?P<box>boxed|fbox|framebox)(?![a-zA-Z])\s*(?:\[[^\[\]]{0,40}\]\s*)?(?P<open>\{)?"
    r"|\\.|[{}]",
    re.DOTALL,
)
_BARE = re.compile(r"[-+]?\d+(?:[.,/]\d+)*|\\[a-zA-Z]+(?:\{[^{}]*\})*|[^\W\d_]")
_SETTING = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{|\\(?:quad|qquad|left|right)|[$\s{}~*_]")
_JOINT = re.compile(r"[,;]|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])|\u548c|\u6216|\u3001|\uff0c")
_SENTENCE_END = re.compile(r"[.!?\u3002](?=\s|$|\\)|\n\s*\n|(?<![,;])\n")
_NEW_RESULT = re.compile(
    r"(?<![a-zA-Z])(?:then|so|thus|hence|therefore|but|not?|wait|actually|answer|finally|final"
    r"|gives?|giving|gets?|which|instead|correct|rather|because|since|total|sum|product|result"
    r"|check|means|yields?|conclude|altogether)(?![a-zA-Z])"
    r"|[+*/]|\\(?:frac|cdot|times|sqrt|to|Right|right|implies)",
    re.IGNORECASE,
)
_MOST_BETWEEN = 80


class _Box(NamedTuple):
    start: int
    end: int
    content: str


def last_box(text: str) -> str | None:
    r"""The content of the last balanced box: `\boxed{...}`, `\fbox{...}`, `\framebox{...}`.

    Of nested boxes, it is the outer one. A box that is never closed does not count, but the boxes
    inside it do. The content of `\boxed 5`, without braces, is the number, command or letter that
    follows. The time is linear in the length of any text.

    Args:
        text: a response.

    Returns:
        The text between the braces. None if there is no box, or the text ends in a box that begins
        after the last balanced one.

    Example:
        >>> last_box(r"First \boxed{1}, so \boxed{\frac{1}{2}}."), last_box(r"\boxed 12.")
        ('\\frac{1}{2}', '12')
        >>> last_box(r"\boxed{7} and \boxed{8"), last_box("seven")
        (None, None)
    """
    boxes, is_cut = _boxes(text)
    return boxes[-1].content if boxes and not is_cut else None


def boxed_answer(text: str) -> str | None:
    r"""The content of the last box, with those of the boxes before it that belong to it.

    Boxes of one line or sentence that commas, "and" or "or" join are one answer, in which equal
    boxes count once. A box before it is an intermediate result.

    Example:
        >>> boxed_answer(r"$n=\boxed{1}$ and $n=\boxed{-2}$")
        '1, -2'
        >>> boxed_answer(r"\boxed{3}, so \boxed{4}")
        '4'

    Differs: math-verify joins any boxes that less than ten characters part.
    """
    boxes, is_cut = _boxes(text)
    if not boxes or is_cut:
        return None
    answer = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _are_joined(text[box.end : answer[-1].start]):
            break
        answer.append(box)
    contents = dict.fromkeys(box.content.strip() for box in reversed(answer))
    return ", ".join(contents) if len(contents) > 1 else boxes[-1].content


def has_box(text: str) -> bool:
    r"""Whether a text has a box, even one that is never closed.

    Example:
        >>> has_box(r"\boxed{5"), has_box("boxed")
        (True, False)
    """
    return any(piece["box"] for piece in _PIECE.finditer(text))


def _boxes(text: str) -> tuple[list[_Box], bool]:
    """The outermost balanced boxes in order, and whether the text ends in an open, later one."""
    found: list[_Box] = []
    opened: list[tuple[int, int] | None] = []
    for piece in _PIECE.finditer(text):
        token = piece.group()
        if piece["open"]:
            opened.append((piece.start(), piece.end()))
        elif token == "{":
            opened.append(None)
        elif token == "}":
            start = opened.pop() if opened else None
            if start is not None:
                _keep(found, _Box(start[0], piece.end(), text[start[1] : piece.start()]))
        elif piece["box"] and piece.end() == len(text):
            opened.append((piece.start(), piece.end()))
        elif piece["box"] and (bare := _BARE.match(text, piece.end())):
            _keep(found, _Box(piece.start(), bare.end(), bare.group()))
    last = max((place[0] for place in opened if place is not None), default=-1)
    return found, last > (found[-1].start if found else -1)


def _keep(found: list[_Box], box: _Box) -> None:
    """Add a box in place of those inside it."""
    while found and found[-1].start > box.start:
        found.pop()
    found.append(box)


def _are_joined(between: str) -> bool:
    """Whether the text between two boxes makes them one answer."""
    if len(between) > _MOST_BETWEEN:
        return False
    words = " ".join(_SETTING.sub(" ", between).split())
    ends = _SENTENCE_END.search(between.strip(" $"))
    parts = [part for part in _JOINT.split(words) if part.strip()]
    return bool(_JOINT.search(words)) and not (ends and parts) and not _NEW_RESULT.search(words)
