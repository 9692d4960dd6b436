"""Reads supporting facts, from a data set and from a response."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.rewards.extract import last_tag

SupportingFact = tuple[str, int] | str


def gold_facts(value: Any, row: int, field: str) -> list[SupportingFact]:
    """Gold facts in the forms of data sets: pairs, titles only, or `{"title": [], "sent_id": []}`.

    Raises:
        RolloutError: the value is none of these.

    Example:
        >>> gold_facts({"title": ["Lilu"], "sent_id": [0]}, 0, "supporting_facts")
        [('Lilu', 0)]
    """
    if isinstance(value, Mapping) and value.keys() >= {"title", "sent_id"}:
        value = list(zip(value["title"], value["sent_id"], strict=False))
    facts = [_fact(each) for each in value] if isinstance(value, list | tuple) else []
    if not facts or None in facts:
        reason = f"expected [title, sentence] pairs or titles, got {str(value)[:80]}"
        raise RolloutError(reason, row=row, field=field)
    return [each for each in facts if each is not None]


def named_facts(response: str, tag: str) -> list[SupportingFact]:
    """The facts in the last such tag of a response: JSON, or one `Title | 3` per line.

    An entry that cannot be read counts as a wrong fact.

    Example:
        >>> named_facts("<support>Lilu | 0\\nAlu</support>", "support")
        [('Lilu', 0), 'Alu']
        >>> named_facts('<support>[["Lilu", 0], 7]</support>', "support")
        [('Lilu', 0), '7']
    """
    content = last_tag(response, tag) or ""
    try:
        listed = json.loads(content)
    except (ValueError, RecursionError):
        listed = None
    if isinstance(listed, list):
        return [_fact(each) or str(each) for each in listed]
    return [_from_line(line) for line in content.splitlines() if line.strip()]


def _fact(value: Any) -> SupportingFact | None:
    if isinstance(value, str):
        return value.strip()
    pair = isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)
    return (value[0].strip(), value[1]) if pair and type(value[1]) is int else None


def _from_line(line: str) -> SupportingFact:
    title, bar, sentence = line.rpartition("|")
    sentence = sentence.strip()
    if bar and sentence.isascii() and sentence.isdigit() and len(sentence) < 10:
        return title.strip(), int(sentence)
    return line.strip()
