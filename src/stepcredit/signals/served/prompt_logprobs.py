"""Requests for a prompt's log-probs to vLLM and SGLang, and the readers of their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from stepcredit._moved import renamed
from stepcredit.signals.served.answers import items, log_probability, member
from stepcredit.signals.served.failures import Fault

TokenLogprob = tuple[float, str | None]
"""A token's log-prob, and its text as the server decodes it (None if the server gives no text)."""
PromptRequest = tuple[dict[str, Any], Callable[[Any], list[TokenLogprob]]]


def vllm(model: str, prompt: Sequence[int], tokens: Sequence[int]) -> PromptRequest:
    """Body and reader for `/v1/completions`.

    Entry i of `prompt_logprobs` belongs to token i given those before it; entry 0 is null.
    """
    ids = [*prompt, *tokens]
    body = {
        "model": model,
        "prompt": ids,
        "max_tokens": 1,
        "temperature": 1.0,
        "prompt_logprobs": 0,
        "add_special_tokens": False,
    }

    def read(answer: Any) -> list[TokenLogprob]:
        path = ("choices", 0, "prompt_logprobs")
        entries = items(answer, *path, expected=len(ids), of="prompt log-probs")
        if entries[0] is not None:
            raise Fault("the first of the prompt log-probs is not null: they are shifted")
        return [_vllm_token(entries[len(prompt) + i], i, id) for i, id in enumerate(tokens)]

    return body, read


def _vllm_token(entry: Any, index: int, id: int) -> TokenLogprob:
    if not isinstance(entry, dict) or str(id) not in entry:
        raise Fault(f"the answer has no entry for token {index} ({id})")
    logprob = member(entry, str(id), "logprob")
    text = entry[str(id)].get("decoded_token")
    return log_probability(logprob, f"the log-prob of token {index}"), _text(text)


def sglang(prompt: Sequence[int], tokens: Sequence[int]) -> PromptRequest:
    """Body and reader for `/generate`.

    Entry i of `input_token_logprobs` is (log-prob, id, text) of token i; the first log-prob is
    null.
    """
    ids = [*prompt, *tokens]
    body = {
        "input_ids": ids,
        "sampling_params": {"max_new_tokens": 0, "temperature": 1.0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "return_text_in_logprobs": True,
    }

    def read(answer: Any) -> list[TokenLogprob]:
        path = ("meta_info", "input_token_logprobs")
        entries = items(answer, *path, expected=len(ids), of="prompt log-probs")
        if member(entries, 0, 0) is not None:
            raise Fault("the first of the prompt log-probs is not null: they are shifted")
        return [_sglang_token(entries[len(prompt) + i], i, id) for i, id in enumerate(tokens)]

    return body, read


def _sglang_token(entry: Any, index: int, id: int) -> TokenLogprob:
    found = member(entry, 1)
    if type(found) is not int or found != id:
        raise Fault(f"the answer has {{}} where token {index} is {id}", repr(found))
    text = entry[2] if len(entry) > 2 else None
    return log_probability(entry[0], f"the log-prob of token {index}"), _text(text)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise Fault("a token's text is {}, expected a string", repr(value))


__getattr__ = partial(renamed, __name__)
