"""Whether a text states an equation, or asks, supposes or refutes it."""

from __future__ import annotations

import re
from itertools import islice

BEFORE, AFTER = 160, 160
"""Characters that are looked at before and after an equation."""
_SENTENCE_END = re.compile(r"(?<!\d)\.(?=\s|\Z)|\.(?=\s)|[!?！？]|\n")
_OPENED = re.compile(
    r"(?:\b(?:if|whether|suppose|supposing|assume|assuming|unless|cannot|can't|never|not|isn't|"
    r"instead|false|wrong|incorrect|wrongly|mistakenly|claims?|claimed)\b"
    r"|若|如果|假设|假如|是否|不是|不能|错误地)[^,;:.=，；：。]{0,40}\Z",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\A\W*(?:(?:so|but|and|now|then),?\s+)?(?:is|are|does|do|did|can|could|should|would)\s*\Z",
    re.IGNORECASE,
)
_OTHER_BASE = re.compile(
    r"\bbase[- ]?(?:\\?\$|\\\(|\s)?(?!10\b)\d|"
    r"\bbase[- ](?:two|three|four|five|six|seven|eight|nine)\b|"
    r"\b(?:binary|octal|hexadecimal)\b|进制",
    re.IGNORECASE,
)
_MODULO = re.compile(r"\b(?:mod|modulo|modulus)\b|\\[pb]?mod|clock|模|同余", re.IGNORECASE)
_THEN_MODULO = re.compile(r"(?:(?!\\equiv)[^=≡.;]){0,24}mod", re.IGNORECASE)
_REFUTED = re.compile(
    r"(?:\b(?:is|are|was|that's|it's|this's|which)\s+(?:\w+ly\s+|also\s+|just\s+|indeed\s+)*"
    r"(?:not\s+(?:\w+ly\s+)?(?:true|correct|right|possible|valid|equal|the\s+case|satisf\w*|what|"
    r"consistent|allowed|acceptable|accurate|an?\s+(?:integer|solution|root|whole|valid)|\W?\d)|"
    r"never\s+true|false|wrong|incorrect|untrue|impossible|invalid|absurd|nonsense|contradictory|"
    r"inconsistent|a\s+contradiction)\b"
    r"|\b(?:isn't|isn’t|aren't|wasn't)\s+(?:\w+\s+)?(?:true|right|correct|possible|valid|equal|the|"
    r"satisfied|consistent)\b"
    r"|\b(?:cannot|can't|can’t|can not)\s+(?:be|happen|hold|occur)\b"
    r"|\bbut\s+(?:it|this|that)(?:'s|’s|\s+is)\s+not\b"
    r"|[:,(-]\s*not\s+(?:equal|true|correct|right|valid|possible)\b"
    r"|\b(?:does|do|did)(?:\s+not|n't|n’t)\s+(?:\w+\s+)?(?:hold|work|make sense|equal|match|"
    r"satisfy|agree|check|fit|help)\b"
    r"|\b(?:contradict\w*|contradiction|fails|false|incorrect|untrue|absurd|impossible|invalid)\b"
    r"|\b(?:no|nope|wait|oops|hmm)\b\s*[,.!—-]"
    r"|≠|\\neq?\b|\\not\s*=|[✗✘❌✖]"
    r"|不成立|矛盾|不对|不正确|错误|错了|不符|不满足|不等|不可能|不是|舍去|不合)",
    re.IGNORECASE,
)
_SURELY_REFUTED = re.compile(
    r"\b(?:this|that|which|it)\s+is\s+(?:\w+ly\s+)?(?:incorrect|false|wrong|not\s+true|"
    r"not\s+possible|impossible|a\s+contradiction)\b",
    re.IGNORECASE,
)


def is_stated(text: str, start: int, end: int) -> bool:
    """Whether the text states the equation at [start, end), by its sentence and the next.

    Example:
        >>> text = "But 3 + 4 = 8 is false. So 1 + 1 = 2."
        >>> is_stated(text, 4, 13), is_stated(text, 27, 36)
        (False, True)
    """
    before, after = text[max(0, start - BEFORE) : start], text[end : end + AFTER]
    before = _SENTENCE_END.split(before)[-1]
    ends = list(islice(_SENTENCE_END.finditer(after), 2))
    if ends and ends[0][0] in "?？":
        return False
    rest = after[: ends[0].start()] if ends else after
    following = after[: ends[1].start()] if len(ends) > 1 else after
    if _OPENED.search(before) or _ASKED.search(before):
        return False
    if _REFUTED.search(following) or _SURELY_REFUTED.search(after):
        return False
    return not _counts_otherwise(before, rest)


def _counts_otherwise(before: str, rest: str) -> bool:
    """Whether the sentence counts in another base, or modulo a number."""
    in_base = _OTHER_BASE.search(before) or _OTHER_BASE.search(rest)
    return bool(in_base or _MODULO.search(before) or _THEN_MODULO.match(rest))
