"""Samples completions without changing the global random state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from stepcredit.keys import keyed_seed
from stepcredit.lab.arithmetic import MAX_NEW_TOKENS
from stepcredit.signals.models.causal import eval_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    samples_per_prompt: int = 1,
    seed: int = 0,
    purpose: str = "sample",
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[list[int]]:
    """Sample completions at temperature 1 from the whole vocabulary.

    Args:
        model: the policy; its mode (train or eval) does not change.
        tokenizer: the task's tokenizer, with padding on the left.
        prompts: texts.
        samples_per_prompt: completions per prompt, > 0.
        seed, purpose: key of the random draws. The global generators do not change.
        max_new_tokens: most tokens of a completion.

    Returns:
        Token ids of each completion, prompt by prompt, with the end-of-sequence token and without
        padding.

    Example:
        >>> from stepcredit.lab.arithmetic import build_tokenizer
        >>> from stepcredit.lab.model import build_model
        >>> tokenizer = build_tokenizer()
        >>> len(sample(build_model(tokenizer), tokenizer, ["3+4*2="], samples_per_prompt=2))
        2
    """
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True).to(model.device)
    with torch.random.fork_rng(), eval_mode(model):
        torch.manual_seed(keyed_seed(seed, purpose))
        generate: Callable[..., torch.Tensor] = model.generate  # type: ignore[assignment]
        sequences = generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=samples_per_prompt,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    completions = sequences[:, batch["input_ids"].shape[1] :].tolist()
    return [_until_end(ids, tokenizer.eos_token_id) for ids in completions]


def _until_end(ids: list[int], eos: int) -> list[int]:
    """The ids up to and including the first end-of-sequence token."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids
