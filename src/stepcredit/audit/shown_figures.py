"""Figures and text as a person reads them: numbers rounded, characters without a shape named."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from stepcredit.audit.finding import AuditFigure

NO_VALUE = "no value"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of characters that have no shape, or that change the text around them."""


def shown_number(value: float | None) -> str:
    """A number with three digits, or all digits before the point; `NO_VALUE` for None.

    What is smaller than a millionth is rounding noise here, and shown as 0.00.

    Example:
        >>> [shown_number(x) for x in (0.12345, -1.5, 12345.6, 3.0, 0.0, -1e-9, None)]
        ['0.123', '-1.5', '12,346', '3', '0', '0.00', 'no value']
    """
    if value is None:
        return NO_VALUE
    if 0 < abs(value) < 1e-6:
        return "0.00"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"


def shown_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its interval, if it has one.

    Example:
        >>> shown_interval(0.5, 0.4, 0.6), shown_interval(0.5, None, None)
        ('0.5 (0.4 to 0.6)', '0.5')
    """
    if value is None or low is None or high is None:
        return shown_number(value)
    return f"{shown_number(value)} ({shown_number(low)} to {shown_number(high)})"


def check_title(name: str) -> str:
    """A check's name as a heading.

    Example:
        >>> check_title("length_pressure")
        'Length pressure'
    """
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def figure_sentence(figure: AuditFigure) -> str:
    """A figure on one line: what it is, whose, its number with the interval, its count.

    Example:
        >>> figure_sentence(AuditFigure("share of zeros", 0.25, 8, "groups", method="pass"))
        'share of zeros, pass: 0.25, n = 8 groups'
    """
    whose = "".join(f", {name}" for name in (figure.method, figure.stream) if name)
    number = shown_interval(figure.value, figure.low, figure.high)
    return f"{figure.name}{whose}: {number}, n = {figure.count:,} {figure.of}"


def visible_text(text: str) -> str:
    """The text with every character that has no shape, or turns the text around, as its number.

    Line feeds and tabs stay. Controls, marks of direction, zero-width characters, lone surrogates
    and characters without a meaning become `⟨U+....⟩`.

    Example:
        >>> visible_text("a\\x1b[31m\\u202eb")
        'a⟨U+001B⟩[31m⟨U+202E⟩b'
    """
    if text.isprintable():
        return text
    return "".join(c if _has_shape(c) else f"⟨U+{ord(c):04X}⟩" for c in text)


def _has_shape(character: str) -> bool:
    if character.isprintable() or character in "\n\t":
        return True
    return unicodedata.category(character) not in _HIDDEN


def visible_values(value: Any) -> Any:
    """Plain values, with `visible_text` of every string in them, names of fields included.

    Example:
        >>> visible_values({"a": ["\\x00", 1, None]})
        {'a': ['⟨U+0000⟩', 1, None]}
    """
    if isinstance(value, str):
        return visible_text(value)
    if isinstance(value, Mapping):
        return {visible_text(str(name)): visible_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_values(item) for item in value]
    return value
