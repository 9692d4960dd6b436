"""The kind of an answer: words, a choice letter, a numeral with a base, or too large."""

from __future__ import annotations

import re

from stepcredit.rewards.normalize import LONGEST, WRAPPED, normalize_answer

LARGEST_EXPONENT = 10_000
"""A power of numbers with a larger exponent is not computed."""

_SHORT_WORDS = frozenset({"yes", "no", "odd"})
_WORDS = re.compile(r"[^\W\d_]+(?:[ '\-][^\W\d_]+)*")
_MATHS_WORDS = re.compile(
    r"(?:sqrt|frac|infinity|infty|a?(?:sin|cos|tan)|log)(?![a-z])", re.IGNORECASE
)
_NOTHING = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:the )?empty ?set|none"
    r"|(?:there (?:is|are) )?no (?P<kind>real |integer |positive |natural |rational |complex )*"
    r"(?:such )?(?:solutions?|roots?|answers?|(?:numbers?|integers?|values?)(?: exists?)?)"
)
_LETTER = re.compile(r"\(?([A-J])\)?\.?")
_LETTERS = re.compile(r"\(?[A-J]\)?(?:\s*(?:,|;|and|&)?\s*(?:and\s*)?\(?[A-J]\)?)+")
_OPTION = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*:?\s*)?"
    r"(?:\(([A-J])\)|([A-J])(?:[.:)](?=\s|$)|\s-\s)|([A-J])$)"
)
_NO_OPTION_TEXT = re.compile(
    r"-[0-9]|\s*(?:[,;+*/^=<>_]|-\s+[0-9]|\\(?:ldots|times|cdot|pm)|(?:or|and|not|is)(?![a-zA-Z]))"
)
"""How no text of a choice begins: the letter before it is part of a calculation or a list."""
_NUMERAL = re.compile(r"[0-9A-Z]+\s*_\s*\{?\s*([0-9]+)\s*\}?")
_POWER = r"(?:\^|\*\*)[\s{(]*[-+]?"
_EXPONENT = re.compile(rf"{_POWER}(\d+)(?:[\s}})]*{_POWER}(\d+))?")
_TOWER = re.compile(rf"(?:{_POWER}[\d.]+\s*){{3}}")
_FACTORIAL = re.compile(r"\d{5,}\s*[})\]]*\s*!|!\s*[})\]]*\s*!\s*[})\]]*\s*!")


def answer_words(answer: str) -> str | None:
    r"""An answer in words, in lower case: `\text{...}`, a word of four letters, yes, no, odd.

    Args:
        answer: the content of the box.

    Returns:
        The answer in lower case; None for any other answer, which is then graded as maths.

    Example:
        >>> [answer_words(text) for text in (r"\text{Evelyn}", "No.", "abc", "x + 1")]
        ['evelyn', 'no', None, None]
    """
    plain = normalize_answer(answer)
    if not _WORDS.fullmatch(plain) or _MATHS_WORDS.match(plain):
        return None
    wrapped = plain != answer.strip() and r"\text" in answer
    is_words = wrapped or plain.lower() in _SHORT_WORDS or any(len(w) > 3 for w in plain.split())
    return " ".join(plain.lower().split()) if is_words else None


def answer_letter(answer: str) -> str | None:
    r"""The letter of a gold answer that is a choice: `C`, `(C)`, `\textbf{(C)}`.

    Example:
        >>> answer_letter(r"\textbf{(C)}"), answer_letter("x"), answer_letter("C + 1")
        ('C', None, None)
    """
    match = _LETTER.fullmatch(normalize_answer(answer))
    return match.group(1) if match else None


def answer_option(answer: str) -> str | None:
    r"""The only choice letter in an answer, alone or before its text; None for none or several.

    Example:
        >>> answer_option(r"\textbf{(C) } 42"), answer_option("C. 42"), answer_option("(A) and (B)")
        ('C', 'C', None)
    """
    if len(answer) > LONGEST:
        return None
    plain = _without_wrappers(answer)
    named = {a or b or c for a, b, c in _OPTION.findall(plain)}
    first = _OPTION.match(plain)
    is_option = first is not None and not _NO_OPTION_TEXT.match(plain, first.end())
    return named.pop() if len(named) == 1 and is_option else None


def answer_letters(answer: str) -> str | None:
    r"""The letters of an answer that is several choices, in order; None for any other answer.

    Example:
        >>> answer_letters("A, B, D"), answer_letters(r"\text{D and A}"), answer_letters("A")
        ('ABD', 'AD', None)
    """
    plain = _without_wrappers(answer)
    letters = sorted(set(re.findall(r"[A-J]", plain))) if _LETTERS.fullmatch(plain) else []
    return "".join(letters) if len(letters) > 1 else None


def is_nothing(answer: str) -> str | None:
    r"""What an answer says that nothing is: "" for the empty set, `real ` for no real solution.

    Returns:
        The kind of number that the text names; None if the answer is something else.

    Example:
        >>> is_nothing(r"\text{No real solutions}"), is_nothing(r"\emptyset"), is_nothing("0")
        ('real ', '', None)
    """
    found = _NOTHING.fullmatch(" ".join(_without_wrappers(answer).lower().split()))
    return None if found is None else found["kind"] or ""


def _without_wrappers(answer: str) -> str:
    plain = answer[: LONGEST + 1]
    while (inner := WRAPPED.sub(r"\1", plain)) != plain:
        plain = inner
    return normalize_answer(plain)


def answer_base(answer: str) -> str | None:
    """The base of a numeral with a stated base, else None.

    Example:
        >>> answer_base("52_{8}"), answer_base("52")
        ('8', None)
    """
    match = _NUMERAL.fullmatch(answer)
    return match.group(1) if match else None


def too_large(answer: str) -> str | None:
    r"""The reason why an answer is too large to compute: too long, or too large a power; or None.

    Example:
        >>> too_large("10^{10^{10}}"), too_large("2^{1009}"), too_large("9" * 2000)
        ('a power above 10,000', None, 'longer than 1,000 characters')
    """
    if len(answer) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    if _TOWER.search(answer) or any(_is_large(*found) for found in _EXPONENT.findall(answer)):
        return f"a power above {LARGEST_EXPONENT:,}"
    return "too large a factorial" if _FACTORIAL.search(answer) else None


def _is_large(first: str, second: str) -> bool:
    """Whether the exponent `first`, or `first` to the power of `second`, is above the limit."""
    if len(first) > 5 or len(second) > 5:
        return True
    base, exponent = int(first), int(second or 1)
    return base > 1 and (exponent > 14 or base**exponent > LARGEST_EXPONENT)


def has_foreign_digits(answer: str) -> bool:
    """Whether the answer has digits of another script, which a parser may drop or misread.

    Example:
        >>> has_foreign_digits("1\uff15"), has_foreign_digits("15")
        (True, False)
    """
    return any(sign.isdigit() and not sign.isascii() for sign in answer)
