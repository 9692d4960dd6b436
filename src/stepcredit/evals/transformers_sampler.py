"""Samples from a local model of transformers: in batches of similar length, a seed per sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.evals.sampler import (
    Drawn,
    EvalSample,
    Sampler,
    SampleRequest,
    SamplingSettings,
    prompt_tokens,
    sample_of_ids,
)
from stepcredit.signals.models.batching import length_batches
from stepcredit.signals.models.causal import CausalLM, load_causal
from stepcredit.signals.models.checkpoints import fingerprint, model_label
from stepcredit.signals.models.keyed_sampling import complete

TOKENS_PER_BATCH = 65_536


class TransformersSampler(Sampler):
    """A causal language model in this process.

    A sample does not depend on which others are in its batch, but for the rounding of the model.

    Args:
        model: a folder or a name on the Hub, or a loaded model.
        settings: how samples are drawn.
        tokenizer: the same for its tokenizer; None: the one beside the model.
        device, dtype: as in `load_causal`.
        tokens_per_batch: most tokens of a batch, tokens still to be drawn included.
    """

    def __init__(
        self,
        model: Any,
        settings: SamplingSettings,
        *,
        tokenizer: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        tokens_per_batch: int = TOKENS_PER_BATCH,
    ) -> None:
        super().__init__(settings)
        self.model, self.tokenizer = model, tokenizer
        self.placement = {"device": device, "dtype": dtype}
        self.tokens_per_batch = tokens_per_batch

    @cached_property
    def causal(self) -> CausalLM:
        """The model, loaded when the first sample is drawn.

        Raises:
            SignalError: it can't be loaded.
        """
        return load_causal(self.model, self.tokenizer, **self.placement)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The model's name, its weights' fingerprint, and whether the chat template is used."""
        return {
            "backend": "transformers",
            "model": model_label(self.model),
            "weights": fingerprint(self.model)[:16],
            "chat": self.settings.chat,
        }

    def draw(self, requests: Sequence[SampleRequest]) -> Iterator[Drawn]:
        """Samples batch by batch, the longest prompts first."""
        tokenizer, chat = self.causal.tokenizer, self.settings.chat
        prompts = [prompt_tokens(tokenizer, request, chat) for request in requests]
        lengths = [len(ids) + self.settings.max_tokens for ids in prompts]
        check_context(requests, lengths, self.causal.context)
        for batch in length_batches(lengths, self.tokens_per_batch):
            own = [requests[index] for index in batch]
            yield list(zip(batch, self._batch(own, [prompts[i] for i in batch]), strict=True))

    def _batch(
        self, requests: Sequence[SampleRequest], prompts: Sequence[list[int]]
    ) -> list[EvalSample]:
        settings, tokenizer = self.settings, self.causal.tokenizer
        found = complete(
            self.causal,
            prompts,
            [request.draw_seed(settings.seed) for request in requests],
            max_new_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens_per_batch=self.tokens_per_batch,
            keep_end=True,
        )
        ends = self.causal.text_ends
        return [
            sample_of_ids(ids, tokenizer, "stop" if ids[-1] in ends else "length", prompt)
            for ids, prompt in zip(found, prompts, strict=True)
        ]


def check_context(
    requests: Sequence[SampleRequest], lengths: Sequence[int], context: int | None
) -> None:
    """Refuse prompts that leave too little room in the model's context.

    Args:
        requests: for the error.
        lengths: positions that each needs, its response included.
        context: positions that the model has; None: unknown.

    Raises:
        SettingError: names the first.
    """
    for request, length in zip(requests, lengths, strict=True):
        if context is not None and length > context:
            reason = f"needs {length} positions, over the model's {context}; lower --max-tokens"
            raise SettingError(reason, field=request.name)
