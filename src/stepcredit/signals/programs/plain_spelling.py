"""Rewrite the signs of LaTeX, of full-width text and of money as those of a plain sum."""

from __future__ import annotations

import re

_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {
    ord("，"): ", ",
    ord("、"): ", ",
    ord("。"): ". ",
    ord("："): ": ",
    ord("；"): "; ",
    ord("\u3000"): " ",
    ord("\u00a0"): " ",
    ord("\u202f"): " ",
    ord("\u2009"): " ",
}
"""Full-width signs and digits as their narrow ones; a comma or full stop ends what is before it."""
_WORDS_IN_LATEX = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_UNIT_LETTERS = frozenset("gmsLlhNJVWK")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_NESTED = 3
"""How deep fractions within fractions are read."""
_REPEATING = re.compile(
    r"(?<![\d.])(\d+)[ \t]*\.[ \t]*(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))"
)
_SPELLINGS = (
    (re.compile(r"\\\\(?:\[\d+\w*\])?|\\(?:begin|end)\s*\{[^{}]*\}(?:\{[^{}]*\})?"), "\n"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°"), ""),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])|[×·∙⋅]"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|÷"), "/"),
    (re.compile("[−–‒]"), "-"),
    (re.compile(r"=/=|/="), "≠"),
    (re.compile(r"(?<=\d)[ \t]?(?:…{1,2}|\.{3,6}|\\[lc]?dots)[ \t]?(?=\d)"), " R "),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"\\?[$£€¥₹]|\\[,;:! ]|~|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|&(?==)"), ""),
    (re.compile(r"(?<==)&"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<=[\d)])[ \t]*\\?%"), "%"),
    (re.compile(r"(?<=%)\s+of\s+(?=[\d(][-+*/\d.()% \t]*=)"), "*"),
    (
        re.compile(
            r"(\b\d+/\d+|\(\(\d+\)/\(\d+\)\)|(?<!\d)0?\.\d+)\s+of\s+(?=[\d(][-+*/\d.()% \t]*=)"
        ),
        r"\1*",
    ),
    (re.compile(r"(?<=[\d)%])(?:[ \t]*[xX][ \t]*(?=\.?\d)|[ \t]+[xX][ \t]+(?=\())"), " * "),
    (re.compile(r"(?<![\d)])(?<![\d)] )\*\*"), ""),
)


def spelled_plainly(text: str) -> str:
    r"""The text with signs, currency, thousands' commas and percent rewritten as in a plain sum.

    Fractions of LaTeX become divisions, a repeating decimal becomes the fraction that it is, and
    the words in `\text{...}` become words.

    Example:
        >>> spelled_plainly(r"$1,200 \times 5% = \frac{120}{2}")
        '1200 * 5% = ((120)/(2))'
        >>> spelled_plainly(r"３＋４＝７，0.\overline{3}")
        '3+4=7, ((03-0)/9)'
    """
    text = _WORDS_IN_LATEX.sub(_as_words, text.translate(_WIDE))
    text = _REPEATING.sub(_as_fraction, text)
    for _ in range(_NESTED):
        text = _FRACTION.sub(r"((\1)/(\2))", text)
    for spelling, plain in _SPELLINGS:
        text = spelling.sub(plain, text)
    return text


def _as_words(command: re.Match[str]) -> str:
    """The words of `\\text{...}`; a letter that names a unit becomes a word."""
    words = command[1].replace("~", " ")
    return " units " if words.strip() in _UNIT_LETTERS else f" {words} "


def _as_fraction(decimal: re.Match[str]) -> str:
    """`13.2\\overline{45}` as (13245 - 132) / 990."""
    whole, fixed = decimal[1], decimal[2]
    repeated = decimal[3] or decimal[4]
    under = "9" * len(repeated) + "0" * len(fixed)
    return f"(({whole}{fixed}{repeated}-{whole}{fixed})/{under})"
