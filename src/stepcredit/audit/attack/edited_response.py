"""Edited responses in the policy's tokens: unchanged steps keep theirs, new text is cut anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import Any

from stepcredit.audit.attack.editable import (
    AddedTexts,
    EditableSteps,
    EditedSteps,
    NotEditable,
)
from stepcredit.errors import RolloutError
from stepcredit.signals.offsets import (
    pieces_of_spans,
    spans_of_pieces,
    spans_of_text,
    word_tokens,
)
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import with_steps

STEP_FIELDS = (
    *("step_ends", "step_scores", "step_states", "token_scores", "signals", "advantages"),
    "token_ids",
)
"""Fields of a row that no longer hold once its text is changed."""


@dataclass(frozen=True)
class Cutter:
    """Cuts new text into tokens like those of the responses.

    Args:
        tokenizer: the policy's; it also gives the token ids.
        vocabulary: texts of tokens, used without a tokenizer: at each place the longest that fits
            is taken, or else one character. Empty: the tokens are words.

    Example:
        >>> Cutter(vocabulary=frozenset({"a", "ab"})).pieces("abac")
        (['ab', 'a', 'c'], None)
        >>> Cutter().pieces("ab ac")
        (['ab ', 'ac'], None)
    """

    tokenizer: Any = None
    vocabulary: frozenset[str] = frozenset()

    def pieces(self, text: str) -> tuple[list[str], list[int] | None]:
        """The text's tokens, and their ids where a tokenizer gives them."""
        if self.tokenizer is not None:
            ids, spans = spans_of_text(text, self.tokenizer)
            return pieces_of_spans(text, spans), list(ids)
        if not self.vocabulary:
            return word_tokens(text), None
        longest, found, place = max(map(len, self.vocabulary)), list[str](), 0
        while place < len(text):
            ends = range(min(len(text), place + longest), place, -1)
            end = next((e for e in ends if text[place:e] in self.vocabulary), place + 1)
            found.append(text[place:end])
            place = end
        return found, None


def cutter_for(rows: Iterable[Mapping[str, Any]], tokenizer: Any) -> Cutter:
    """The cutter for rows of a file, by the tokenizer, or by the tokens that the rows had.

    Args:
        rows: as the file has them, before tokens are made of their texts.
        tokenizer: the policy's, or None.

    Example:
        >>> cutter_for([{"tokens": ["a", "b"]}, {"text": "c"}], None).vocabulary == {"a", "b"}
        True
    """
    if tokenizer is not None:
        return Cutter(tokenizer)
    tokens = (row["tokens"] for row in rows if row.get("tokens"))
    return Cutter(vocabulary=frozenset(chain.from_iterable(tokens)) - {""})


def token_ranges(response: Response) -> list[tuple[int, int]]:
    """First token of each step, and the one behind its last.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> token_ranges(Newline().split(Response.of_text("?", "a b\\nc")))
        [(0, 2), (2, 3)]
    """
    return list(pairwise([0, *(end + 1 for end in response.step_ends)]))


def editable(
    responses: Sequence[Response],
    at: int,
    *,
    limit: int = 0,
    right: Sequence[bool | None] = (),
    texts: AddedTexts | None = None,
    seed: int = 0,
) -> EditableSteps:
    """One response of a group, as edits see it.

    Args:
        responses: all responses of the group, split into steps.
        at: which of them.
        limit, right, texts, seed: as of `EditableSteps`.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> group = Newline()([Response.of_text("?", text) for text in ("a\\nb", "c\\nd")])
        >>> found = editable(group, 0)
        >>> found.steps, found.others
        (('a\\n', 'b'), (('c\\n', 'd'),))
    """
    response = responses[at]
    own = response.own or (True,) * response.num_tokens
    return EditableSteps(
        steps=_step_texts(response),
        question=response.prompt,
        others=tuple(_step_texts(r) for place, r in enumerate(responses) if place != at),
        own=tuple(any(own[start:stop]) for start, stop in token_ranges(response)),
        right=tuple(right),
        limit=limit,
        texts=texts or AddedTexts(),
        seed=seed,
    )


def edited_response(
    original: Response, edited: EditedSteps, cutter: Cutter, edit: str
) -> Response | NotEditable:
    """The response after an edit.

    Args:
        original: split into steps.
        edited: its steps after the edit.
        cutter: makes tokens of new text.
        edit: name of the edit, for the response's name.

    Returns:
        A response whose unchanged steps have the tokens that they had; `NotEditable` where its
        tokens can't be cut into these steps.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> original = Newline().split(Response.of_text("?", "a b\\nc"))
        >>> steps = EditedSteps(("new\\n", "a b\\n", "c"), (None, 0, 1), 0)
        >>> edited_response(original, steps, Cutter(), "x").token_texts
        ['new\\n', 'a ', 'b\\n', 'c']
    """
    known = _tokens_of_steps(original)
    parts = [
        _new_tokens(text, cutter) if source is None else known[source]
        for text, source in zip(edited.steps, edited.sources, strict=True)
    ]
    pieces = [piece for part in parts for piece in part.pieces]
    ids = [id for part in parts for id in part.ids or ()]
    text, ends = "".join(pieces), tuple(accumulate(len(part.pieces) for part in parts))
    steps = tuple(accumulate(len("".join(part.pieces)) for part in parts))
    response = replace(
        original,
        text=text,
        spans=spans_of_pieces(pieces),
        steps=None,
        ends=None,
        name=f"{original.name} ({edit})",
        token_ids=tuple(ids) if len(ids) == len(pieces) else None,
        own=None if original.own is None else tuple(o for part in parts for o in part.own),
        facts=_facts(original, text, pieces),
    )
    last_tokens = tuple(end - 1 for end in ends)
    if original.ends is not None:
        return replace(response, steps=steps, ends=last_tokens)
    return _split_there(response, steps, last_tokens)


@dataclass(frozen=True)
class _StepTokens:
    """Tokens of one step."""

    pieces: list[str]
    ids: list[int] | None
    own: list[bool]


def _new_tokens(text: str, cutter: Cutter) -> _StepTokens:
    """The tokens of new text, which the policy wrote."""
    pieces, ids = cutter.pieces(text)
    return _StepTokens(pieces, ids, [True] * len(pieces))


def _tokens_of_steps(response: Response) -> list[_StepTokens]:
    """The tokens that each step has."""
    texts, ids = response.token_texts, response.token_ids
    own = response.own or (True,) * response.num_tokens
    return [
        _StepTokens(
            texts[start:stop],
            None if ids is None else list(ids[start:stop]),
            list(own[start:stop]),
        )
        for start, stop in token_ranges(response)
    ]


def _step_texts(response: Response) -> tuple[str, ...]:
    """Texts of the steps, cut where tokens end."""
    texts = response.token_texts
    return tuple("".join(texts[start:stop]) for start, stop in token_ranges(response))


def _facts(original: Response, text: str, pieces: list[str]) -> dict[str, Any]:
    """What is known of the original, without what the edit made untrue."""
    kept = {name: value for name, value in original.facts.items() if name not in STEP_FIELDS}
    return kept | {"text": text, "tokens": pieces}


def _split_there(
    response: Response, steps: tuple[int, ...], ends: tuple[int, ...]
) -> Response | NotEditable:
    try:
        split = with_steps(response, steps[:-1])
    except RolloutError:
        split = response
    if split.steps is None or tuple(split.step_ends) != ends:
        return NotEditable("its tokens can't be cut into the edited steps")
    return replace(split, ends=ends)
