"""One line per question with a list of its responses: `{question, gold, rollouts: [...]}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.logs.logged_fields import first_of, gold_in
from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

QUESTIONS = ("question", "problem", "prompt", "query", "input", "messages")
LISTS = ("rollouts", "responses", "completions", "generations", "samples", "outputs", "solutions")
GOLDS = ("gold", "answer", "gt", "ground_truth", "target", "reference", "expected_answer")
TEXTS = ("text", "response", "completion", "output", "content", "generation", "solution")
SCORES = ("reward", "score", "outcome", "correct", "is_correct")


def fits_question_rollouts(fields: Mapping[str, Any]) -> bool:
    """A question and a list of texts, or of objects with a text."""
    if first_of(fields, QUESTIONS) is None or "labels" in fields:
        return False
    found = first_of(fields, LISTS)
    return isinstance(found, list) and bool(found) and _text(found[0]) is not None


def read_question_rollouts(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The responses to a question, which are a group."""
    fields = record.fields
    found, gold = first_of(fields, LISTS), gold_in(first_of(fields, GOLDS))
    asked = first_of(fields, QUESTIONS)
    if asked is None or not isinstance(found, list):
        raise record.fault("missing", "question" if asked is None else "rollouts")
    if not found:
        raise record.fault("holds no response", "rollouts")
    prompt = context.question(asked, record, "question")
    rest = {name: value for name, value in fields.items() if not isinstance(value, list)}
    lists = {
        name: values
        for name, values in fields.items()
        if name in _OF_EACH and isinstance(values, list) and len(values) == len(found)
    }
    for index, item in enumerate(found):
        text = _text(item)
        if text is None and not _is_empty(item):
            raise record.fault("expected a text, or an object with one", f"rollouts[{index}]")
        own = {name: item[name] for name in item if name not in TEXTS} if _is_object(item) else {}
        own |= {name.removesuffix("s"): values[index] for name, values in lists.items()}
        yield LoggedResponse(
            record,
            key=record.line,
            parts=context.parts(text, record, f"rollouts[{index}]", asked),
            prompt=prompt,
            asked=asked,
            rewards=own,
            default_outcome=next((name for name in SCORES if name in own), None),
            row={name: rest[name] for name in rest if name not in QUESTIONS + GOLDS}
            | ({} if gold is None else {"answer": gold}),
            has_id=True,
        )


_OF_EACH = tuple(f"{name}s" for name in SCORES) + SCORES


def _is_empty(item: Any) -> bool:
    """Whether a response is null, or an object of which every text is null."""
    return item is None or (_is_object(item) and any(name in item for name in TEXTS))


def _is_object(item: Any) -> bool:
    return isinstance(item, dict)


def _text(item: Any) -> Any:
    """A response's text or messages; None where there is none."""
    if isinstance(item, str) or (isinstance(item, list) and item and _is_object(item[0])):
        return item
    if not _is_object(item):
        return None
    found = first_of(item, (*TEXTS, "messages"))
    return found if isinstance(found, str | list) else None


QUESTION_ROLLOUTS = LogFormat(
    "question-rollouts",
    "one's own sampling: `{question, gold, rollouts: [...]}`",
    "the question, the list of texts or objects (text and reward), the gold (as `answer`)",
    "token ids, training steps",
    fits_question_rollouts,
    read_question_rollouts,
)
