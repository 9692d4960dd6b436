"""Causal language models: loading them, and the log-probs of given tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepcredit.errors import RolloutError
from stepcredit.requires import require
from stepcredit.signals.models.batching import reads_left_to_right
from stepcredit.signals.models.checkpoints import (
    load_tokenizer,
    load_whole,
    loading,
    oom_as_signal_error,
    to_device,
)
from stepcredit.signals.responses import Response
from stepcredit.signals.unscorable import Unscorable

LOGITS_AT_ONCE = 1 << 25
CPU_SHARE = 4
"""On a CPU, a fourth of them are computed at once: they stay in its cache."""


@dataclass(frozen=True)
class CausalLM:
    """A causal language model of transformers, and its tokenizer if there is one.

    Args:
        model: a model with a language-model head; it runs in eval mode, then its mode is restored.
        tokenizer: of transformers, a fast one.
    """

    model: Any
    tokenizer: Any = None

    @property
    def num_tokens(self) -> int:
        """Number of token ids that the model accepts: the rows of its embedding."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def context(self) -> int | None:
        """The number of positions of the model; None if its config does not say."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    @property
    def text_ends(self) -> list[int]:
        """Ids that end a text, by the model's generation settings and its tokenizer."""
        of_model = self.model.generation_config.eos_token_id
        listed = of_model if isinstance(of_model, list) else [of_model]
        both = [*listed, self.tokenizer.eos_token_id]
        return list(dict.fromkeys(end for end in both if end is not None))

    def check(self, response: Response, ids: Sequence[int], length: int) -> None:
        """Refuse what the model cannot read.

        Args:
            response: the response that the tokens belong to, for errors.
            ids: the token ids that the model would read.
            length: how many positions they need.

        Raises:
            Unscorable: longer than the context.
            RolloutError: an id that the model does not have.
        """
        if self.context is not None and length > self.context:
            reason = f"needs {length} positions, over the model's context of {self.context}"
            raise Unscorable(reason, field="token_ids", place=response.name)
        for token in {max(ids), min(ids)}:
            if not 0 <= token < self.num_tokens:
                reason = f"token {token}, but the model has {self.num_tokens}"
                raise RolloutError(reason, field="token_ids", place=response.name)

    def log_probs(
        self,
        inputs: Mapping[str, Tensor],
        rows: Tensor,
        columns: Tensor,
        targets: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """log softmax(logits / temperature) of given tokens at given positions of a batch.

        To save memory, logits are computed for these positions only, and in float32 in parts.

        Args:
            inputs: arguments of the model's forward: `input_ids` (batch, width), padded on the
                right, and masks. A mask (batch, width) is left out where the model needs none.
            rows, columns: the positions, each one *before* its target.
            targets: token ids.
            temperature: divides the logits.

        Returns:
            float32, one per target.

        Raises:
            SignalError: the memory is too small for the batch.
        """
        with oom_as_signal_error(*inputs["input_ids"].shape), eval_mode(self.model):
            states, project = self._states(self._needed(inputs), rows, columns)
            return _picked(states, project, targets, temperature)

    def _needed(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs without a mask of padding on the right, if the model reads left to right."""
        mask = inputs["attention_mask"]
        if mask.dim() != 2 or not self._reads_left_to_right:
            return inputs
        return {name: value for name, value in inputs.items() if name != "attention_mask"}

    @cached_property
    def _reads_left_to_right(self) -> bool:
        def logits(ids: Tensor) -> Tensor:
            found: Tensor = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
            return found

        return reads_left_to_right(logits, self.num_tokens)

    def _states(
        self, inputs: Mapping[str, Tensor], rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Any]:
        """At the places: hidden states and the head, or logits where the head is not all."""
        if self._head_is_all:
            hidden = self.model.base_model(**inputs, use_cache=False).last_hidden_state
            return hidden[rows, columns], self.model.get_output_embeddings()
        kept, places = columns.unique(return_inverse=True)
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            logits = self.model(**inputs, use_cache=False, logits_to_keep=kept).logits
            return logits[rows, places], torch.nn.Identity()
        return self.model(**inputs, use_cache=False).logits[rows, columns], torch.nn.Identity()

    @cached_property
    def _head_is_all(self) -> bool:
        """Whether the logits are exactly the head of the last hidden states.

        Some models cap or scale them afterwards; those compute their logits themselves.
        """
        head, base = self.model.get_output_embeddings(), self.model.base_model
        if head is None or base is self.model:
            return False
        probe = torch.arange(min(4, self.num_tokens), device=self.model.device)[None]
        hidden = getattr(base(input_ids=probe, use_cache=False), "last_hidden_state", None)
        if hidden is None:
            return False
        logits = self.model(input_ids=probe, use_cache=False).logits
        return torch.equal(head(hidden).float(), logits.float())


def load_causal(
    model: Any, tokenizer: Any = None, *, device: str = "auto", dtype: str = "auto"
) -> CausalLM:
    """A causal language model from a folder, or one that is loaded already.

    Args:
        model: a folder or a name that transformers knows, or a loaded model.
        tokenizer: the same for its tokenizer; None takes the one beside the model, if there is one.
        device: "auto" is the accelerator, if there is one.
        dtype: "auto" is the type in the checkpoint.

    Raises:
        MissingExtra: transformers is not installed.
        SignalError: it cannot be loaded; its own code is never run.
    """
    if not isinstance(model, str | Path):
        return CausalLM(model, load_tokenizer(tokenizer))
    require("signals", "transformers")
    from transformers import AutoModelForCausalLM

    with loading(str(model)):
        loaded = load_whole(AutoModelForCausalLM, str(model), dtype=dtype)
    own = load_tokenizer(model if tokenizer is None else tokenizer)
    return CausalLM(to_device(loaded, device).eval(), own)


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """A block without gradients and dropout; the model's mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _picked(states: Tensor, project: Any, targets: Tensor, temperature: float) -> Tensor:
    """log softmax at the targets, a bounded number of logits at a time."""
    most = LOGITS_AT_ONCE // (CPU_SHARE if states.device.type == "cpu" else 1)
    at_once = max(1, most // project(states[:1]).shape[-1])
    parts = []
    for some, wanted in zip(states.split(at_once), targets.split(at_once), strict=True):
        logits = project(some).float()
        if temperature != 1.0:
            logits = logits / temperature
        parts.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(parts)
