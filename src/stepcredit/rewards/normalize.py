"""Normalizes answers: signs, wrappers, numbers, units, and parts without meaning."""

from __future__ import annotations

import re

from stepcredit.rewards.commands import with_commands
from stepcredit.rewards.layout import without_layout
from stepcredit.rewards.numerals import read_numerals, without_thousands
from stepcredit.rewards.signs import latex_signs
from stepcredit.rewards.units import without_ordinal, without_unit

LONGEST = 1_000
"""Characters of an answer that is still read as maths."""

_WRAPPER = (
    r"\\(?:text|textbf|textit|textrm|textnormal|texttt|textsf|mathrm|mathbf|mathit|mathsf|mathtt"
    r"|boldsymbol|pmb|underline|mbox|hbox|boxed|fbox|emph|bm)\s*\{"
)
WRAPPED = re.compile(_WRAPPER + r"([^{}]*)\}")
_OPENING = re.compile(_WRAPPER + r"|\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LABEL = re.compile(
    r"\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is(?![a-z])|:|=)\s*:?"
    r"|\s*(?:\\(?:approx|simeq|sim|therefore)(?![a-zA-Z])|=|:)",
    re.IGNORECASE,
)
_MARKS = ("**", "__", "`", '"')
_LAST_BACKSLASH = re.compile(r"(?:(?<!\\)\\|\\\\)\s*$")


def normalize_answer(answer: str) -> str:
    r"""The answer without dollar signs, a full stop, `\left`, thin spaces and the unit at its end.

    Mathematical signs of Unicode become LaTeX; digits of other scripts do not become digits,
    except full-width ones. Numbers get one form: `4.5 \times 10^{33}` for 4.5e33, a fraction for a
    repeating decimal.

    Example:
        >>> answers = r"$\left( 3,\, 2\pi \right)$.", "2\u03c0", "3 hours", "**4.5e33**"
        >>> [normalize_answer(answer) for answer in answers]
        ['( 3, 2\\pi )', '2\\pi', '3', '4.5 \\times 10^{33}']
    """
    if len(answer) > 4 * LONGEST:
        return answer.strip()
    answer = without_layout(without_thousands(" ".join(latex_signs(answer).split())))
    answer = _without_label(_stripped(unwrapped(_stripped(answer))))
    answer = with_commands(read_numerals(without_ordinal(answer)))
    return without_unit(_stripped(unwrapped(_stripped(answer))))


def _stripped(answer: str) -> str:
    return _LAST_BACKSLASH.sub("", " ".join(answer.split()).rstrip(".")).rstrip(" .").strip()


def _without_label(answer: str) -> str:
    """The answer without `Answer:` or an equals sign before it, and Markdown's marks around it."""
    answer = _LABEL.sub("", answer, count=1) if _LABEL.match(answer) else answer
    answer = answer.strip()
    for mark in _MARKS:
        if len(answer) > 2 * len(mark) and answer.startswith(mark) and answer.endswith(mark):
            answer = answer[len(mark) : -len(mark)].strip()
    return answer


def unwrapped(answer: str) -> str:
    r"""The answer without a `\text{...}`, `\mathbf{...}`, box or braces around all of it.

    Example:
        >>> unwrapped(r"\textbf{(C)}"), unwrapped(r"{\text{even}}"), unwrapped(r"5\text{ cm}")
        ('(C)', 'even', '5\\text{ cm}')
    """
    while (opening := _OPENING.match(answer)) and _closes_last(answer, opening.end()):
        answer = answer[opening.end() : -1].strip()
    return answer


def _closes_last(answer: str, start: int) -> bool:
    """Whether the answer's last character closes the brace that opens just before `start`."""
    depth = 1
    for brace in _BRACE.finditer(answer, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end() == len(answer)
    return False
