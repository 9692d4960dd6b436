"""Removes what follows or precedes a number without changing it: units, currencies, ordinals."""

from __future__ import annotations

import re

_TEXT = r"\\(?:text|textrm|textnormal|textbf|textit|mathrm|mathbf|mbox|hbox|operatorname)"
_UNIT = re.compile(
    rf"(?:{_TEXT} ?\{{(?P<words>[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*){{0,4}})\}}"
    r"|\^ ?\{? ?\\circ ?\}? ?(?P<degree>[CFK])"
    r"|(?<=[0-9.}\s])(?P<bare>[a-zA-Z]{2,})|(?<=[0-9}\s])(?P<han>[\u4e00-\u9fff]{1,5}))"
    r" ?(?:\^ ?\{? ?-?[0-9] ?\}?)?$"
)
_UNIT_WORDS = re.compile(
    r"[\s~]*(?:[a-zA-Z%]|\\mu|\\Omega|\^ ?\\circ ?C)"
    r"(?:[a-zA-Z/.\s~*()-]|\^ ?\{? ?-?[0-9] ?\}?|\\cdot|\\mu|\\Omega|\^ ?\\circ)*"
)
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*$")
_NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9.,/]*|\.[0-9]+)(?:\s*\\times\s*10\s*\^\s*\{[-+]?[0-9]+\})?"
    r"(?:\s+[a-zA-Z]+){0,2}"
)
_JOINT = re.compile(r"(?:/|\\cdot|\\times|\\ |~|\s)+$")
_GAP = re.compile(r"[/.\s~*()\\^{}0-9-]+")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_HAN_SCALES = {"\u5343": 3, "\u4e07": 4, "\u767e\u4e07": 6, "\u5343\u4e07": 7, "\u4ebf": 8}
_NO_HAN_UNITS = frozenset("\u6210\u534a\u6298\u767e\u5341\u6216\u548c\u4e0e")
_SHORT_UNITS = frozenset({
    "cm", "mm", "km", "kg", "mg", "ml", "ft", "lb", "hr", "in", "yd", "mi", "oz", "ms",
    "mph", "kmh", "mpg", "hrs", "lbs", "min", "sec", "day", "men", "per", "kwh",
    "usd", "eur", "gbp", "cny", "rmb", "inr", "jpy", "yen", "rs",
})  # fmt: skip
_NO_UNITS = frozenset({
    "and", "or", "not", "if", "but", "plus", "minus", "times", "over", "mod", "choose", "factorial",
    "percent", "percentage", "squared", "cubed", "less", "more", "than", "dozen", "where", "when",
    "half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth",
    "fifths", "sixth", "sixths", "seventh", "sevenths", "eighth", "eighths", "ninth", "ninths",
    "tenth", "tenths", "hundredth", "hundredths", "thousandth", "thousandths",
})  # fmt: skip
_ORDINAL = re.compile(
    r"(?<![\w.])([0-9]+)\s*(?:\^\s*)?\{?\s*"
    rf"(?:(?:{_TEXT}|\\rm)\s*\{{?\s*)?(?P<ending>st|nd|rd|th)(?![a-zA-Z])[\s}}]*"
)
_CURRENCY = re.compile(r"^([-+]?)\s*(?:US|USD|EUR|GBP|CNY|RMB|INR|JPY|Rs\.?)\s*(?=[0-9.])")


def without_ordinal(answer: str) -> str:
    r"""The answer without the ending of an ordinal.

    Example:
        >>> without_ordinal(r"12^{\text{th}} \text{ grade}"), without_ordinal("21st")
        ('12 \\text{ grade}', '21')
    """
    return _ORDINAL.sub(_number_of_ordinal, answer).strip()


def _number_of_ordinal(found: re.Match[str]) -> str:
    teens, last = found[1][-2:-1] == "1", found[1][-1]
    ending = "th" if teens else {"1": "st", "2": "nd", "3": "rd"}.get(last, "th")
    is_whole = found[0].count("{") == found[0].count("}")
    return found[1] + " " if is_whole and found["ending"] == ending else found[0]


def without_unit(answer: str) -> str:
    r"""The answer without a unit at its end; `million` and the like are factors.

    Units are words in `\text{...}`, or bare words after a number that are well known or have four
    letters, or up to five Chinese characters after a number.

    Example:
        >>> without_unit("20 cups"), without_unit(r"9.8\mathrm{~m}/\mathrm{s}^{2}")
        ('20', '9.8')
        >>> without_unit(r"2\text{ million}"), without_unit(r"2 \text{ or three}")
        ('2 \\times 10^{6}', '2 \\text{ or three}')
    """
    answer = rest = _CURRENCY.sub(r"\1", answer)
    while unit := _UNIT.search(rest):
        before = _JOINT.sub("", rest[: unit.start()])
        if unit["words"] is not None and not _UNIT_WORDS.fullmatch(unit["words"]):
            return answer
        if unit["han"]:
            return _without_han_unit(answer, before, unit["han"])
        words = _GAP.split((unit["words"] or unit["bare"] or "").lower().strip())
        if not before or _NO_UNITS.intersection(words) or not _is_unit(unit["bare"], before):
            return answer
        if words[0] in _SCALES:
            return rf"{before} \times 10^{{{_SCALES[words[0]]}}}"
        rest = before
    return _DEGREE.sub("", rest) if rest != answer else rest


def _without_han_unit(answer: str, before: str, unit: str) -> str:
    for scale, power in _HAN_SCALES.items():
        if unit.startswith(scale) and not unit.startswith(scale + "\u4e07"):
            return rf"{before} \times 10^{{{power}}}"
    return answer if _NO_HAN_UNITS.intersection(unit) or not before else before


def _is_unit(bare: str | None, before: str) -> bool:
    """Whether words are a unit: words in a wrapper are; bare ones may be variables."""
    if bare is None:
        return True
    is_known = len(bare) > 3 or bare.lower() in _SHORT_UNITS
    return is_known and _NUMBER.fullmatch(before) is not None
