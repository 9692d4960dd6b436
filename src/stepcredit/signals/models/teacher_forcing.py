"""`LocalLogProbs`: what a language model thinks of the tokens a policy wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stepcredit.errors import SettingError
from stepcredit.settings.fields import check_fields, choice, declare, number, text, whole
from stepcredit.signals.facts import policy_ids
from stepcredit.signals.models.batching import length_batches
from stepcredit.signals.models.causal import CausalLM, is_model, load_causal, padded_ids
from stepcredit.signals.models.checkpoints import (
    DTYPES,
    fingerprint_in_use,
    label_of,
    note_fingerprint,
)
from stepcredit.signals.models.vocabulary import Vocabulary, check_vocabulary
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Scored, Signal
from stepcredit.signals.signal_registry import register_signal


@register_signal("logprobs")
@dataclass(frozen=True)
class LocalLogProbs(Signal):
    """A language model's log-prob of each token of a response, given the policy's own prompt.

        score_t = log softmax(logits_t / temperature)[token_t]

    The model is given the policy's token ids, so it must have the policy's vocabulary. A teacher's
    log-probs in the rows (`teacher_logprobs`) are what `sc.OPD` and `Distillation` read.

    Args:
        model: a folder or name, or a loaded causal language model of transformers.
        tokenizer: its own; None takes the one beside the model. Only its vocabulary is used.
        temperature: divides the logits, > 0.
        max_tokens_per_batch: bound of a forward's padded tokens; a longer response goes alone.
        device: "auto" is the accelerator where there is one.
        dtype: auto (the checkpoint's), float32, bfloat16 or float16.
        policy: the policy's tokenizer, a folder or loaded; None: its vocabulary is not checked.

    Raises:
        RolloutError: a response without the policy's ids, over the model's context, or with an id
            the model does not have.
        SignalError: the model cannot be loaded, or has another vocabulary than the policy.
        MissingExtra: transformers is not installed.

    Example:
        >>> LocalLogProbs("models/teacher", temperature=0.7).temperature
        0.7

    Source: ours.
    """

    model: Any = declare(None, is_model, "the language model")
    tokenizer: Any = declare(None, lambda value: None, "its tokenizer, if it is elsewhere")
    temperature: float = number(1.0, "divides the logits", above=0)
    max_tokens_per_batch: int = whole(16384, "bound of a forward's tokens", at_least=1)
    device: str = text("auto", "where the model runs")
    dtype: str = choice("auto", DTYPES, "precision of the weights")
    policy: Any = declare(None, lambda value: None, "the policy's tokenizer, to check against")

    grain = "tokens"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def identity(self) -> dict[str, Any]:
        """The model's digest, temperature and precision."""
        return {
            "signal": self.name,
            "model": fingerprint_in_use(self),
            "temperature": self.temperature,
            "dtype": self.dtype,
        }

    @cached_property
    def causal(self) -> CausalLM:
        """The model, loaded at first use."""
        note_fingerprint(self)
        return load_causal(self.model, self.tokenizer, device=self.device, dtype=self.dtype)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokens by id; the model itself is not loaded for it.

        Raises:
            SignalError: there is no tokenizer beside the model.
            SettingError: a loaded model came without one.
        """
        beside = isinstance(self.model, str | Path)
        if self.tokenizer is None and not beside:
            raise SettingError("a model that is loaded already needs it", field="tokenizer")
        source = self.model if self.tokenizer is None else self.tokenizer
        return Vocabulary.of(source, name=label_of(self.model))

    def stream(self, responses: Sequence[Response]) -> Iterator[Scored]:
        """Batch by batch, the longest responses first."""
        if self.policy is not None:
            check_vocabulary(Vocabulary.of(self.policy), self.vocabulary)
        pairs = [policy_ids(response) for response in responses]
        for response, (prompt, own) in zip(responses, pairs, strict=True):
            self.causal.check(response, prompt + own, len(prompt) + len(own))
        lengths = [len(prompt) + len(own) for prompt, own in pairs]
        for batch in length_batches(lengths, self.max_tokens_per_batch):
            yield from zip(batch, self._batch([pairs[index] for index in batch]), strict=True)

    def _batch(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[list[float]]:
        """One forward; each response token is read one place before its own."""
        device = self.causal.model.device
        inputs = padded_ids([prompt + own for prompt, own in pairs], device)
        places = [
            (row, len(prompt) - 1 + place, token)
            for row, (prompt, own) in enumerate(pairs)
            for place, token in enumerate(own)
        ]
        rows, columns, targets = torch.tensor(places, device=device).unbind(1)
        found = self.causal.log_probs(inputs, rows, columns, targets, self.temperature)
        return [part.tolist() for part in found.split([len(own) for _, own in pairs])]
