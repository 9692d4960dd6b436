"""What stands beside a sum in a text, and whether it belongs to the sum.

`3 + 4` is a sum of its own in `He has 3 + 4 = 7`, and is none in `x (3 + 4) = 7`, `\\log 3 + 4 = 7`
or `three times 3 + 4 = 7`. Only what is known to be no part of a sum may stand beside it.
"""

from __future__ import annotations

import re
from enum import Enum

from stepcredit.signals.programs.sum_vocabulary import (
    AMOUNTS,
    ASSERTING,
    COMMANDS,
    LABELS,
    OPERATORS,
    PERIODS,
    SHORT,
)


class Reading(Enum):
    """What to do with a sum at the edge of an equation."""

    WHOLE = "it is the sum that stands there"
    PART = "it is a part of something else: leave that side out"
    UNCLEAR = "it may end anywhere: leave the whole equation out"


_AMOUNT = re.compile(rf"\b(?:{'|'.join(sorted(AMOUNTS))})s? of\Z", re.IGNORECASE)
_ARTICLE = re.compile(r"\b[a-z]{2,}[ \t]+a\Z")
_OUT_OF = re.compile(r"of (?:them|the|those|these|change|his|her|their|my)\b")
_MIXED_BEFORE = re.compile(r"\d[ \t]+and\Z")
_MIXED_AFTER = re.compile(r"and \(?\d+/\d")
_OPEN_STOP = re.compile(r"[-+*/=(.][ \t]*\.\Z")
_DIVIDED = re.compile(r"(?:\d|\b(?:divid|multipl|scal)\w*)[ \t]+by\Z", re.IGNORECASE)
_COUNTED = re.compile(
    r"times(?![ \t]*(?:[\d(]|the\b|as\b|more\b|a\b|that\b|this\b|larger\b|his|her))"
)
_ENDING = COMMANDS | {"tag", "checkmark", "mid", "blacksquare", "square", "label"}
_FUNCTION = re.compile(
    r"(?<![A-Za-z])\\?(?:log|ln|lg|exp|(?:arc)?(?:sin|cos|tan|cot|sec|csc))h?[ \t]*"
    r"(?:[_^][ \t]*(?:\w|\{[^{}]*\}|\([\d/ ]*\))[ \t]*){0,2}[_^]?\Z"
)
_WORD = re.compile(r"(\\?)(?<!\w)([^\W\d_]+)(?:['’][a-z]+)?\Z")
_NEXT_WORD = re.compile(r"(\\?)([^\W\d_]+)(?![\w{])")
_PER = re.compile(rf"a (?:{'|'.join(sorted(PERIODS))})\b")
_LEFT_MARKS = frozenset(',;:!?."“”‘’«»「『」》〉【】→⇒⟹∴∵≈≠≤≥<>•—&[\n✓✔✅')
_RIGHT_MARKS = frozenset('.;:?)]}"“”’»」』】》→⇒⟹∴∵≈≠≤≥<>—,&\n✓✔✅#')
_LEFT_IDEOGRAPHS = re.compile("(?:[的加减減乘除倍余餘第负負根每和与與]|[乘除]以)\\Z")
_RIGHT_IDEOGRAPHS = re.compile(
    "[余餘又点點万萬亿億百十几幾多成折的倍加减減乘除分]|千(?![克米瓦卡])"
)
_AND_SO_ON = re.compile(r"…|\.\.|\\[lc]?dots")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_OPERATED = re.compile(r"[ \t]*(?:[+*/)]|-[ \t])")
OPERATION = re.compile(r"[\d)%][ \t]*[-+*/]")
_THOUSANDS = re.compile(r"[ \t]*\d{3}(?!\d)")


def left_edge(before: str, side: str) -> Reading:
    r"""Whether a sum is whole, given the text before it.

    Example:
        >>> left_edge("He has ", "3 + 4").name, left_edge(r"c_v ", "(8 - 4)").name
        ('WHOLE', 'PART')
        >>> left_edge(r"\ln ", "8 ").name
        'UNCLEAR'
    """
    text = before.rstrip(" \t")
    glued = text == before and side[:1] not in " \t"
    if function := _FUNCTION.search(text):
        raised = function[0][-1] in "_^"
        closed = "(" in side if raised else side.lstrip().startswith("(")
        return Reading.PART if closed else Reading.UNCLEAR
    whole = _stands_free(text, side, glued=glued)
    return Reading.WHOLE if whole else Reading.PART


