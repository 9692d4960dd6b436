"""Extracts the answer of a response: its last box, answer tag or `####` line."""

from __future__ import annotations

import re
from collections.abc import Callable

_PIECE = re.compile(
    r"\\{1,2}(?:boxed|fbox|framebox)(?![a-zA-Z])\s*(?:\[[^\[\]]{0,40}\]\s*)?(?P<open>\{)?"
    r"|\\.|[{}]",
    re.DOTALL,
)
_BARE = re.compile(r"[-+]?\d+(?:[.,/]\d+)*|\\[a-zA-Z]+(?:\{[^{}]*\})*|[^\W\d_]")


def last_box(text: str) -> str | None:
    r"""The content of the last balanced box: `\boxed{...}`, `\fbox{...}`, `\framebox{...}`.

    Of nested boxes, it is the outer one. A box that is never closed does not count, but the boxes
    inside it do. The content of `\boxed 5`, without braces, is the number, command or letter that
    follows. The time is linear in the length of any text.

    Args:
        text: a response.

    Returns:
        The text between the braces, or None if there is no box.

    Example:
        >>> last_box(r"First \boxed{1}, so \boxed{\frac{1}{2}}."), last_box(r"\boxed 12.")
        ('\\frac{1}{2}', '12')
        >>> last_box(r"\boxed{7} and \boxed{8"), last_box("seven")
        ('7', None)

    Differs: math-verify reads several boxes as one set.
    """
    found: str | None = None
    opened: list[int | None] = []
    for piece in _PIECE.finditer(text):
        token = piece.group()
        if piece.group("open"):
            opened.append(piece.end())
        elif token == "{":
            opened.append(None)
        elif token == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found = text[start : piece.start()]
        elif len(token) > 2 and (bare := _BARE.match(text, piece.end())):
            found = bare.group()
    return found


def last_tag(text: str, tag: str = "answer") -> str | None:
    """The content of the last closed `<answer>...</answer>`, without the space around it.

    Example:
        >>> last_tag("<answer> a </answer> no: <answer>b</answer> <answer>c")
        'b'
    """
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, max(end, 0))
    return None if start < 0 else text[start + len(tag) + 2 : end].strip()


def last_line(text: str) -> str | None:
    """The text after the last `####` on its line, the format of GSM8K's answers.

    Example:
        >>> last_line("48 + 24 = 72\\n#### 72\\n")
        '72'
    """
    start = text.rfind("####")
    return None if start < 0 else text[start + 4 :].partition("\n")[0].strip()


def answer_of(response: str, read: str) -> str | None:
    r"""The answer of a response, after its thinking.

    Args:
        response: the whole text.
        read: how the answer is marked, a name in `READERS`.

    Returns:
        The answer, or None if there is none.

    Example:
        >>> answer_of(r"<think>\boxed{4}?</think> It is \boxed{5}.", "boxed")
        '5'
    """
    return READERS[read](after_thinking(response))


def after_thinking(text: str) -> str:
    """The text after the last `</think>`; empty if a `<think>` is never closed.

    A text without either tag is returned whole. If the prompt opens the tag, the response must
    close it, or its thinking cannot be separated from its answer.

    Example:
        >>> after_thinking("<think>5?</think>6"), after_thinking("<think>5"), after_thinking("5")
        ('6', '', '5')
    """
    _, closed, rest = text.rpartition("</think>")
    return rest if closed else text.partition("<think>")[0] if "<think>" in text else text


READERS: dict[str, Callable[[str], str | None]] = {
    "boxed": last_box,
    "answer-tag": last_tag,
    "hash": last_line,
    "whole": str.strip,
}
"""Where an answer may stand in a response: in the last box, in the last answer tag, behind the last
`####`; or the response is the answer."""
