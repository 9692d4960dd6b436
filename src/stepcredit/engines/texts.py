"""The question of a prompt, and the texts of a response's steps and tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.data.streams import Stream
from stepcredit.errors import EngineError
from stepcredit.signals.responses import Response


def decode_with_steps(
    tokenizer: Any, ids: Sequence[Sequence[int]], ends: Stream | None
) -> tuple[list[str], list[list[str]] | None]:
    """The texts of the responses and of their steps, without special tokens.

    Args:
        tokenizer: the policy's.
        ids: the trained tokens of each response.
        ends: where each step ends among them; None: steps are unknown.
    """
    texts = tokenizer.batch_decode(list(map(list, ids)), skip_special_tokens=True)
    if ends is None:
        return texts, None
    cut = list(_cut(ids, ends))
    every = [step for row in cut for step in row]
    following = iter(tokenizer.batch_decode(every, skip_special_tokens=True))
    return texts, [[next(following) for _ in row] for row in cut]


def _cut(ids: Sequence[Sequence[int]], ends: Stream) -> Iterator[list[list[int]]]:
    """The steps of each response; accepts invalid ends, which `Rollouts` rejects later."""
    places = iter(ends.values.tolist())
    for row, count in zip(ids, ends.counts.tolist(), strict=True):
        last = [-1, *islice(places, count)]
        yield [list(row[before + 1 : end + 1]) for before, end in pairwise(last)]


def trained_texts(
    responses: Sequence[Response], trained: Sequence[Sequence[bool]]
) -> list[list[str]]:
    """The texts of each response's trained tokens.

    Args:
        responses: the responses of the batch.
        trained: one flag per token of each response; further flags are padding.
    """
    return [
        row_tokens_to_trained(list(response.token_texts), list(flags))
        for response, flags in zip(responses, trained, strict=True)
    ]


def question_of(prompt: Any, *, without: str | None = None) -> str:
    """The question of a prompt: the text itself, or the last user message of a conversation.

    Args:
        prompt: a text, or the messages of a conversation; None: no messages.
        without: the question of a conversation without a user message; None: such a prompt is
            refused.

    Raises:
        EngineError: a conversation without a user message, or a prompt of another form.

    Example:
        >>> question_of([{"role": "system", "content": "Be brief."},
        ...              {"role": "user", "content": "2+3?"}])
        '2+3?'
    """
    if isinstance(prompt, str):
        return prompt
    given = [] if prompt is None else prompt
    turns = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(turn, Mapping) for turn in turns):
        reason = f"expected a text or a conversation, got {type(prompt).__name__}"
        raise EngineError(reason, field="prompt")
    for turn in reversed(turns):
        if turn.get("role") == "user":
            return _text_of(turn.get("content"))
    if without is None:
        raise EngineError("no message is the user's, so signals have no question", field="prompt")
    return without


def _text_of(content: Any) -> str:
    """The text of a message, or of its text parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Iterable) else []
    return "".join(part["text"] for part in parts if part.get("type") == "text")
