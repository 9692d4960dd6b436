"""Sample completions of prefixes with a local model, one seed per completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stepcredit.keys import seed_from_text
from stepcredit.signals.models.batching import length_batches, padded_ids
from stepcredit.signals.models.causal import CausalLM, eval_mode
from stepcredit.signals.models.checkpoints import oom_as_signal_error


def draw_seed(seed: int, *content: object) -> int:
    """A 63-bit seed that depends only on `seed` and the content.

    Example:
        >>> draw_seed(0, (1, 2)) == draw_seed(0, (1, 2))
        True
        >>> draw_seed(0, (1, 2)) == draw_seed(1, (1, 2))
        False
    """
    return seed_from_text(repr((seed, *content)))


class KeyedNoise:
    """A logits processor whose argmax is a draw, from each row's own generator.

        token = argmax(logits / temperature + g), g Gumbel noise

    That is a draw from softmax(logits / temperature). The generator belongs to the row, so a
    completion does not depend on which others are in its batch.

    Args:
        seeds: one per row of the batch.
        temperature: > 0.
        top_p: only the most likely tokens, whose probabilities sum to this, are drawn.
        device: device of the logits.
    """

    def __init__(
        self, seeds: Sequence[int], temperature: float, top_p: float, device: torch.device
    ) -> None:
        from transformers import TopPLogitsWarper

        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Perturbed logits, float32."""
        logits = scores.float() / self.temperature
        if self.nucleus is not None:
            logits = self.nucleus(input_ids, logits)
        noise = torch.empty_like(logits)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return logits - noise.log()


def complete(
    causal: CausalLM,
    prefixes: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    max_tokens_per_batch: int,
    keep_end: bool = False,
) -> list[list[int]]:
    """One completion per prefix, up to the end of text or the limit.

    Args:
        causal: the model, with its tokenizer.
        prefixes: token ids.
        seeds: one per prefix; the same prefix with the same seed has the same completion.
        max_new_tokens: the most tokens of a completion.
        temperature, top_p: settings of the draws; at temperature 0 the most likely token is taken.
        max_tokens_per_batch: the most tokens in a batch, tokens still to be sampled included.
        keep_end: whether the token that ends the text belongs to the completion.

    Returns:
        Token ids.
    """
    found: dict[int, list[int]] = {}
    ends = causal.text_ends
    lengths = [len(prefix) + max_new_tokens for prefix in prefixes]
    for batch in length_batches(lengths, max_tokens_per_batch):
        own = [seeds[index] for index in batch]
        noise = KeyedNoise(own, temperature, top_p, causal.model.device) if temperature else None
        rows = _generate(causal, [prefixes[index] for index in batch], noise, max_new_tokens, ends)
        kept = [_until(row, ends, keep_end=keep_end) for row in rows]
        found.update(zip(batch, kept, strict=True))
    return [found[index] for index in range(len(prefixes))]


def _generate(
    causal: CausalLM,
    prefixes: Sequence[Sequence[int]],
    noise: KeyedNoise | None,
    max_new_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:
    from transformers import GenerationConfig, LogitsProcessorList

    width = max(map(len, prefixes))
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=list(ends) or None,
        pad_token_id=ends[0] if ends else 0,
    )
    with oom_as_signal_error(len(prefixes), width + max_new_tokens), eval_mode(causal.model):
        sequences = causal.model.generate(
            **padded_ids(prefixes, causal.model.device, left=True),
            generation_config=config,
            logits_processor=LogitsProcessorList([noise] if noise else []),
        )
    found: list[list[int]] = sequences[:, width:].tolist()
    return found


def _until(ids: list[int], ends: Sequence[int], *, keep_end: bool) -> list[int]:
    """The ids before the first that ends the text, or with it."""
    stops = (index + keep_end for index, token in enumerate(ids) if token in ends)
    return ids[: next(stops, len(ids))]
