"""The tokens that a language model reads up to the end of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import RolloutError, SignalError
from stepcredit.settings.fields import choice
from stepcredit.signals.chat import chat_prompt_ids
from stepcredit.signals.facts import policy_ids
from stepcredit.signals.offsets import last_tokens, spans_of_text, special_ids
from stepcredit.signals.responses import Response


def reads_field() -> Any:
    """The field that says which tokens a model reads."""
    about = "ids: the policy's tokens; text: the model's own tokens, with the prompt as a chat turn"
    return choice("ids", ("ids", "text"), about)


@dataclass(frozen=True)
class Trunk:
    """A prompt and its response as one model reads them.

    Args:
        ids: the prompt's and the response's tokens, end-of-text tokens left out.
        cuts: number of ids before the first step, then up to the end of each step.
    """

    ids: tuple[int, ...]
    cuts: tuple[int, ...]

    @property
    def prefixes(self) -> list[tuple[int, ...]]:
        """The ids before the first step, then those up to the end of each step."""
        return [self.ids[:cut] for cut in self.cuts]


def trunk_of(response: Response, tokenizer: Any, reads: str) -> Trunk:
    """The tokens that a model reads, and where the steps end in them.

    Args:
        response: split into steps.
        tokenizer: the model's, a fast one.
        reads: "ids" takes the policy's tokens; "text" takes the tokenizer's own tokens of prompt
            and response, with the prompt as a user's turn if there is a chat template.

    Raises:
        RolloutError: the ids are needed and missing, or the prompt is empty.
    """
    if reads == "ids":
        prompt, own = policy_ids(response)
        ends = response.step_ends
    else:
        prompt = _prompt(response, tokenizer)
        own, spans = spans_of_text(response.text, tokenizer)
        ends = last_tokens(response.text, spans, response.steps or ())
    size = len(prompt) + _without_end(own, special_ids(tokenizer))
    cuts = [min(len(prompt) + end + 1, size) for end in ends]
    return Trunk((*prompt, *own)[:size], (len(prompt), *cuts))


def content_of(response: Response, reads: str) -> list[Any]:
    """The parts of a response that its trunk depends on, as JSON."""
    if reads == "ids":
        return [response.prompt_ids, response.token_ids, response.step_ends]
    return [response.prompt, response.step_texts]


def _prompt(response: Response, tokenizer: Any) -> tuple[int, ...]:
    if not response.prompt:
        raise RolloutError("is empty: nothing to respond to", field="prompt", place=response.name)
    if tokenizer.chat_template is None:
        return tuple(tokenizer(response.prompt)["input_ids"])
    try:
        return chat_prompt_ids(tokenizer, response.prompt)
    except SignalError as error:
        raise error.at(place=response.name, field="prompt") from error.__cause__


def _without_end(ids: Sequence[int], special: set[int]) -> int:
    """The number of ids before the special ones at the end."""
    size = len(ids)
    while size and ids[size - 1] in special:
        size -= 1
    return size