def _stands_free(text: str, side: str, *, glued: bool) -> bool:
    if not text or text[-1] == "\n":
        open_before = re.search(r"[+/^(]\Z|(?<=[\w)] )[-*]\Z", text.rstrip())
        return not open_before and not re.match(r"[ \t]*[+*/)]", side)
    if _OPERATED.match(side):
        return False
    last = text[-1]
    if _IDEOGRAPH.match(last):
        return not _LEFT_IDEOGRAPHS.search(text)
    if word := _WORD.search(text):
        named = _AMOUNT.search(text) is not None
        return not glued and (named or _may_stand_before(word, side))
    if last in ",:" and text[-2:-1].isdigit():
        return not (glued or (last == "," and _THOUSANDS.match(side)))
    if last == "!":
        return not text[-2:-1].isdigit()
    if last in "'`":
        return not re.search(r"[\w)]['`]+\Z", text)
    if last == "|":
        return text[text.rfind("\n") + 1 :].lstrip().startswith("|")
    if last == "[":
        return not text[-2:-1].isalnum()
    return last in _LEFT_MARKS and not _OPEN_STOP.search(text)


def _may_stand_before(word: re.Match[str], side: str) -> bool:
    command, name = word[1], word[2]
    if command:
        return name in COMMANDS
    plain = name.lower()
    if plain == "a":
        return bool(_ARTICLE.search(word.string)) and side.lstrip()[:1].isdigit()
    if plain == "and":
        return not _MIXED_BEFORE.search(word.string)
    if plain == "by":
        return not _DIVIDED.search(word.string)
    if plain in OPERATORS or not _is_word(name):
        return False
    if not OPERATION.search(side):
        return plain in ASSERTING
    return plain not in LABELS


def _is_word(name: str) -> bool:
    """Whether letters are a word, and no variable, product or name of points."""
    if len(name) < 3:
        return name.lower() in SHORT
    return not name.isupper()


_ROUNDED = re.compile(
    r"[ \t]*[(,]?[^.\n]{0,24}\b(?:round|truncat|approximat|nearest)|[ \t]*[（(，,]?[ \t]*约"
)


def is_rounded(side: str, after: str) -> bool:
    """Whether a whole number is said to be a rounded one.

    Example:
        >>> is_rounded("7", " (rounded up)"), is_rounded("7", " apples")
        (True, False)
    """
    return side.isdigit() and bool(_ROUNDED.match(after))


_HUNDREDTHS = re.compile(r"[ \t]*(?:percent\b|percentage points?\b|cents?\b|¢|pennies\b)")


def in_hundredths(after: str) -> bool:
    """Whether a number counts percent, or cents, which may be hundredths of what was added.

    Example:
        >>> in_hundredths(" cents more"), in_hundredths(" dollars")
        (True, False)
    """
    return bool(_HUNDREDTHS.match(after))


def right_edge(side: str, after: str) -> bool:
    r"""Whether a sum is whole, given the text after it.

    Example:
        >>> right_edge("7", " apples"), right_edge("2 ", "d"), right_edge("9/4 ", r"\sqrt{2}")
        (True, False, False)
    """
    if re.search(r"(?<!\*)[-+*/][ \t]*\Z", side) and after.strip():
        return False
    glued = side[-1:] not in " \t("
    text = after.lstrip(" \t")
    glued = glued and text == after
    if not text or text[0] == "\n":
        return not re.match(r"\s*(?:[+^]|/(?!/))", text)
    if side.rstrip().endswith("("):
        return bool(re.match(r"[A-Za-z]{2,}|" + _IDEOGRAPH.pattern, text))
    if _IDEOGRAPH.match(text):
        return not _RIGHT_IDEOGRAPHS.match(text)
    if "." in side and _AND_SO_ON.match(text):
        return True
    if text[0] in ",:" and glued:
        return not text[1:2].isdigit()
    if text[0] == "|":
        return not text[1:].strip(" \t") or text[1] in " \n"
    if _OUT_OF.match(text):
        return not glued and not re.search("[%/]", side)
    if _PER.match(text) or _COUNTED.match(text):
        return not glued
    if _MIXED_AFTER.match(text):
        return False
    if word := _NEXT_WORD.match(text):
        return not (glued and not word[1]) and _may_stand_after(word)
    return text[0] in _RIGHT_MARKS | {"¢"}


def _may_stand_after(word: re.Match[str]) -> bool:
    command, name = word[1], word[2]
    if command:
        return name in _ENDING
    return name.lower() not in _SCALES and _is_word(name)


_SCALES = OPERATORS - {"by", "from", "between", "than", "per", "square", "half"}
