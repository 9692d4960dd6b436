"""Where each token lies in a response's text, and which token a character belongs to.

A span is [start, end) in characters. A token without text of its own (an end-of-text token) has an
empty span; tokens that share one character (the bytes of an emoji) share its span.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from stepcredit.errors import RolloutError

Spans = tuple[tuple[int, int], ...]
_PIECE = re.compile(r"\A\s+|\S+\s*|\A\Z")


def pieces_of(text: str) -> list[str]:
    r"""Tokens for people, where there is no tokenizer: a word and the space after it.

    Returns:
        Matches of `\S+\s*`; leading space is a piece of its own, and an empty text one empty piece.

    Example:
        >>> pieces_of("2 + 2 = 4.\n\nDone.")
        ['2 ', '+ ', '2 ', '= ', '4.\n\n', 'Done.']
    """
    return _PIECE.findall(text)


def spans_of_pieces(pieces: Iterable[str]) -> Spans:
    """Spans of token texts that follow one another without a gap.

    Example:
        >>> spans_of_pieces(["2 ", "+ ", "2"])
        ((0, 2), (2, 4), (4, 5))
    """
    return tuple(pairwise(accumulate(map(len, pieces), initial=0)))


def spans_of_text(text: str, tokenizer: Any) -> tuple[tuple[int, ...], Spans]:
    """A text's token ids and spans, special tokens left out.

    Args:
        text: a response.
        tokenizer: of transformers, a fast one.

    Raises:
        RolloutError: the tokenizer keeps no offsets.
    """
    if not tokenizer.is_fast:
        reason = f"{type(tokenizer).__name__} keeps no character offsets: a fast one is needed"
        raise RolloutError(reason, field="tokenizer")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return tuple(found["input_ids"]), tuple(map(tuple, found["offset_mapping"]))


def spans_of_ids(ids: Sequence[int], tokenizer: Any) -> tuple[str, Spans]:
    """The text that token ids make, special tokens left out, and where each id lies in it.

    The ids are decoded as they are, never encoded anew: a policy need not write the tokens that
    its tokenizer would.

    Args:
        ids: of the response.
        tokenizer: of transformers, a fast one.

    Returns:
        The text, and one span an id. Ids of an unfinished character get what it decodes to.

    Raises:
        RolloutError: an id the tokenizer does not have, or a tokenizer that is not a fast one.
    """
    if not tokenizer.is_fast:
        reason = f"{type(tokenizer).__name__} can't decode step by step: a fast one is needed"
        raise RolloutError(reason, field="tokenizer")
    for index, token in enumerate(ids):
        if not 0 <= token < len(tokenizer):
            reason = f"token {index} is {token}, the tokenizer has {len(tokenizer)}"
            raise RolloutError(reason, field="token_ids")
    return _decoded(ids, tokenizer)


def _decoded(ids: Sequence[int], tokenizer: Any) -> tuple[str, Spans]:
    from tokenizers.decoders import DecodeStream

    backend, special = tokenizer.backend_tokenizer, special_ids(tokenizer)
    stream, text = DecodeStream(skip_special_tokens=True), ""
    spans: list[tuple[int, int]] = []
    waiting: list[int] = []
    for index, token in enumerate(ids):
        spans.append((len(text), len(text)))
        if token in special:
            continue
        waiting.append(index)
        piece = stream.step(backend, token)
        if piece is not None:
            text = _laid(spans, waiting, text, text + piece)
    if waiting:
        text = _laid(spans, waiting, text, backend.decode(list(ids), skip_special_tokens=True))
    return text, tuple(spans)


def _laid(spans: list[tuple[int, int]], waiting: list[int], before: str, after: str) -> str:
    """Give the tokens that waited for a whole character the text it made; they wait no more."""
    for index in waiting:
        spans[index] = len(before), len(after)
    waiting.clear()
    return after


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that have no text in a response: end of text, turn markers."""
    added = tokenizer.added_tokens_decoder.items()
    return {*tokenizer.all_special_ids, *(id for id, token in added if token.special)}


def last_tokens(text: str, spans: Spans, ends: Sequence[int]) -> list[int]:
    """Index of the last token of each step.

    A token belongs to the step of its first character that is not space; one of space alone, or
    without text, to the step before it.

    Args:
        text: the response.
        spans: one a token, in order.
        ends: character where each step ends, increasing; the last is the text's length.

    Returns:
        One index a step; the last is the last token.
    """
    keys = list(accumulate((_key(text, *span) for span in spans), max))
    inner = [bisect_left(keys, _next_character(text, end)) - 1 for end in ends[:-1]]
    return [*inner, len(spans) - 1]


def straddling(text: str, spans: Spans, end: int) -> int | None:
    """The token that holds characters, other than space, both before and after a step's end."""
    before, after = len(text[:end].rstrip()), _next_character(text, end)
    index = bisect_left(spans, before, key=lambda span: span[1])
    while index < len(spans) and spans[index][0] < before:
        if spans[index][1] > after:
            return index
        index += 1
    return None


def _key(text: str, start: int, end: int) -> int:
    piece = text[start:end]
    space = len(piece) - len(piece.lstrip())
    return start if space == len(piece) else start + space


def _next_character(text: str, index: int) -> int:
    return len(text) - len(text[index:].lstrip())
