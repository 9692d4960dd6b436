"""The passages of multi-hop questions as numbered text, and the facts that support the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.rewards.supporting_facts import gold_facts

Row = Mapping[str, Any]


def context_text(row: Row, field: str) -> str:
    """A row's passages as text in which every sentence, or every paragraph, has its number.

    Sentences are numbered from 0 below the title of their passage (HotpotQA, 2WikiMultihopQA);
    paragraphs have the numbers of the data set (MuSiQue).

    Args:
        row: of the data set.
        field: `context` or `paragraphs`.

    Raises:
        RolloutError: the field is missing, or holds something else.

    Example:
        >>> print(context_text({"context": [["Lilu", ["A spirit.", " It is old."]]]}, "context"))
        Lilu
        [0] A spirit.
        [1] It is old.
        >>> paragraph = {"idx": 3, "title": "Lilu", "paragraph_text": "A spirit."}
        >>> print(context_text({"paragraphs": [paragraph]}, "paragraphs"))
        [3] Lilu: A spirit.
    """
    if field == "paragraphs":
        return "\n".join(f"[{p['idx']}] {p['title']}: {p['paragraph_text']}" for p in _listed(row))
    parts = []
    for title, sentences in _titled(row, field):
        lines = [f"[{place}] {sentence.strip()}" for place, sentence in enumerate(sentences)]
        parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def evidence(row: Row, field: str) -> list[Any]:
    """The facts that support a question's answer, as the reward `qa-joint` reads them.

    Args:
        row: of the data set.
        field: `context` gives [title, sentence] pairs, `paragraphs` the numbers of the supporting
            paragraphs as strings.

    Raises:
        RolloutError: they are missing, or in another form.

    Example:
        >>> evidence({"supporting_facts": {"title": ["Lilu"], "sent_id": [0]}}, "context")
        [['Lilu', 0]]
        >>> paragraph = {"idx": 3, "title": "", "paragraph_text": "", "is_supporting": True}
        >>> evidence({"paragraphs": [paragraph]}, "paragraphs")
        ['3']
    """
    if field == "paragraphs":
        found = [str(p["idx"]) for p in _listed(row) if p.get("is_supporting")]
        if not found:
            raise RolloutError("no paragraph is marked is_supporting", field=field)
        return found
    facts = gold_facts(_decoded(row.get("supporting_facts")), 0, "supporting_facts")
    return [list(fact) if isinstance(fact, tuple) else fact for fact in facts]


def _listed(row: Row) -> list[Row]:
    """The paragraphs of MuSiQue."""
    found = _decoded(row.get("paragraphs"))
    wanted = {"idx", "title", "paragraph_text"}
    if not isinstance(found, list) or not found or any(not wanted <= {*p} for p in found):
        reason = f"expected paragraphs with {', '.join(sorted(wanted))}, got {str(found)[:60]}"
        raise RolloutError(reason, field="paragraphs")
    return found


def _titled(row: Row, field: str) -> Iterator[tuple[str, list[str]]]:
    """Title and sentences of each passage, in the forms of the Hub and of the authors' files."""
    found = _decoded(row.get(field))
    if isinstance(found, Mapping) and found.keys() >= {"title", "sentences"}:
        found = list(zip(found["title"], found["sentences"], strict=False))
    if not isinstance(found, list) or not found:
        reason = "missing" if found is None else f"expected passages, got {str(found)[:60]}"
        raise RolloutError(reason, field=field)
    for passage in found:
        if not (isinstance(passage, list | tuple) and len(passage) == 2):
            reason = f"expected [title, sentences], got {str(passage)[:60]}"
            raise RolloutError(reason, field=field)
        yield str(passage[0]), list(map(str, passage[1]))


def _decoded(value: Any) -> Any:
    """Some copies of the sets hold their lists as JSON texts."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
