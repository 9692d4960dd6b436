"""Normalizes answers: signs, wrappers, units, and parts without meaning."""

from __future__ import annotations

import re

LONGEST = 1_000
"""Characters of an answer that is still read as maths."""

_SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u00f7": r"\div ",
    "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ",
    "\u2260": r"\ne ", "\u00b0": r"^\circ ", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u00b1": r"\pm ", "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ",
    "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}",
    "\u221a": r"\sqrt ", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\varnothing": r"\emptyset",
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_SUPERSCRIPT = re.compile(f"[{_RAISED}]+")
_LOWERED = str.maketrans(_RAISED, "0123456789")
_NO_MEANING = re.compile(
    r"\\(?:[!,;:]|(?:displaystyle|textstyle|left|right|[bB]igg?[lr])(?![a-zA-Z]))"
)
_DELIMITER = re.compile(r"\\?\$|(?<!\\)\\[()\[\]]")
_ROW_SPACE = re.compile(r"\\\\\s*\[-?[0-9.]+[a-z]{2}\]")
_PERCENT = re.compile(
    r"\\text\s*\{\s*(?:percent|percentage)\s*\}|(?<=[0-9])\s*(?:percent|percentage)$"
)
_BARE_EXPONENT = re.compile(r"(?:\^|\*\*)\s*(-?[0-9]{2,})")

_WRAPPER = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|hbox|boxed|fbox|emph|bm)\s*\{"
WRAPPED = re.compile(_WRAPPER + r"([^{}]*)\}")
_OPENING = re.compile(_WRAPPER + r"|\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)

_UNIT = re.compile(
    r"(?:\\(?:text|textrm|mathrm|mbox|hbox)\s*\{[\s~]*(?P<words>[a-zA-Z][a-zA-Z/.\s~-]*)\}"
    r"|(?<=[0-9.\s])(?P<bare>[a-zA-Z]{2,}))\s*(?:\^\s*\{?\s*-?[0-9]\s*\}?)?$"
)
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9.,/]*|\.[0-9]+)(?:\s+[a-zA-Z]+){0,2}")
_JOINT = re.compile(r"(?:/|\\cdot|\\ |~|\s)+$")
_GAP = re.compile(r"[/.\s~-]+")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SHORT_UNITS = frozenset({
    "cm", "mm", "km", "kg", "mg", "ml", "ft", "lb", "hr", "in",
    "mph", "kmh", "mpg", "hrs", "lbs", "min", "sec", "day", "men", "per",
})  # fmt: skip
_NO_UNITS = frozenset({
    "and", "or", "not", "if", "but", "plus", "minus", "times", "over", "mod", "choose", "factorial",
    "percent", "percentage", "squared", "cubed", "less", "more", "than", "dozen",
    "half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth",
    "fifths", "sixth", "sixths", "seventh", "sevenths", "eighth", "eighths", "ninth", "ninths",
    "tenth", "tenths", "hundredth", "hundredths", "thousandth", "thousandths",
})  # fmt: skip


def normalize_answer(answer: str) -> str:
    r"""The answer without dollar signs, a full stop, `\left`, thin spaces and the unit at its end.

    Mathematical signs of Unicode become LaTeX; digits of other scripts do not become digits.

    Example:
        >>> answers = r"$\left( 3,\, 2\pi \right)$.", "2\u03c0", "3 hours"
        >>> [normalize_answer(answer) for answer in answers]
        ['( 3, 2\\pi )', '2\\pi', '3']
    """
    if len(answer) > 4 * LONGEST:
        return answer.strip()
    answer = _SIGN.sub(lambda sign: _SIGNS[sign.group()], answer)
    answer = _SUPERSCRIPT.sub(lambda raised: f"^{{{raised.group().translate(_LOWERED)}}}", answer)
    answer = _PERCENT.sub(r"\\%", _ROW_SPACE.sub(r"\\\\", answer).rstrip())
    answer = _NO_MEANING.sub("", _DELIMITER.sub(" ", answer))
    answer = _BARE_EXPONENT.sub(r"^{\1}", answer).replace("**", "^")
    return _without_unit(_stripped(unwrapped(_stripped(answer))))


def _stripped(answer: str) -> str:
    return " ".join(answer.split()).rstrip(".").strip()


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


def _without_unit(answer: str) -> str:
    r"""The answer without a unit at its end; `million` and the like are factors.

    Units are words in `\text{...}`, or bare words after a number that are well known or have four
    letters.

    Example:
        >>> _without_unit("20 cups"), _without_unit(r"9.8\mathrm{~m}/\mathrm{s}^{2}")
        ('20', '9.8')
        >>> _without_unit(r"2\text{ million}"), _without_unit(r"2 \text{ or three}")
        ('2 \\times 10^{6}', '2 \\text{ or three}')
    """
    rest = answer
    while unit := _UNIT.search(rest):
        before = _JOINT.sub("", rest[: unit.start()])
        words = _GAP.split((unit["words"] or unit["bare"]).lower().strip())
        if not before or _NO_UNITS.intersection(words) or not _is_unit(unit["bare"], before):
            return answer
        if words[0] in _SCALES:
            return rf"{before} \times 10^{{{_SCALES[words[0]]}}}"
        rest = before
    return rest


def _is_unit(bare: str | None, before: str) -> bool:
    """Whether words are a unit: words in a wrapper are; bare ones may be variables."""
    if bare is None:
        return True
    return (len(bare) > 3 or bare in _SHORT_UNITS) and _NUMBER.fullmatch(before) is not None
