"""The token ids of a logged prompt, where the policy's tokenizer shows what they were."""

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
