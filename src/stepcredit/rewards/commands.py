"""LaTeX commands that an answer has without a backslash or in a wrapper, such as `sqrt`."""

from __future__ import annotations

import re

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|csc|cot|ln|log|exp"
_CONSTANTS = "pi|theta|alpha|beta|gamma|infty|infinity|emptyset"
_OPERATORS = "times|cdot|div|pm|leq|geq|neq|cup|cap"
_BUILT = "sqrt|frac|dfrac|tfrac|binom|overline|mathrm|mathbf|text"
_BARE = re.compile(
    r"(?P<kept>\\(?:text|mathrm|textrm|mbox|operatorname)[a-z]*\s*\{[^{}]*\})"
    rf"|(?<![\\a-zA-Z])(?:(?P<built>{_BUILT})(?=\s*[\[{{(0-9])"
    rf"|(?P<function>a?(?:{_FUNCTIONS})|sec(?=\s*[({{]))(?![a-zA-Z])"
    rf"|(?P<constant>{_CONSTANTS})(?![a-zA-Z])"
    rf"|(?<=[\s0-9)}}])(?P<operator>{_OPERATORS})(?=[\s0-9(\\]))"
)
_SHORT = {"infinity": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_LIBRARY = re.compile(r"(?<![\w.])(?:np|numpy|math|sp|sympy)\.(?=[a-z])")
_ROMAN = re.compile(
    r"\\(?:mathrm|text|textrm|textit|mathit|mathsf|operatorname)\s*\{\s*([ie])\s*\}"
)
_NAMED = re.compile(rf"\\(?:mathrm|text|textrm|operatorname)\s*\{{\s*({_FUNCTIONS})\s*\}}")
_WRAPPED_NUMBER = re.compile(
    r"\\(?:mathbf|mathrm|textbf|text|boldsymbol|bm|mathit|textrm|underline)"
    r"\s*\{\s*([-+]?[0-9][0-9.,/]*)\s*\}"
)
_NAMED_INDEX = re.compile(
    r"_\s*(?:\{\s*\\(?P<sign>max|min|odot|oplus|perp|parallel)\s*\}|\\(?P<bare>max|min|odot|oplus)"
    r"(?![a-zA-Z])|\{\s*\\(?:text|mathrm|textrm)\s*\{\s*(?P<word>[a-zA-Z]+)\s*\}\s*\})"
)
_NATURAL_LOG = re.compile(r"\\log\s*_\s*(?:\{\s*e\s*\}|e)(?![a-zA-Z])")
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\s*\{?\s*-?[0-9]\s*\}?)?\s*[({]?\s*)([0-9]+(?:\.[0-9]+)?)"
    r"\s*\^\s*\{?\s*\\circ(?![a-zA-Z])\s*\}?"
)
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")
_DENIAL = re.compile(
    r"\\(?:text|textrm|textbf|textnormal|mathrm|mbox)\s*\{\s*"
    r"(not|no|non|never|neither|except|without|unless|if|anything|nothing)(?![a-zA-Z])"
)
_IN_WRAPPER = re.compile(r"\\[a-zA-Z]+\s*\{[a-zA-Z ]*\}|_\s*\{[^{}]*\}")


def with_commands(answer: str) -> str:
    r"""The answer with LaTeX commands for words that lack a backslash, and for roman i and e.

    Degrees of a sine become radians.

    Example:
        >>> with_commands("2pi + sqrt(2)"), with_commands(r"4-\mathrm{i}"), with_commands("sec")
        ('2\\pi  + \\sqrt{2}', '4- i', 'sec')
        >>> with_commands("np.arcsin(10/13)"), with_commands(r"\text{3 times}")
        ('\\arcsin (10/13)', '\\text{3 times}')
    """
    answer = _ROMAN.sub(r" \1", _NAMED.sub(r"\\\1 ", answer))
    answer = _NAMED_INDEX.sub(lambda index: f"_{{{index[index.lastgroup or 0]}}}", answer)
    answer = _WRAPPED_NUMBER.sub(r" \1", _LIBRARY.sub("", answer))
    answer = _NATURAL_LOG.sub(r"\\ln ", _BARE.sub(_command, answer))
    return _braced_roots(_DEGREES.sub(r"\1{\\frac{\2\\pi}{180}}", answer))


def _command(found: re.Match[str]) -> str:
    name = found[0]
    if found["kept"]:
        return name
    return f"\\{_SHORT.get(name, name)}" + ("" if found["built"] else " ")


def _braced_roots(answer: str) -> str:
    r"""The answer with `\sqrt{..}` for `\sqrt(..)`."""
    opened: list[bool] = []
    signs = list(answer)
    for at, sign in enumerate(answer):
        if sign == "(":
            opened.append(answer.endswith(r"\sqrt", max(at - 6, 0), at))
            signs[at] = "{" if opened[-1] else sign
        elif sign == ")" and opened and opened.pop():
            signs[at] = "}"
    return answer if any(opened) else "".join(signs)


def unknown_word(answer: str) -> str | None:
    r"""A word of four letters or more in an answer, or `not` and the like in `\text{..}`.

    A parser would take the letters for a product, or drop the word. Capital letters, and different
    letters in alphabetical order, are a product.

    Example:
        >>> unknown_word("5 where x is odd"), unknown_word(r"2\sin x + abcd"), unknown_word("ABCD")
        ('where', None, None)
    """
    if denied := _DENIAL.search(answer):
        return denied[1]
    plain = _IN_WRAPPER.sub(" ", answer)
    words = (found.group() for found in _LONG_WORD.finditer(plain))
    return next((word for word in words if not word.isupper() and not _is_product(word)), None)


def _is_product(word: str) -> bool:
    return list(word) == sorted(set(word))
