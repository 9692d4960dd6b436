"""What prompts ask, as signals are asked it, and what responses say, as metrics read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import stepcredit as sc
from stepcredit.credit.stages.chunks import chunker, reads_text, steps
from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.data.streams import Stream
from stepcredit.errors import EngineError
from stepcredit.signals.responses import Response


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
    cut = list(_cut(ids, ends))
    every = [step for row in cut for step in row]
    following = iter(tokenizer.batch_decode(every, skip_special_tokens=True))
    return texts, [[next(following) for _ in row] for row in cut]


def _cut(ids: Sequence[Sequence[int]], ends: Stream) -> Iterator[list[list[int]]]:
    """Each response's steps; where the ends make no sense too, which `sc.Rollouts` will tell."""
    places = iter(ends.values.tolist())
    for row, count in zip(ids, ends.counts.tolist(), strict=True):
        last = [-1, *islice(places, count)]
        yield [list(row[before + 1 : end + 1]) for before, end in pairwise(last)]


def chunks_are_steps(estimator: sc.Estimator) -> bool:
    """Whether the estimator's chunks are the steps, which a signal of tokens does not tell.

    Example:
        >>> chunks_are_steps(sc.PASS(chunks="steps")), chunks_are_steps(sc.PASS())
        (True, False)
    """
    rule = _chunks(estimator)
    return getattr(rule, "func", rule) is steps


def chunks_read_text(estimator: sc.Estimator) -> bool:
    """Whether the estimator's chunks are cut by the tokens' texts.

    Example:
        >>> chunks_read_text(sc.PASS(chunks="sentences")), chunks_read_text(sc.PASS())
        (True, False)
    """
    return reads_text(_chunks(estimator))


def _chunks(estimator: sc.Estimator) -> Any:
    return chunker(getattr(estimator, "chunks", None) or "auto")


def trained_texts(
    responses: Sequence[Response], trained: Sequence[Sequence[bool]]
) -> list[list[str]]:
    """The texts of each response's trained tokens.

    Args:
        responses: the batch's.
        trained: a flag a token of each response; more flags than tokens are padding.
    """
    return [
        row_tokens_to_trained(list(response.token_texts), list(flags))
        for response, flags in zip(responses, trained, strict=True)
    ]


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
