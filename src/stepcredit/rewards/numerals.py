"""Numbers as people write them: thousands, powers of ten, repeating decimals, mixed numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

_GROUPS = re.compile(
    r"(?<![\w.,])([1-9][0-9]{0,2})"
    r"((?:(?:,\s*\\!\s*|\{,\}|\\[,;: ]|[, ~])[0-9]{3})+)(?![0-9])"
)
_NOT_DIGIT = re.compile(r"[^0-9]+")
_BARE_COMMA = re.compile(r",[0-9]")
_CLOSE_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9])")
_DECIMAL_COMMA = re.compile(r"([-+]?[0-9]+),([0-9]+)")
_TEN = re.compile(r"(?<=[0-9.)}])\s*[xX]\s*(?=10\s*(?:\^|\*\*))")
_E_NOTATION = re.compile(
    r"(?<![\w.\\])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([-+]?[0-9]+)(?![\w.]|\s*_)"
)
_OVERLINED = re.compile(
    r"(?<![\w.])(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)\\(?:"
    r"(?:overline|bar|dot)\s*(?:\{\s*(?P<block>[0-9]+)\s*\}|(?P<digit>[0-9]))(?![0-9])"
    r"|dot\s*\{?\s*(?P<first>[0-9])\s*\}?(?P<inner>[0-9]*)\\dot\s*\{?\s*(?P<last>[0-9])\s*\}?)"
    r"(?![0-9\\])"
)
_BRACKETED = re.compile(r"([-+]?\s*)([0-9]+)\.([0-9]*)\(([0-9]+)\)()()")
_TRAILING = re.compile(r"(?<![\w.])([0-9]+)\.([0-9]{3,60})\s*\\ldots\s*")
_MIXED = re.compile(
    r"(?<![\w.^/}])(?<![0-9]\s)([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![\w/])(?!\.[0-9])"
)
_BARE_EXPONENT = re.compile(r"(?:\^|\*\*)\s*([-+]?[0-9]{2,}|[-+][0-9])(?![0-9.])")
_POINT = re.compile(r"(?<=[0-9])\.(?=\s*(?:[/*+)^-]|$))")
_PERCENT = re.compile(
    r"\\text\s*\{\s*(?:percent|percentage|pct)\s*\}|(?<=[0-9])\s*(?:percent|percentage|pct)$"
    r"|(?<=[0-9}])\s*(?<!\\)%"
)
_MOST_DIGITS = 60


def without_thousands(answer: str) -> str:
    r"""The answer without marks between groups of three digits: commas, thin and plain spaces.

    A comma directly inside a bracket parts two numbers.

    Example:
        >>> marked = r"11,\! 111,\! 100", "1 000", r"1\,000.5", "70{,}000", "(1,234)", "1, 234"
        >>> [without_thousands(number) for number in marked]
        ['11111100', '1000', '1000.5', '70000', '(1, 234)', '1, 234']
    """

    def joined(found: re.Match[str]) -> str:
        before = answer[: found.start()].rstrip(" -+")[-1:]
        marks = found[2]
        bracketed = before in {"(", "[", "{"} and _BARE_COMMA.search(marks)
        return found[0] if bracketed else _digits(found)

    return _CLOSE_COMMA.sub(", ", _GROUPS.sub(joined, answer))


def _digits(found: re.Match[str]) -> str:
    return found[1] + _NOT_DIGIT.sub("", found[2])


def decimal_comma(answer: str) -> str | None:
    """The number of an answer that is one with a decimal comma, with a point; else None.

    Example:
        >>> decimal_comma("1000,99"), decimal_comma("0,111"), decimal_comma("1,234")
        ('1000.99', '0.111', None)
    """
    found = _DECIMAL_COMMA.fullmatch(answer.strip(" $.")) if len(answer) < 80 else None
    return f"{found[1]}.{found[2]}" if found and not _GROUPS.fullmatch(found[0]) else None


def read_numerals(answer: str) -> str:
    r"""The answer with numbers in one form: powers of ten, fractions and percent as LaTeX.

    Example:
        >>> read_numerals("4.5e33"), read_numerals(r"0.1\overline{6}"), read_numerals("3 1/2")
        ('4.5 \\times 10^{33}', '\\frac{15}{90}', '(3+\\frac{1}{2})')
        >>> read_numerals("1.5 x 10^-8"), read_numerals("2^10"), read_numerals("5 percent")
        ('1.5 \\times 10^{-8}', '2^{10}', '5\\%')
    """
    answer = _E_NOTATION.sub(r"\1 \\times 10^{\2}", _TEN.sub(r" \\times ", answer))
    answer = _OVERLINED.sub(_repeating(_overlined), answer)
    if bracketed := _BRACKETED.fullmatch(answer.strip()):
        answer = bracketed[1] + (_fraction(*bracketed.group(2, 3, 4)) or bracketed[0])
    answer = _TRAILING.sub(_repeating(_dotted), answer)
    answer = _MIXED.sub(r"(\1+\\frac{\2}{\3})", _POINT.sub("", answer))
    answer = _BARE_EXPONENT.sub(r"^{\1}", answer).replace("**", "^")
    return _PERCENT.sub(r"\\%", answer)


def _repeating(
    read: Callable[[re.Match[str]], str | None],
) -> Callable[[re.Match[str]], str]:
    return lambda found: read(found) or found[0]


def _overlined(found: re.Match[str]) -> str | None:
    ends = [found[name] or "" for name in ("block", "digit", "first", "inner", "last")]
    return _fraction(found["whole"], found["fixed"], "".join(ends))


def _dotted(found: re.Match[str]) -> str | None:
    """The fraction of decimals that repeat until the dots; None if they do not repeat."""
    decimals = found[2]
    for period in range(1, len(decimals) // 2 + 1):
        times = 3 if period == 1 else 2
        for start in range(len(decimals) - times * period + 1):
            block, rest = decimals[start : start + period], decimals[start:]
            if rest == (block * len(rest))[: len(rest)]:
                return _fraction(found[1], decimals[:start], block)
    return None


def _fraction(whole: str, fixed: str, repeated: str) -> str | None:
    r"""The fraction of a repeating decimal: all digits minus the fixed ones, over 9s and 0s."""
    if len(whole) + len(fixed) + len(repeated) > _MOST_DIGITS:
        return None
    top = int(whole + fixed + repeated) - int(whole + fixed or 0)
    return rf"\frac{{{top}}}{{{'9' * len(repeated)}{'0' * len(fixed)}}}"
