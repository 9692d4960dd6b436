"""Whole conversations in `messages`, with a reward, or with labels of the policy's turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from stepcredit.logs.conversation import Message
from stepcredit.logs.formats.question_rollouts import GOLDS, SCORES
from stepcredit.logs.logged_fields import first_of, gold_in
from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_IDS = ("group", "group_id", "prompt_id", "uid", "id")


def fits_messages(fields: Mapping[str, Any]) -> bool:
    """A conversation in `messages`."""
    return isinstance(fields.get("messages"), list)


def read_messages(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The conversation from the first of the assistant's messages on, as one response."""
    fields = record.fields
    messages = context.messages(record.needed("messages"), record, "messages")
    first = next((at for at, turn in enumerate(messages) if turn["role"] == "assistant"), None)
    if first is None:
        raise record.fault("no message is the assistant's", "messages")
    prompt, response = messages[:first], messages[first:]
    if any(turn["role"] in ("user", "human") for turn in response):
        what = "{n} with user messages among the assistant's: all of the assistant's are trained, "
        context.note(what + "the first too; are they all the policy's?", record)
    gold = gold_in(first_of(fields, GOLDS))
    rest = {
        name: value
        for name, value in fields.items()
        if name not in ("messages", "step_labels", *GOLDS)
    }
    parts = context.message_parts(response, record, "messages", prompt)
    yield LoggedResponse(
        record,
        key=repr(prompt) if prompt else repr(fields.get("question")),
        parts=[part for each in parts for part in each],
        prompt=_question(fields, prompt, record, context),
        asked=prompt,
        step=fields.get("step"),
        rewards=rest,
        default_outcome=next((name for name in SCORES if name in fields), None),
        row={} if gold is None else {"answer": gold},
        step_labels=_labels(record, response, first, list(accumulate(map(len, parts)))),
    )


def _question(
    fields: Mapping[str, Any], prompt: list[Message], record: Record, context: ReadingContext
) -> str:
    if prompt:
        return context.question(prompt, record, "messages")
    return str(fields.get("question") or "")


def _labels(
    record: Record, response: Sequence[Message], first: int, ends: Sequence[int]
) -> dict[int, float] | None:
    """Labels of messages, by the index of a message, as those of the last part of each.

    Args:
        record: its `step_labels` count all messages; in a list, those of the assistant.
        response: the messages of the response.
        first: the first message of the response.
        ends: how many parts the messages of the response have up to each.
    """
    labels = record.fields.get("step_labels")
    if labels is None:
        return None
    turns = [str(at) for at, turn in enumerate(response, first) if turn["role"] == "assistant"]
    if isinstance(labels, list) and len(labels) == len(turns):
        labels = dict(zip(turns, labels, strict=True))
    if not isinstance(labels, dict):
        raise record.fault(
            "expected an object with the index of a message and its label, or a list with "
            "a label per message of the assistant",
            "step_labels",
        )
    found = {}
    for name, label in labels.items():
        place = f"step_labels.{name}"
        if label is None:
            continue
        is_message = name.isdecimal() and first <= int(name) < first + len(ends)
        if not isinstance(label, int | float) or not is_message:
            raise record.fault(
                f"expected a number of a message of the assistant, got {label!r}", place
            )
        found[ends[int(name) - first] - 1] = float(label)
    return found


MESSAGES = LogFormat(
    "messages",
    "chat logs: `{messages, reward}`, and with labels of the turns",
    "`messages` with tool calls, `reward`, `step_labels` (as `step_scores`)",
    "token ids, groups (by the messages before the response)",
    fits_messages,
    read_messages,
)
