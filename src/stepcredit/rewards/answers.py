"""Answers as text: spelled one way, told apart as words, choice letters or maths, and capped."""

from __future__ import annotations

import re

LONGEST = 1_000
"""Characters of an answer that is still read as maths."""
LARGEST_EXPONENT = 10_000
"""A power of numbers with a larger exponent is not computed."""

_SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u00f7": r"\div ",
    "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ",
    "\u2260": r"\ne ", "\u00b0": r"^\circ ", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u00b1": r"\pm ", "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ",
    "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}",
    "\u221a": r"\sqrt ",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ",
}  # fmt: skip
_SIGN = re.compile("|".join(_SIGNS))
_RAISED = {
    raised: plain
    for plain, raised in enumerate("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
}
_SUPERSCRIPT = re.compile(f"[{''.join(_RAISED)}]+")
_WRAPPER = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|hbox|boxed|fbox|emph|bm)\s*\{"
_WRAPPED = re.compile(_WRAPPER + r"([^{}]*)\}")
_OPENING = re.compile(_WRAPPER + r"|\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_NO_MEANING = re.compile(
    r"\\(?:[!,;:]|(?:displaystyle|textstyle|left|right|[bB]igg?[lr])(?![a-zA-Z]))"
)
_DOLLAR = re.compile(r"\\?\$|(?<!\\)\\[()\[\]]")
_BARE_EXPONENT = re.compile(r"(?:\^|\*\*)\s*(-?\d{2,})")
_SHORT_WORDS = frozenset({"yes", "no", "odd"})
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\-][^\W\d_]+)*")
_MATHS_WORDS = re.compile(r"(?:sqrt|frac|infinity|infty|arc|sinh|cosh|tanh|cos|sin|tan|log)", re.I)
_LETTER = re.compile(r"\(?([A-J])\)?\.?")
_OPTION = re.compile(r"(?:\(([A-J])\)|([A-J])[.:)](?=\s|$)|([A-J])$)")
_EXPONENT = re.compile(r"(?:\^|\*\*)[\s{(]*[-+]?(\d+)(?:[\s})]*(?:\^|\*\*)[\s{(]*[-+]?(\d+))?")
_TOWER = re.compile(r"(?:(?:\^|\*\*)[\s{(]*[-+]?[\d.]+[\s]*){3}")
_FACTORIAL = re.compile(r"\d{5,}\s*[})\]]*\s*!|!\s*[})\]]*\s*!\s*[})\]]*\s*!")


def spelled(answer: str) -> str:
    r"""The answer without what has no meaning: dollar signs, a full stop, `\left`, thin spaces.

    Mathematical signs of Unicode become LaTeX; digits of other scripts do not become digits.

    Example:
        >>> spelled(r"$\left( 3,\, 2\pi \right)$."), spelled("2\u03c0")
        ('( 3, 2\\pi )', '2\\pi')
    """
    if len(answer) > 4 * LONGEST:
        return answer.strip()
    answer = _SIGN.sub(lambda sign: _SIGNS[sign.group()], answer)
    answer = _SUPERSCRIPT.sub(lambda raised: f"^{{{_lowered(raised.group())}}}", answer)
    answer = _NO_MEANING.sub("", _DOLLAR.sub(" ", answer))
    answer = _BARE_EXPONENT.sub(r"^{\1}", answer).replace("**", "^")
    answer = " ".join(answer.split()).rstrip(".").strip()
    return unwrapped(answer)


def _lowered(raised: str) -> str:
    return "".join(str(_RAISED[digit]) for digit in raised)


def unwrapped(answer: str) -> str:
    r"""The answer out of the `\text{...}`, `\mathbf{...}`, box or braces it is all wrapped in.

    Example:
        >>> unwrapped(r"\textbf{(C)}"), unwrapped(r"{\text{even}}"), unwrapped(r"5\text{ cm}")
        ('(C)', 'even', '5\\text{ cm}')
    """
    while (opening := _OPENING.match(answer)) and _closes_last(answer, opening.end()):
        answer = answer[opening.end() : -1].strip()
    return answer


def _closes_last(answer: str, start: int) -> bool:
    """Is the brace that opens before `start` the one that the answer's last sign closes?"""
    depth = 1
    for brace in _BRACE.finditer(answer, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end() == len(answer)
    return False


def words_of(answer: str) -> str | None:
    r"""A textual answer in lower case: `\text{...}`, a word of four letters, yes, no, odd.

    Args:
        answer: as it stands in the box.

    Returns:
        None for anything else: it is maths.

    Example:
        >>> words_of(r"\text{Evelyn}"), words_of("No."), words_of("abc"), words_of("x + 1")
        ('evelyn', 'no', None, None)
    """
    plain = spelled(answer)
    if not _WORDS.fullmatch(plain) or _MATHS_WORDS.match(plain):
        return None
    wrapped = plain != answer.strip() and r"\text" in answer
    told = wrapped or plain.lower() in _SHORT_WORDS or any(len(w) > 3 for w in plain.split())
    return " ".join(plain.lower().split()) if told else None


def letter_of(answer: str) -> str | None:
    r"""The letter of a gold answer that is a choice: `C`, `(C)`, `\textbf{(C)}`.

    Example:
        >>> letter_of(r"\textbf{(C)}"), letter_of("x"), letter_of("C + 1")
        ('C', None, None)
    """
    match = _LETTER.fullmatch(spelled(answer))
    return match.group(1) if match else None


def option_of(answer: str) -> str | None:
    r"""The one choice an answer names, alone or in front of its text; None for none or several.

    Example:
        >>> option_of(r"\textbf{(C) } 42"), option_of("C. 42"), option_of("(A) and (B)")
        ('C', 'C', None)
    """
    plain = answer
    while (inner := _WRAPPED.sub(r"\1", plain)) != plain:
        plain = inner
    plain = spelled(plain)
    named = {a or b or c for a, b, c in _OPTION.findall(plain)}
    return named.pop() if len(named) == 1 and _OPTION.match(plain) else None


def too_large(answer: str) -> str | None:
    r"""Why an answer is not read as maths: too long, or a number nobody should compute.

    Example:
        >>> too_large("10^{10^{10}}"), too_large("2^{1009}"), too_large("9" * 2000)
        ('a power above 10,000', None, 'longer than 1,000 characters')
    """
    if len(answer) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    if _TOWER.search(answer) or any(_power(*found) for found in _EXPONENT.findall(answer)):
        return f"a power above {LARGEST_EXPONENT:,}"
    return "a factorial nobody should compute" if _FACTORIAL.search(answer) else None


def _power(first: str, second: str) -> bool:
    if len(first) > 5 or len(second) > 5:
        return True
    base, exponent = int(first), int(second or 1)
    return base > 1 and (exponent > 14 or base**exponent > LARGEST_EXPONENT)


def has_foreign_digits(answer: str) -> bool:
    """Does it hold digits of another script, which a parser may drop or misread?

    Example:
        >>> has_foreign_digits("1\uff15"), has_foreign_digits("15")
        (True, False)
    """
    return any(sign.isdigit() and not sign.isascii() for sign in answer)
