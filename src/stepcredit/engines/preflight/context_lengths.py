"""How long prompts are as the policy gets them, and whether prompt and response fit a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepcredit.errors import EngineError
from stepcredit.signals.chat import apply_chat_template


def prompt_ids_of(prompt: str | Sequence[Any], tokenizer: Any, **template: Any) -> list[int]:
    """The tokens of a prompt, in the form in which the policy gets it.

    Args:
        prompt: a text, or the messages of a conversation.
        tokenizer: the policy's.
        template: further arguments of the chat template, such as `enable_thinking`.

    Raises:
        SignalError: the chat template fails on the messages.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    options = {"add_generation_prompt": True, **template, "tokenize": False}
    text = apply_chat_template(tokenizer, list(prompt), **options)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def check_sum(prompt: int, response: int, what: str, limit: int, setting: str) -> str:
    """Refuse lengths whose sum is above a limit.

    Args:
        prompt, response: the most tokens of each.
        what: the thing that has the limit.
        limit: the most tokens of both.
        setting: the setting that is at fault.

    Raises:
        EngineError: names the setting, the sum and the limit.

    Example:
        >>> check_sum(24, 1000, "the model", 1024, "max_completion_length")
        '24 + 1000 of 1024'
    """
    if prompt + response > limit:
        reason = f"{response} tokens after a prompt of {prompt} need {prompt + response}"
        raise EngineError(f"{reason}, {what} has {limit}", field=setting)
    return f"{prompt} + {response} of {limit}"


def has_rope(config: Any) -> bool:
    """Whether positions are rotated (RoPE), so that any length can be computed.

    Args:
        config: of a model's text part.
    """
    return bool(_rope_parameters(config)) or getattr(config, "rope_theta", None) is not None


def context_length(config: Any) -> int | None:
    """The most tokens that a model is made for; None: its config does not say.

        max(max_position_embeddings, factor x original_max_position_embeddings)

    The factor is that of RoPE's scaling, as in YaRN. The original length is
    `max_position_embeddings` itself where the scaling does not name another. Some configs hold the
    scaled length in `max_position_embeddings` already, hence the maximum.

    Args:
        config: of a model's text part.

    Example:
        >>> from types import SimpleNamespace
        >>> yarn = {"rope_type": "yarn", "factor": 4.0}
        >>> context_length(SimpleNamespace(max_position_embeddings=32768, rope_scaling=yarn))
        131072
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    scaled = [
        int(each["factor"] * (each.get("original_max_position_embeddings") or limit))
        for each in _rope_parameters(config)
        if each.get("factor")
    ]
    return max([limit, *scaled])


def _rope_parameters(config: Any) -> list[Mapping[str, Any]]:
    """The parameters of RoPE; several where kinds of layers have their own."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    by_kind = [each for each in found.values() if isinstance(each, Mapping)]
    return by_kind or ([found] if found else [])
