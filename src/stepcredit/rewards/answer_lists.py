"""Writes answers with several values as plain lists: plus-minus, set-builders, assignments."""

from __future__ import annotations

import re
from itertools import product

_PIECE = re.compile(r"\\[a-zA-Z]+|\\.|[()\[\]{},;]", re.DOTALL)
_DEPTH = {"(": 1, "[": 1, "{": 1, r"\{": 1, ")": -1, "]": -1, "}": -1, r"\}": -1}
_OR = re.compile(r"\s*,?\s*\\(?:text|textrm|mathrm|mbox)\s*\{\s*(?:and|or)\s*\}\s*,?")
_WORD_OR = re.compile(r"(?<=[\s0-9)}]),?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[a-zA-Z])\s*(?:\\in\s*[^|:,]{1,40}?)?(?:\||\\mid|\\colon|:)(?P<rule>.+)\\\}",
    re.DOTALL,
)
_ANY_NUMBER = re.compile(r"\s*[a-zA-Z]\s*\\in\s*\\(?:mathbb|mathbf)?\s*\{?\s*R\s*\}?\s*")
_RESTATED = re.compile(r"[^:]*(?:<|>|\\le|\\ge)[^:]*:\s*(?P<set>[(\[][^:]*[)\]])")
_ASSIGNED = re.compile(r"\s*(?P<name>[a-zA-Z])\s*(?:_\s*\{?\s*[0-9]\s*\}?)?\s*=(?!=)(?P<value>.+)")
_SIGNS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_COMPARED = re.compile(r"[=<>]|\\(?:ne|neq|le|leq|ge|geq|in)(?![a-zA-Z])")
_MOST_SIGNS = 3


def listed_answer(answer: str) -> str:
    r"""A normalized answer in the form that the parser reads.

    `\pm` becomes both values, a set-builder its condition, and the variable before the values of a
    list is left out.

    Example:
        >>> listed_answer(r"x=0, \frac{5 \pm \sqrt{61}}{18}")
        '0, \\frac{5 + \\sqrt{61}}{18}, \\frac{5 - \\sqrt{61}}{18}'
        >>> listed_answer(r"\{x|-2\le x<1\}"), listed_answer(r"x \ne \pm 5")
        ('-2\\le x<1', 'x \\ne + 5, x \\ne - 5')
        >>> listed_answer(r"x = 1 \text{ or } x = 2"), listed_answer("x=1, y=2")
        ('1, 2', 'x=1, y=2')
    """
    answer = _condition(answer)
    if restated := _RESTATED.fullmatch(answer):
        answer = restated["set"]
    answer = _WORD_OR.sub(", ", _OR.sub(", ", answer))
    if (inner := _inside_braces(answer)) is not None:
        return rf"\{{{listed_answer(inner)}\}}"
    parts = _tuples(answer) or parts_of_list(answer)
    parts = [each for part in parts for each in _both_signs(part)]
    return ", ".join(_without_name(parts))


def _inside_braces(answer: str) -> str | None:
    """The list inside a set's braces, if all of the answer is one set."""
    if not (answer.startswith(r"\{") and answer.endswith(r"\}")):
        return None
    inner = answer[2:-2]
    return None if r"\{" in inner or r"\}" in inner else inner


def _condition(answer: str) -> str:
    """The condition of a set-builder, without `x \\in R`; any other answer as it is."""
    built = _BUILDER.fullmatch(answer)
    if built is None or not _COMPARED.search(built["rule"]):
        return answer
    rules = [rule for rule in parts_of_list(built["rule"]) if not _ANY_NUMBER.fullmatch(rule)]
    return ", ".join(rules)


def _tuples(answer: str) -> list[str] | None:
    """The tuples that groups such as `p=5, q=2; p=7, q=2` are; None for any other answer."""
    groups = [parts_of_list(group) for group in parts_of_list(answer, ";")]
    found = [[_ASSIGNED.fullmatch(part) for part in group] for group in groups]
    if len(groups) < 2 or not all(each for group in found for each in group):
        return None
    names = {tuple(each["name"] for each in group if each) for group in found}
    if len(names) > 1 or any(len(set(name)) < 2 for name in names):
        return None
    return [f"({', '.join(each['value'] for each in group if each)})" for group in found]


def parts_of_list(answer: str, marks: str = ",;") -> list[str]:
    r"""The parts between the commas and semicolons that stand outside all brackets.

    Example:
        >>> parts_of_list(r"(1, 2), \{3; 4\}; 5")
        ['(1, 2)', '\\{3; 4\\}', '5']
    """
    parts, depth, start = [], 0, 0
    for piece in _PIECE.finditer(answer):
        sign = piece.group()
        depth += _DEPTH.get(sign, 0)
        if depth == 0 and sign in marks:
            parts.append(answer[start : piece.start()].strip())
            start = piece.end()
    parts.append(answer[start:].strip())
    return [part for part in parts if part]


def _both_signs(part: str) -> list[str]:
    r"""The part with each choice of its `\pm`; those of one part with a `\mp` go together."""
    signs = _SIGNS.findall(part)
    if not signs or len(signs) > _MOST_SIGNS or (part.startswith("(") and len(signs) > 1):
        return [part]
    if r"\mp" in signs:
        choices = [tuple(signs), tuple(r"\pm" if sign == r"\mp" else r"\mp" for sign in signs)]
    else:
        choices = list(product((r"\pm", r"\mp"), repeat=len(signs)))
    return [_with_signs(part, choice) for choice in choices]


def _with_signs(part: str, choice: tuple[str, ...]) -> str:
    chosen = iter(choice)
    return _SIGNS.sub(lambda _: "+" if next(chosen) == r"\pm" else "-", part)


def _without_name(parts: list[str]) -> list[str]:
    """The values alone, if all parts name one variable, or the first part alone names one."""
    found = [_ASSIGNED.fullmatch(part) for part in parts]
    names = {each["name"] for each in found if each}
    rest = [part for part, each in zip(parts, found, strict=True) if not each]
    one = len(parts) > 1 and len(names) == 1 and found[0] is not None
    if not one or any(_COMPARED.search(part) for part in rest):
        return parts
    if any(_COMPARED.search(each["value"]) for each in found if each):
        return parts
    return [
        each["value"].strip() if each else part for part, each in zip(parts, found, strict=True)
    ]
