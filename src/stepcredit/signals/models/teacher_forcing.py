"""`LocalLogProbs`: a language model's log-prob of each token that the policy wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch

from stepcredit.settings.fields import declare, number
from stepcredit.signals.facts import policy_ids
from stepcredit.signals.models.batching import MAX_PADDING, length_batches, padded_ids
from stepcredit.signals.models.checkpoints import is_tokenizer, model_label
from stepcredit.signals.models.local_model import LocalCausalModel
from stepcredit.signals.models.vocabulary import Vocabulary, check_vocabulary
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores
from stepcredit.signals.signal_registry import register_signal
from stepcredit.signals.unscorable import identity_of_policy, unless_unscorable


@register_signal("logprobs")
@dataclass(frozen=True)
class LocalLogProbs(LocalCausalModel):
    """A language model's log-prob of each token of a response, given the policy's own prompt.

        score_t = log softmax(logits_t / temperature)[token_t]

    The model reads the policy's token ids, so it must have the policy's vocabulary. Written to the
    rows as `teacher_logprobs`, these are the teacher's log-probs that `sc.OPD` and `Distillation`
    read.

    Args:
        model: a folder or name, or a loaded causal language model of transformers.
        tokenizer: the model's own; None takes the one beside the model. Only its vocabulary
            is used.
        temperature: divides the logits, > 0.
        policy: the policy's tokenizer, a folder or loaded; if None, the vocabulary is not checked.
        max_tokens_per_batch, device, dtype, unscorable: as in `RunsModels`.

    Raises:
        RolloutError: a response without the policy's ids, over the model's context, or with an id
            the model does not have.
        SignalError: the model cannot be loaded, or has another vocabulary than the policy.
        MissingExtra: transformers is not installed.

    Example:
        >>> LocalLogProbs("models/teacher", temperature=0.7).temperature
        0.7
    """

    temperature: float = number(1.0, "divides the logits", above=0)
    policy: Any = declare(None, is_tokenizer, "the policy's tokenizer, to check against")

    grain = "tokens"
    reads_token_ids = True
    needs_tokenizer: ClassVar[bool] = False

    @property
    def identity(self) -> dict[str, Any]:
        """The model's digest, temperature and precision."""
        return {
            "signal": self.name,
            "model": self.model_fingerprint,
            "temperature": self.temperature,
            "dtype": self.dtype,
            **identity_of_policy(self.unscorable),
        }

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens by id, without loading the model itself.

        Raises:
            SignalError: there is no tokenizer beside the model.
            SettingError: a loaded model came without its tokenizer.
        """
        return Vocabulary.of(self.tokenizer_source, name=model_label(self.model))

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Batch by batch, the longest responses first."""
        if self.policy is not None:
            check_vocabulary(Vocabulary.of(self.policy), self.vocabulary)
        read = [
            unless_unscorable(partial(self._read, response), self.unscorable)
            for response in responses
        ]
        yield from ((index, []) for index, pair in enumerate(read) if pair is None)
        known = [index for index, pair in enumerate(read) if pair is not None]
        pairs = [pair for pair in read if pair is not None]
        lengths = [len(prompt) + len(own) for prompt, own in pairs]
        for batch in length_batches(lengths, self.max_tokens_per_batch, MAX_PADDING):
            rows = [known[place] for place in batch]
            yield from zip(rows, self._batch([pairs[place] for place in batch]), strict=True)

    def _read(self, response: Response) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The prompt's ids and the response's, checked against the model."""
        prompt, own = policy_ids(response)
        self.causal.check(response, prompt + own, len(prompt) + len(own))
        return prompt, own

    def _batch(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[list[float]]:
        """Score a batch in one forward pass; a token is read at the position before it."""
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
