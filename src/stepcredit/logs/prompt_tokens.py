"""What the policy's tokenizer shows of a logged prompt: its question and its token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcredit.errors import SignalError
from stepcredit.logs.chat_marks import USERS, family_of
from stepcredit.signals.chat import apply_chat_template


def prompt_token_ids(prompt: Any, tokenizer: Any) -> list[int] | None:
    """The ids of a prompt that the policy saw in its chat template.

    Args:
        prompt: a text, with the template's marks or what is left of them without special tokens;
            or messages.
        tokenizer: the policy's, of transformers.

    Returns:
        None where they can't be told: there is no chat template, or it makes another text of the
        same turns.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    if not isinstance(prompt, str):
        return _templated(prompt, tokenizer)
    family = family_of(prompt)
    if family is None:
        return None
    if not family.stripped:
        return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    turns = family.turns(prompt)[:-1]
    made = [{"role": _role(turn.role), "content": turn.text.strip()} for turn in turns]
    ids = _templated(made, tokenizer)
    if ids is None or tokenizer.decode(ids, skip_special_tokens=True) != prompt:
        return None
    return ids


def question_by_template(prompt: str, tokenizer: Any) -> str | None:
    """The question of a prompt in the tokenizer's chat template, whose marks may not be known.

    Args:
        prompt: a text, with the template's special tokens or without.
        tokenizer: the policy's, of transformers.

    Returns:
        The text behind the last head of a user's turn; None where the prompt is in another form.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    user, system = "\u2042asked\u2042", "\u2042told\u2042"
    turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    shown = [_shown(each, tokenizer) for each in (turns, turns[1:])]
    for texts in zip(*filter(None, shown), strict=True):
        heads = [text.partition(user)[0].rpartition(system)[2] for text in texts]
        closing = texts[-1].partition(user)[2]
        body = prompt.removesuffix(closing)
        for head in filter(str.strip, heads):
            if closing.strip() and body != prompt and head in body:
                return body.rpartition(head)[2].strip()
    return None


def _shown(messages: Sequence[Any], tokenizer: Any) -> tuple[str, str] | None:
    """Messages in the template, with special tokens and without; None where it refuses them."""
    try:
        text = apply_chat_template(
            tokenizer, list(messages), tokenize=False, add_generation_prompt=True
        )
    except SignalError:
        return None
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text, tokenizer.decode(ids, skip_special_tokens=True)


def _role(role: str) -> str:
    if role in USERS:
        return "user"
    return role if role in ("system", "tool") else "assistant"


def _templated(messages: Sequence[Any], tokenizer: Any) -> list[int] | None:
    try:
        options = {"add_generation_prompt": True, "return_dict": True}
        return list(apply_chat_template(tokenizer, list(messages), **options)["input_ids"])
    except SignalError:
        return None
