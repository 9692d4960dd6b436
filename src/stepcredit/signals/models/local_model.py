"""The base classes of signals that run language models in this process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from stepcredit.errors import SettingError
from stepcredit.settings.fields import check_fields, choice, declare, text, whole
from stepcredit.signals.models.causal import CausalLM, load_causal
from stepcredit.signals.models.checkpoints import (
    DTYPES,
    fingerprint,
    fingerprint_of_tokenizer,
    is_model,
    is_tokenizer,
)
from stepcredit.signals.signal import Signal
from stepcredit.signals.unscorable import REFUSE, unscorable_field


@dataclass(frozen=True, kw_only=True)
class RunsModels(Signal):
    """A signal that runs one or more language models in this process.

    Args:
        tokenizer: a folder, a name or a loaded one; the subclass says whose it is.
        max_tokens_per_batch: the most tokens in one forward, padding included; a longer response
            is run alone.
        device: where models run; "auto" is the accelerator if there is one, else the CPU. A loaded
            model stays where it is.
        dtype: of the weights: "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
        unscorable: "refuse" a response that a model can't read, such as one over its context, or
            leave its scores "unknown".
    """

    tokenizer: Any = declare(
        None, is_tokenizer, "the tokenizer, if it is not the model's own", kw_only=True
    )
    max_tokens_per_batch: int = whole(
        16384, "the most tokens in one forward pass", at_least=1, kw_only=True
    )
    device: str = text(
        "auto", "where the model runs: auto, cpu, cuda, cuda:1, mps, ...", kw_only=True
    )
    dtype: str = choice("auto", DTYPES, "precision of the weights", kw_only=True)
    unscorable: str = unscorable_field()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def may_leave_out(self) -> bool:
        """Whether a response that the models can't score has no scores, instead of an error."""
        return self.unscorable != REFUSE or super().may_leave_out


@dataclass(frozen=True)
class LocalModel(RunsModels):
    """A signal that runs one model in this process: a language model, or a reward model.

    Args:
        model: a folder or name, or a loaded model.
        tokenizer: the model's own; None takes the one beside the model.
        max_tokens_per_batch, device, dtype, unscorable: as in `RunsModels`.

    Raises:
        SettingError: a loaded model without a tokenizer, in a subclass that needs one.
    """

    model: Any = declare(None, is_model, "the model")

    needs_tokenizer: ClassVar[bool] = True
    """Whether the signal cannot score without the model's tokenizer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.needs_tokenizer and self.model is not None:
            _ = self.tokenizer_source

    @property
    def tokenizer_source(self) -> Any:
        """The tokenizer given, or else the folder or name of the model.

        Raises:
            SettingError: a loaded model came without its tokenizer.
        """
        if self.tokenizer is not None:
            return self.tokenizer
        if isinstance(self.model, str | Path):
            return self.model
        raise SettingError("is required with a model that is already loaded", field="tokenizer")

    @cached_property
    def model_fingerprint_when_loaded(self) -> str | None:
        """The fingerprint of a folder or name, taken once; None for a loaded model.

        It is read before the weights, so later changes in the folder do not count.

        Raises:
            SignalError: there is no such checkpoint.
        """
        return self._fingerprint() if isinstance(self.model, str | Path) else None

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model in use; that of a loaded model is computed each time.

        Raises:
            SignalError: there is no such checkpoint.
        """
        return self.model_fingerprint_when_loaded or self._fingerprint()

    @property
    def tokenizer_fingerprint(self) -> str | None:
        """The fingerprint of the tokenizer given; None if the one beside the model is used."""
        given = self.tokenizer
        return None if given is None else fingerprint_of_tokenizer(given, self._revision)

    @property
    def _revision(self) -> str | None:
        """The branch, tag or commit on the Hub; None for the default one."""
        return None

    def _fingerprint(self) -> str:
        return fingerprint(self.model, self._revision)


@dataclass(frozen=True)
class LocalCausalModel(LocalModel):
    """A signal that runs one causal language model in this process.

    Args:
        model, tokenizer: as in `LocalModel`.
        max_tokens_per_batch, device, dtype, unscorable: as in `RunsModels`.
    """

    @cached_property
    def causal(self) -> CausalLM:
        """The model, loaded at first use.

        Raises:
            SignalError: it cannot be loaded.
            SettingError: torch has no such device.
        """
        _ = self.model_fingerprint_when_loaded
        return load_causal(self.model, self.tokenizer, device=self.device, dtype=self.dtype)
