"""What prompts ask, as signals are asked it, and what responses say, as metrics read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepcredit.credit.metrics_texts import cut_steps
from stepcredit.data.streams import Stream
from stepcredit.errors import EngineError


def decoded(
    tokenizer: Any, ids: Sequence[Sequence[int]], ends: Stream | None
) -> tuple[list[str], list[list[str]] | None]:
    """The responses' texts and their steps', of trained tokens alone, special ones left out.

    Args:
        tokenizer: the policy's.
        ids: trained tokens of each response.
        ends: each step's last of them, if anything tells steps.
    """
    texts = tokenizer.batch_decode(list(map(list, ids)), skip_special_tokens=True)
    if ends is None:
        return texts, None
    cut = cut_steps(ids, ends)
    every = [list(step) for row in cut for step in row]
    following = iter(tokenizer.batch_decode(every, skip_special_tokens=True))
    return texts, [[next(following) for _ in row] for row in cut]


def question_of(prompt: Any, *, without: str | None = None) -> str:
    """The question of a prompt: its text, or in a conversation the last user turn's.

    Args:
        prompt: a text, or a conversation's turns; None has none.
        without: the question where no turn is a user's; None refuses such a prompt.

    Raises:
        EngineError: a conversation without a user's turn, or a prompt of another form.

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
        raise EngineError("no turn is a user's: a signal has no question", field="prompt")
    return without


def _text_of(content: Any) -> str:
    """A turn's text; of a turn in parts, that of its text parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Iterable) else []
    return "".join(part["text"] for part in parts if part.get("type") == "text")
