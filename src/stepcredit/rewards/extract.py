"""Extracts the answer of a response: its last boxes, answer line, answer tag or `####` line."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from stepcredit._moved import renamed
from stepcredit.rewards.boxes import boxed_answer, has_box
from stepcredit.rewards.thinking import after_thinking

_ANSWER_LINE = re.compile(
    r"(?<![a-zA-Z])answer(?:[ \t]+is)?[ \t*_]*:[\s*_]*(?P<answer>[^\n]*)", re.IGNORECASE
)
_MINERVA = re.compile(r"[Tt]he final answer is:?\s*(?P<answer>[^\n]*)")
_SPECIAL_TOKEN = re.compile(r"<\|[a-z_]{1,40}\|>|</s>")
_HOPE = "I hope it is correct"
_NUMBER = re.compile(r"(?<![0-9.,])-?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_WORD = re.compile(r"[a-zA-Z]{2}")


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


def answer_line(text: str) -> str | None:
    """The text of the last line `Answer: ...`; a box in it is the answer.

    Example:
        >>> answer_line("so\\nAnswer: 34\\n"), answer_line(r"**Final Answer:** $\\boxed{5}$")
        ('34', '5')
    """
    return _content(_last(_ANSWER_LINE, text))


def final_line(text: str) -> str | None:
    """The answer of Minerva's prompt: `The final answer is ... . I hope it is correct.`

    Example:
        >>> final_line("Final Answer: The final answer is $34$. I hope it is correct.")
        '$34$'
    """
    return _content(_last(_MINERVA, text))


def any_answer(text: str) -> str | None:
    r"""The last box; in a text without one, Minerva's final line, or else the line `Answer: ...`.

    Example:
        >>> any_answer(r"Answer: 5, so \boxed{6}"), any_answer("Answer: 5"), any_answer("It is 5.")
        ('6', '5', None)
    """
    if has_box(text):
        return boxed_answer(text)
    return final_line(text) or answer_line(text)


def any_or_number(text: str) -> str | None:
    r"""`any_answer`, or the text after the last `####`, or else the last number of the text.

    Of a line in words, the answer is its last number.

    Example:
        >>> any_or_number(r"2 boxes, so \boxed{6} in 2 days"), any_or_number("7 + 5 = 12\n#### 12.")
        ('6', '12.')
        >>> any_or_number("She makes $1,200 a day."), any_or_number("None.")
        ('1,200', None)
    """
    if has_box(text):
        return boxed_answer(text)
    marked = any_answer(text) or last_line(text)
    if marked and not _WORD.search(marked):
        return marked
    numbers = _NUMBER.findall(marked or text)
    return numbers[-1].replace("$", "").rstrip(",") if numbers else marked


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = [match["answer"].strip() for match in pattern.finditer(text)]
    return found[-1] if found else None


def _content(found: str | None) -> str | None:
    """The box in a line, if there is one, or else what the line says that something is."""
    if not found:
        return None
    if has_box(found):
        return boxed_answer(found)
    plain = _SPECIAL_TOKEN.split(found, maxsplit=1)[0].partition(_HOPE)[0]
    return plain.rpartition(" is ")[2].strip(" *_").rstrip(".") or None


READERS: dict[str, Callable[[str], str | None]] = {
    "any": any_answer,
    "number": any_or_number,
    "boxed": boxed_answer,
    "answer-line": answer_line,
    "minerva": final_line,
    "answer-tag": last_tag,
    "hash": last_line,
    "whole": str.strip,
}
"""Where an answer may stand in a response: in its last boxes; in its last line `Answer: ...`; in
`The final answer is ...`; in the first of these three that it has (any); the same, behind the last
`####`, or else its last number (number); in the last answer tag; behind the last `####`; or the
response is the answer."""

__getattr__ = partial(renamed, __name__)
