"""Where each token lies in a response's text, and which token a character belongs to.

A span is [start, end) in characters. A token without text of its own (an end-of-text token) has an
empty span; tokens that share one character (the bytes of an emoji) share its span.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from stepcredit.errors import RolloutError

Spans = tuple[tuple[int, int], ...]
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_MARKS = "。！？｡；：，、"
"""Full-width marks, which end a word although no space follows."""
_PIECE = re.compile(
    rf"""\A\s+|[^\s{_MARKS}]*[{_MARKS}]+["'”’」』）》】)\]]*\s*|[^\s{_MARKS}]+\s*|\A\Z"""
)


def word_tokens(text: str) -> list[str]:
    r"""Split a text into words when there is no tokenizer: each word with the space after it.

    Returns:
        Words end with space or with a full-width mark such as `。`; leading space is a separate
        piece, and an empty text gives one empty piece.

    Example:
        >>> word_tokens("2 + 2 = 4.\n\nDone.")
        ['2 ', '+ ', '2 ', '= ', '4.\n\n', 'Done.']
        >>> word_tokens("3+4=7。结束。")
        ['3+4=7。', '结束。']
    """
    return _PIECE.findall(text)


def spans_of_pieces(pieces: Iterable[str]) -> Spans:
    """Spans of token texts that follow one another without a gap.

    Example:
        >>> spans_of_pieces(["2 ", "+ ", "2"])
        ((0, 2), (2, 4), (4, 5))
    """
    return tuple(pairwise(accumulate(map(len, pieces), initial=0)))


def pieces_of_spans(text: str, spans: Spans) -> list[str]:
    """The text cut into one piece per token; joined they are the text.

    Of tokens that share a character, the first has it; what no token has goes to the one behind
    it, and at the end to the last.

    Example:
        >>> pieces_of_spans("a b ", ((0, 1), (2, 3)))
        ['a', ' b ']
    """
    ends = list(accumulate((end for _, end in spans), max))
    return [text[start:end] for start, end in pairwise([0, *ends[:-1], len(text)])] if ends else []


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


def spans_of_ids(ids: Sequence[int], tokenizer: Any, *, sampled: bool = False) -> tuple[str, Spans]:
    """The text that token ids make, special tokens left out, and where each id lies in it.

    The ids are decoded and never encoded again: a policy may write other tokens than its tokenizer
    would make of the same text.

    Args:
        ids: of the response.
        tokenizer: of transformers, a fast one.
        sampled: whether the policy sampled the ids. Its vocabulary may be padded beyond its
            tokenizer's, so an id that the tokenizer lacks then gets no text and is no error.

    Returns:
        The text, and one span per id. Ids of an incomplete character get the text that they decode
        to.

    Raises:
        RolloutError: an id that the tokenizer does not have, or a tokenizer that is not fast.
    """
    if not tokenizer.is_fast:
        reason = f"{type(tokenizer).__name__} can't decode step by step: a fast one is needed"
        raise RolloutError(reason, field="tokenizer")
    backend, special, shown = tokenizer.backend_tokenizer, special_ids(tokenizer), list[int]()
    for index, token in enumerate(ids):
        known = token >= 0 and backend.id_to_token(token) is not None
        if token < 0 or not (known or sampled):
            reason = f"token {index} is {token}, which the tokenizer does not have"
            raise RolloutError(reason, field="token_ids")
        if known and token not in special:
            shown.append(index)
    return _decoded(ids, shown, backend)


def _decoded(ids: Sequence[int], shown: Sequence[int], backend: Any) -> tuple[str, Spans]:
    """The text of the ids at the places shown, and every id's span."""
    from tokenizers.decoders import DecodeStream

    stream, pieces, done = DecodeStream(skip_special_tokens=True), list[str](), 0
    spans, waiting = dict[int, tuple[int, int]](), list[int]()
    for unit in _units(shown, ids, backend):
        waiting += unit
        piece = stream.step(backend, [ids[index] for index in unit])
        if piece is not None:
            pieces.append(piece)
            start, done = done, done + len(piece)
            spans |= dict.fromkeys(waiting, (start, done))
            waiting.clear()
    text = "".join(pieces)
    if waiting:
        text = backend.decode([ids[index] for index in shown], skip_special_tokens=True)
        spans |= dict.fromkeys(waiting, (done, len(text)))
    latest = 0
    for index in range(len(ids)):
        latest = spans.setdefault(index, (latest, latest))[1]
    return text, tuple(spans[index] for index in range(len(ids)))


def _units(shown: Iterable[int], ids: Sequence[int], backend: Any) -> Iterator[list[int]]:
    """Single tokens, but neighbouring tokens that hold parts of a character stand together: such a
    byte can only be decoded with its neighbours."""
    byte_of = {index: _BYTE.fullmatch(backend.id_to_token(ids[index])) for index in shown}
    for is_byte, run in groupby(byte_of, key=lambda index: byte_of[index] is not None):
        indices = list(run)
        bytes_ = "".join(found[1] for index in indices if (found := byte_of[index]))
        if is_byte and not _is_text(bytes.fromhex(bytes_)):
            yield indices
        else:
            yield from ([index] for index in indices)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that have no text in a response: end of text, turn markers."""
    added = tokenizer.added_tokens_decoder.items()
    return {*tokenizer.all_special_ids, *(id for id, token in added if token.special)}


def last_tokens(text: str, spans: Spans, ends: Sequence[int]) -> list[int]:
    """Index of the last token of each step.

    A token belongs to the step of its first character that is not space; one of space alone to the
    step it starts in; one without text to the step before it.

    Args:
        text: the response.
        spans: one per token, in order.
        ends: character where each step ends, increasing; the last is the text's length.

    Returns:
        One index per step; the last is the last token.
    """
    keys = list(accumulate((_key(text, *span) for span in spans), max))
    return [*(bisect_left(keys, end) - 1 for end in ends[:-1]), len(spans) - 1]


def _key(text: str, start: int, end: int) -> int:
    piece = text[start:end]
    if not piece:
        return start - 1
    space = len(piece) - len(piece.lstrip())
    return start if space == len(piece) else start + space


def word_spans(text: str) -> Spans:
    """The spans of the words of a text, then one word after its end."""
    words = (match.span() for match in re.finditer(r"\S+", text))
    return (*words, (len(text), len(text) + 1))


def gap_at(words: Spans, index: int) -> tuple[int, int]:
    """The space around an index: where the text before it ends, and where the text after it begins.

    Example:
        >>> words = word_spans("ab  cd ")
        >>> gap_at(words, 3), gap_at(words, 5), gap_at(words, 6)
        ((2, 4), (5, 5), (6, 7))
    """
    after = bisect_right(words, index, key=_end)
    if words[after][0] < index:
        return index, index
    return (words[after - 1][1] if after else 0), words[after][0]


def straddling(spans: Spans, before: int, after: int) -> int | None:
    """The token that holds characters on both sides of a gap."""
    index = bisect_left(spans, before, key=_end)
    while index < len(spans) and spans[index][0] < before:
        if spans[index][1] > after:
            return index
        index += 1
    return None


def _end(span: tuple[int, int]) -> int:
    return span[1]
