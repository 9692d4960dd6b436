"""The signal `prm`: a learned process reward model, run in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from stepcredit.errors import SignalError
from stepcredit.prm.loading import Scorer, attach, load_scorer
from stepcredit.prm.model_input import ModelInput, within_limit
from stepcredit.prm.protocol import Protocol, build_protocol, is_protocol
from stepcredit.settings.fields import choice, declare, is_mapping, text
from stepcredit.signals.models.batching import MAX_PADDING, length_batches, padded_ids
from stepcredit.signals.models.checkpoints import (
    is_model,
    load_tokenizer,
    oom_as_signal_error,
)
from stepcredit.signals.models.local_model import LocalModel
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, refuse_empty
from stepcredit.signals.signal_registry import register_signal
from stepcredit.signals.unscorable import (
    identity_of_policy,
    unless_unscorable,
    unscorable_field,
)

WINDOW = 2048
"""Responses that are tokenized and packed by length at once; a bound on memory only."""


@register_signal("prm")
@dataclass(frozen=True)
class LocalPRM(LocalModel):
    """A learned process reward model's score of each step, by its own protocol.

    One forward pass scores all of a response's steps. Responses are packed by length, padded on the
    right; no forward pass holds more than `max_tokens_per_batch` tokens, padding included.

    Args:
        model: a checkpoint's folder, its name on the Hub, or a loaded model: a causal language
            model, a token classifier, or a `HeadedModel`; it is put into evaluation mode.
        protocol: its input and output format, by name (`PROTOCOLS.names()`) or as a `Protocol`.
        protocol_settings: fields of a protocol given by name, such as {"separator": "\\n\\n"}.
        tokenizer: the reward model's tokenizer, as a folder, a name or loaded; by default, the one
            of the model.
        device: "auto" (a GPU where there is one), or one of torch's. A loaded model is not moved.
        dtype: type of the weights: "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
        max_tokens_per_batch: the most tokens in one forward pass, padding included.
        empty: "refuse" responses without a character other than space, or "score" them.
        unscorable: what is done with responses that are longer, with their prompt, than the model's
            context or `max_tokens_per_batch`, or are empty and refused: "refuse" ends with an
            error, "unknown" gives no score, "cut" scores the steps that fit. Cutting needs a model
            that reads from left to right, as all published ones do.
        revision: branch, tag or commit on the Hub.

    Returns:
        From `scores`: one list per response, one float per step, within `protocol.range`; with
        `unscorable` other than "refuse", the scores of the first steps or none.

    Raises:
        SettingError: an unknown protocol or field, or a value out of range.
        MissingExtra: transformers is not installed.
        RolloutError: an empty response, or one longer than the model's context or the bound.
        SignalError: a model or tokenizer that does not load or does not fit the protocol.

    Example:
        >>> LocalPRM("Qwen/Qwen2.5-Math-PRM-7B", "qwen2.5-math-prm").protocol_used.range
        (0.0, 1.0)

    Source: the models' cards; see each protocol.
    """

    grain = "steps"
    model: Any = declare(MISSING, is_model, "a checkpoint's folder or name, or a loaded model")
    protocol: Any = declare(MISSING, is_protocol, "its input and output format, by name")
    protocol_settings: Any = declare({}, is_mapping, "fields of the protocol")
    empty: str = choice("refuse", ("refuse", "score"), "what is done with empty responses")
    unscorable: str = unscorable_field(can_cut=True)
    revision: str | None = text(None, "branch, tag or commit on the Hub")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("model", "tokenizer"):
            if isinstance(getattr(self, name), Path):
                object.__setattr__(self, name, str(getattr(self, name)))
        build_protocol(self.protocol, self.protocol_settings)

    @cached_property
    def protocol_used(self) -> Protocol:
        """The protocol, built from its name and fields."""
        return build_protocol(self.protocol, self.protocol_settings)

    @cached_property
    def tokenizer_used(self) -> Any:
        """The tokenizer, loaded on first use."""
        return load_tokenizer(self.tokenizer_source, self.revision)

    @property
    def _revision(self) -> str | None:
        return self.revision

    @cached_property
    def scorer(self) -> Scorer:
        """The model, loaded on first use."""
        if not isinstance(self.model, str):
            return attach(self.model, self.protocol_used, self.tokenizer_used).eval()
        _ = self.model_fingerprint_when_loaded
        return load_scorer(
            self.model,
            self.protocol_used,
            self.tokenizer_used,
            dtype=self.dtype,
            device=self.device,
            revision=self.revision,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The fingerprints of model and tokenizer, the protocol, the dtype, and what is refused."""
        return {
            "signal": self.name,
            "protocol": self.protocol_used.identity,
            "model": self.model_fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            "dtype": self.dtype,
            "empty": self.empty,
            **identity_of_policy(self.unscorable),
        }

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Score window by window, in each window the longest responses first."""
        if self.empty == "refuse" and self.unscorable == "refuse":
            for response in responses:
                refuse_empty(response)
        for start in range(0, len(responses), WINDOW):
            read = [
                unless_unscorable(partial(self._model_input, response), self.unscorable)
                for response in responses[start : start + WINDOW]
            ]
            inputs = {start + index: each for index, each in enumerate(read) if each is not None}
            yield from ((start + index, []) for index, each in enumerate(read) if each is None)
            rows, lengths = list(inputs), [len(model_input.ids) for model_input in inputs.values()]
            for batch in length_batches(lengths, self.max_tokens_per_batch, MAX_PADDING):
                scores = self._score([inputs[rows[place]] for place in batch])
                yield from zip([rows[place] for place in batch], scores, strict=True)

    def _model_input(self, response: Response) -> ModelInput:
        """A response as the model's input, cut to what the model can take if that is wanted.

        Raises:
            Unscorable: it is empty and refused, or the model can't take it.
        """
        if self.empty == "refuse":
            refuse_empty(response)
        model_input = self.protocol_used.model_input(self.tokenizer_used, response)
        self._check_ids(model_input)
        context = getattr(self.scorer.config.get_text_config(), "max_position_embeddings", None)
        for limit, what in (
            (context, "the model's context"),
            (self.max_tokens_per_batch, "max_tokens_per_batch"),
        ):
            model_input = within_limit(response, model_input, limit, what, self.unscorable)
        return model_input

    def _check_ids(self, model_input: ModelInput) -> None:
        """Refuse tokens that the model does not have."""
        highest = max(model_input.ids)
        if highest >= self.scorer.num_tokens:
            reason = f"the tokenizer has token {highest}, the model {self.scorer.num_tokens} tokens"
            raise SignalError(f"{reason}: they don't belong together")

    @torch.inference_mode()
    def _score(self, inputs: Sequence[ModelInput]) -> list[list[float]]:
        """Score a batch in one forward pass."""
        ids, mask = padded_ids([model_input.ids for model_input in inputs]).values()
        counts = [len(model_input.positions) for model_input in inputs]
        rows = torch.arange(len(inputs)).repeat_interleave(torch.tensor(counts))
        positions = torch.tensor([at for model_input in inputs for at in model_input.positions])
        device = next(self.scorer.parameters()).device
        with oom_as_signal_error(*ids.shape):
            logits = self.scorer(*(part.to(device) for part in (ids, mask, rows, positions)))
        scores = self.protocol_used.score(logits).cpu()
        return [of_response.tolist() for of_response in scores.split(counts)]
