"""`Protocol`: the input of a family of reward models, and the score in its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from torch import Tensor

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.prm.model_input import ModelInput
from stepcredit.settings.fields import check_fields
from stepcredit.settings.registry import Registry
from stepcredit.signals.responses import Response

CACHED_MODULES = {"stepcredit.prm.published_protocols": "stepcredit.signals.prm.protocols"}
"""Modules that have moved, with the name under which the keys of cached scores know them."""
Head = Literal["two-layer", "value", "words", "classes"]


class Protocol(ABC):
    """The input of one family of reward models and how its output is read; a frozen dataclass."""

    name: ClassVar[str] = ""
    head: ClassVar[Head]
    """The kind of the model's head: see `stepcredit.prm.heads`."""
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """The lowest and the highest possible score."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def identity(self) -> dict[str, Any]:
        """Its class and fields; together with the model they determine the scores."""
        kind = type(self)
        module = CACHED_MODULES.get(kind.__module__, kind.__module__)
        fields = asdict(self)  # type: ignore[call-overload]
        return {"class": f"{module}:{kind.__qualname__}", **fields}

    @abstractmethod
    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """A response as the model's input.

        Args:
            tokenizer: the reward model's fast tokenizer, of transformers.
            prompt: the question.
            steps: at least one, delimiters included.

        Raises:
            SignalError: the tokenizer lacks what the protocol needs.
            RolloutError: a step that cannot be read.
        """

    @abstractmethod
    def score(self, logits: Tensor) -> Tensor:
        """Scores from the head's logits.

        Args:
            logits: (steps, classes), float32.

        Returns:
            (steps,), within `range`.
        """

    def words(self, tokenizer: Any) -> list[int]:
        """The words of the vocabulary whose logits are the classes, for a head of "words".

        Raises:
            SignalError: the tokenizer lacks one of them.
        """
        raise NotImplementedError(f"{self.name} reads no words")

    def model_input(self, tokenizer: Any, response: Response) -> ModelInput:
        """`encode` of a response split into steps.

        Raises:
            SignalError, RolloutError: as in `encode`; the error names the response.
        """
        try:
            return self.encode(tokenizer, response.prompt, response.step_texts)
        except (RolloutError, SignalError) as error:
            raise error.at(place=response.name) from error.__cause__


def is_protocol(value: Any) -> str | None:
    """A check for protocols and their names."""
    return None if isinstance(value, str | Protocol) else "the name of a protocol, or one"


PROTOCOLS = Registry[Protocol]("protocol", "stepcredit.prm_protocols")


def build_protocol(protocol: str | Protocol, settings: Mapping[str, Any]) -> Protocol:
    """A protocol from its name and fields; a protocol that is already built is returned unchanged.

    Raises:
        SettingError: an unknown name or field, or fields of a protocol that is built already.

    Example:
        >>> build_protocol("math-shepherd", {}).range
        (0.0, 1.0)
    """
    if isinstance(protocol, str):
        return PROTOCOLS.build(protocol, settings, at="protocol", under="protocol_settings")
    if settings:
        raise SettingError("only for a protocol by name", field="protocol_settings")
    return protocol
