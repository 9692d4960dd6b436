"""The input of a reward model for one response, and the positions at which its steps are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from stepcredit.errors import SignalError
from stepcredit.signals.chat import apply_chat_template
from stepcredit.signals.responses import Response
from stepcredit.signals.unscorable import CUT, Unscorable


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One response as a model reads it.

    Args:
        ids: the model's own tokens, prompt included.
        positions: for each step, the index in `ids` at which its score is read.

    Example:
        >>> ModelInput(ids=[5, 9, 1, 7, 1], positions=[2, 4]).positions
        [2, 4]
    """

    ids: list[int]
    positions: list[int]


def within_limit(
    response: Response, model_input: ModelInput, limit: int | None, what: str, policy: str
) -> ModelInput:
    """The input, if it is no longer than a limit; else what `policy` makes of it.

    A model that reads from left to right gives the steps before the limit the same scores whether
    or not the rest follows.

    Args:
        response: whose input it is, for errors.
        model_input: as the protocol makes it.
        limit: the most tokens; None: any number.
        what: what has the limit, for errors.
        policy: "cut" takes the first tokens; otherwise a longer input is an error.

    Raises:
        Unscorable: the input is longer, and is not to be cut or has no step within the limit.
    """
    length = len(model_input.ids)
    if limit is None or length <= limit:
        return model_input
    kept = [position for position in model_input.positions if position < limit]
    if policy != CUT or not kept:
        reason = f"is {length} tokens with its prompt, but {what} is {limit}"
        raise Unscorable(reason, field="text", place=response.name)
    return ModelInput(model_input.ids[:limit], kept)


def single_token(protocol: str, tokenizer: Any, text: str) -> int:
    """The id of a text that must be one token.

    Raises:
        SignalError: the tokenizer has no such token; it names the protocol and the text.
    """
    ids = token_ids(tokenizer, text)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise SignalError(f"{protocol} needs {text!r} to be one token, but the tokenizer has none")
    return ids[0]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's token ids, without special tokens."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, verbose=False)
    return ids


def render(protocol: str, tokenizer: Any, turns: list[dict[str, str]]) -> str:
    """A conversation in the tokenizer's chat template, without a prompt for another turn.

    Raises:
        SignalError: the tokenizer has no chat template, or one that refuses such turns.
    """
    if not tokenizer.chat_template:
        raise SignalError(f"{protocol} needs a chat template, but the tokenizer has none")
    try:
        return str(apply_chat_template(tokenizer, turns, tokenize=False))
    except SignalError as error:
        raise error.at(place=protocol) from error.__cause__


def lines(steps: Iterable[str]) -> list[str]:
    """Steps without the line ends after them; an indentation belongs to the step after it.

    Example:
        >>> lines(["a: \\n\\n  ", "- b", "\\n"])
        ['a: ', '  - b', '']
    """
    found, indentation = [], ""
    for step in steps:
        step = indentation + step
        written = step.rstrip()
        kept, newline, _ = step[len(written) :].partition("\n")
        found.append(written + kept)
        indentation = step.rpartition("\n")[2] if newline else ""
    return found


def put_tags(steps: Iterable[str], tag: str, joint: str = "") -> tuple[str, list[int]]:
    """The steps with a tag after each, and the index of each tag's first character.

    Example:
        >>> put_tags(["a", "b"], "<t>", joint=" ")
        ('a<t> b<t>', [1, 6])
    """
    text, starts = "", []
    for index, step in enumerate(steps):
        text += (joint if index else "") + step
        starts.append(len(text))
        text += tag
    return text, starts


def read_at_tags(
    protocol: str, tokenizer: Any, text: str, starts: Sequence[int], tag: int, *, special: bool
) -> ModelInput:
    """A text's tokens, read at tags whose first characters are known.

    Tags are read only at the places where they were inserted, so a tag that the response itself
    contains does no harm.

    Args:
        protocol: the protocol's name, for errors.
        tokenizer: a fast one.
        text: the whole input.
        starts: index of each tag's first character.
        tag: the token that must be there.
        special: whether the tokenizer adds its special tokens.

    Raises:
        SignalError: the tokenizer merges a tag with its neighbours, or keeps no offsets.
    """
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise SignalError(f"{protocol} needs a fast tokenizer: {kind} keeps no offsets")
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    ids = found["input_ids"]
    ends = list(accumulate((end for _, end in found["offset_mapping"]), max))
    positions = [bisect_right(ends, start) for start in starts]
    for start, position in zip(starts, positions, strict=True):
        if ids[position] != tag:
            around = text[max(0, start - 8) : start + 8]
            reason = f"{protocol}: the tokenizer merges the tag with its neighbours in {around!r}"
            raise SignalError(reason)
    return ModelInput(ids, positions)


def read_apart(
    tokenizer: Any, before: Iterable[int], steps: Iterable[str], separator: Sequence[int]
) -> ModelInput:
    """Tokenize each step separately, with a separator after it, and read it at the last token."""
    ids, positions = list(before), []
    for step in steps:
        ids += [*token_ids(tokenizer, step), *separator]
        positions.append(len(ids) - 1)
    return ModelInput(ids, positions)
