"""`Response`: what a signal scores, and where its steps end in the policy's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.signals.offsets import (
    Spans,
    last_tokens,
    spans_of_ids,
    spans_of_pieces,
    spans_of_text,
    word_tokens,
)


@dataclass(frozen=True, slots=True)
class Response:
    """One response to one prompt, as the policy wrote it.

    Args:
        prompt: the question, as a process reward model reads it.
        text: the response without special tokens.
        spans: [start, end) in characters of `text`, one for each of the policy's tokens; a special
            token's is empty.
        steps: the character where each step ends, increasing, the last the text's length; None
            before it is split.
        name: the name in errors, such as `rollouts.jsonl:17`.
        token_ids: the policy's, one per span, if they are known.
        prompt_ids: the prompt's tokens exactly as the policy saw them, where they are known.
        facts: further data about it: the gold answer, supporting facts, the group.
        own: which tokens the policy wrote, one flag per span; a tool wrote the others. None: all.
        ends: index of each step's last token, where it is known from the tokens and not from the
            text. None: `steps` decides.

    Raises:
        RolloutError: no tokens, or token ids, flags and spans that differ in number.

    Example:
        >>> response = Response.of_text("2+3?", "2 + 3 = 5.\\n\\nSo 5.")
        >>> response.num_tokens, response.steps
        (7, None)
    """

    prompt: str
    text: str
    spans: Spans
    steps: tuple[int, ...] | None = None
    name: str = ""
    token_ids: tuple[int, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    own: tuple[bool, ...] | None = None
    ends: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.spans:
            raise RolloutError("holds no token", field="text", place=self.name)
        if self.token_ids is not None and len(self.token_ids) != len(self.spans):
            reason = f"{len(self.token_ids)} ids, but the text has {len(self.spans)} tokens"
            raise RolloutError(reason, field="token_ids", place=self.name)
        if self.own is not None and len(self.own) != len(self.spans):
            reason = f"{len(self.own)} flags, but the text has {len(self.spans)} tokens"
            raise RolloutError(reason, field="own", place=self.name)

    @classmethod
    def of_text(cls, prompt: str, text: str, tokenizer: Any = None, **rest: Any) -> Response:
        r"""From a text, by the tokenizer; without one, its tokens are the matches of `\S+\s*`.

        Args:
            prompt: the question.
            text: the response.
            tokenizer: of transformers, a fast one.
            rest: further fields.
        """
        if tokenizer is None:
            return cls(prompt, text, spans_of_pieces(word_tokens(text)), **rest)
        ids, spans = spans_of_text(text, tokenizer)
        return cls(prompt, text, spans, token_ids=ids, **rest)

    @classmethod
    def of_ids(cls, prompt: str, ids: Sequence[int], tokenizer: Any, **rest: Any) -> Response:
        """Make a response from the token ids that the policy sampled.

        An id that the tokenizer does not have (in a padded vocabulary) gets no text.

        Args:
            prompt: the question.
            ids: the response's, end of text included.
            tokenizer: the policy's, of transformers, a fast one.
            rest: further fields.
        """
        text, spans = spans_of_ids(ids, tokenizer, sampled=True)
        return cls(prompt, text, spans, token_ids=tuple(ids), **rest)

    @property
    def num_tokens(self) -> int:
        """The policy's tokens in the response, special ones included."""
        return len(self.spans)

    @property
    def token_texts(self) -> list[str]:
        """The tokens' texts; joined they are the text. Of tokens that share a character, the first
        has it."""
        ends = accumulate((end for _, end in self.spans), max, initial=0)
        return [self.text[start:end] for start, end in pairwise(ends)]

    @property
    def is_empty(self) -> bool:
        """Whether the text holds nothing but space."""
        return not self.text or self.text.isspace()

    @property
    def step_texts(self) -> list[str]:
        """The steps' texts; joined they are the text."""
        return [self.text[start:end] for start, end in pairwise((0, *self._split()))]

    @property
    def step_ends(self) -> list[int]:
        """Index of each step's last token, as rollouts count them."""
        steps = self._split()
        return last_tokens(self.text, self.spans, steps) if self.ends is None else list(self.ends)

    @property
    def written_steps(self) -> list[bool]:
        """Which steps hold a token that the policy wrote; a tool wrote the others."""
        own = self.own or (True,) * self.num_tokens
        return [any(own[last + 1 : end + 1]) for last, end in pairwise((-1, *self.step_ends))]

    def _split(self) -> tuple[int, ...]:
        if self.steps is None:
            raise RolloutError("not split into steps", field="steps", place=self.name)
        return self.steps
