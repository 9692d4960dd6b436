"""A learned process reward model that vLLM serves: all of a response's steps in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from functools import cached_property, partial
from typing import Any

import torch

from stepcredit.errors import SettingError, SignalError
from stepcredit.prm.model_input import ModelInput, within_limit
from stepcredit.prm.protocol import Protocol, build_protocol, is_protocol
from stepcredit.settings.fields import choice, declare, is_mapping, whole
from stepcredit.signals.models.checkpoints import (
    fingerprint_of_tokenizer,
    is_tokenizer,
    load_tokenizer,
)
from stepcredit.signals.responses import Response
from stepcredit.signals.served.answers import finite, items
from stepcredit.signals.served.failures import Fault
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import refuse_empty
from stepcredit.signals.signal_registry import register_signal
from stepcredit.signals.unscorable import (
    REFUSE,
    identity_of_policy,
    unless_unscorable,
    unscorable_field,
)

HEADS = ("two-layer", "classes")
"""Heads whose classes `/pooling` gives; it gives no words of a vocabulary and no single values."""
ROUNDING = 0.02
"""How far the sum of a server's two rounded probabilities may be from 1."""


@register_signal("prm-served")
@dataclass(frozen=True, kw_only=True)
class ServedPRM(Served):
    """A process reward model behind vLLM's `/pooling`, by its own protocol.

    The protocol writes the model's input here, with the model's tokenizer; token ids are sent. The
    server gives two probabilities at each tag (STEP pooling) or at each token (ALL), and the
    protocol computes the score from them: class 1 for Qwen's, p(1) - p(0) for PURE's.

    Args:
        protocol: of a model with two classes, by name or as a `Protocol`.
        protocol_settings: fields of a protocol that is given by name.
        tokenizer: the reward model's tokenizer, as a folder, a name or loaded; None for the one at
            `model`.
        pooling: "step" or "all", as the server was started.
        empty: "refuse" an empty response, or "score" it.
        context: the most tokens that the server takes; null: the server says so itself, by an error
            that ends the run.
        unscorable: what is done with responses that are longer than `context` with their prompt, or
            are empty and refused: as for `prm`.

    Raises:
        SettingError: a field out of range, or a protocol of another kind of model.

    Example:
        >>> where = {"url": "http://localhost:8000", "model": "Qwen/Qwen2.5-Math-PRM-7B"}
        >>> ServedPRM(**where, protocol="qwen2.5-math-prm").protocol_used.range
        (0.0, 1.0)

    Source: vLLM, `/pooling` with the task token_classify. Differs: steps are read only at the
    places where tags were inserted, so a tag that the response itself contains does no harm.
    """

    grain = "steps"
    local_signal = "prm"
    protocol: Any = declare(
        MISSING, is_protocol, "its input and output format, by name", kw_only=True
    )
    protocol_settings: Any = declare({}, is_mapping, "fields of the protocol")
    tokenizer: Any = declare(None, is_tokenizer, "folder, name, or loaded; the one at model")
    pooling: str = choice("step", ("step", "all"), "where the server gives probabilities")
    empty: str = choice("refuse", ("refuse", "score"), "what is done with empty responses")
    context: int | None = whole(
        None, "the most tokens that the server takes; null: not checked", at_least=1, optional=True
    )
    unscorable: str = unscorable_field(can_cut=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unscorable != REFUSE and self.context is None:
            reason = f"unscorable={self.unscorable!r} needs it, the server's max_model_len"
            raise SettingError(reason, field="context")
        if self.protocol_used.head not in HEADS:
            reason = (
                f"{self.protocol_used.name} has no two classes, whose probabilities /pooling gives"
            )
            raise SettingError(reason, field="protocol")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Model, revision, protocol, the tokenizer's fingerprint, and what is refused."""
        return {
            "signal": self.name,
            "model": self.model,
            "revision": self.revision,
            "protocol": self.protocol_used.identity,
            "tokenizer": fingerprint_of_tokenizer(self.tokenizer_used),
            "empty": self.empty,
            **self._limits,
        }

    @property
    def _limits(self) -> dict[str, Any]:
        policy = identity_of_policy(self.unscorable)
        return {**policy, "context": self.context} if policy else {}

    @property
    def may_leave_out(self) -> bool:
        """Whether a response that is too long, or empty, has no scores instead of an error."""
        return self.unscorable != REFUSE

    async def ask(self, asking: Any, response: Response) -> list[float]:
        """One request: the scores of all steps."""
        model_input = unless_unscorable(partial(self._model_input, response), self.unscorable)
        if model_input is None:
            return []
        body = {
            "model": self.model,
            "task": "token_classify",
            "input": model_input.ids,
            "add_special_tokens": False,
            "use_activation": True,
            "encoding_format": "float",
        }
        places = self._places(response, model_input)
        pairs = await asking(
            "/pooling", body, partial(probabilities, model_input.positions, places)
        )
        scores: list[float] = self.protocol_used.score(
            torch.tensor(pairs, dtype=torch.float64).log()
        ).tolist()
        return scores

    def _model_input(self, response: Response) -> ModelInput:
        if self.empty == "refuse":
            refuse_empty(response)
        found = self.protocol_used.model_input(self.tokenizer_used, response)
        return within_limit(response, found, self.context, "the server's context", self.unscorable)

    def _places(self, response: Response, model_input: ModelInput) -> list[int]:
        """The tokens of the input at which the server gives probabilities."""
        if self.pooling == "all":
            return list(range(len(model_input.ids)))
        tags = {model_input.ids[position] for position in model_input.positions}
        if len(tags) > 1:
            reason = "its steps are not read at one token: pooling='all' reads any"
            raise SignalError(reason, place=response.name)
        return [place for place, id in enumerate(model_input.ids) if id in tags]

    @cached_property
    def protocol_used(self) -> Protocol:
        """The protocol, built from its name and fields."""
        return build_protocol(self.protocol, self.protocol_settings)

    @cached_property
    def tokenizer_used(self) -> Any:
        """The tokenizer, loaded on first use."""
        source = self.model if self.tokenizer is None else self.tokenizer
        return load_tokenizer(source)


def probabilities(
    positions: Sequence[int], places: Sequence[int], answer: Any
) -> list[tuple[float, float]]:
    """The two classes' probabilities at each step.

    Args:
        positions: where the steps are read, tokens of the input.
        places: where the server gives probabilities, in order.
        answer: the server's answer, one row per place.

    Raises:
        Fault: another number of rows, or a row that is not two probabilities.

    Example:
        >>> answer = {"data": [{"data": [[0.5, 0.5], [0.1, 0.9]]}]}
        >>> probabilities([7], [3, 7], answer)
        [(0.1, 0.9)]
    """
    items(answer, "data", expected=1, of="results")
    rows = items(answer, "data", 0, "data", expected=len(places), of="rows of scores")
    at_place = dict(zip(places, rows, strict=True))
    return [_pair(at_place[position], step) for step, position in enumerate(positions)]


def _pair(row: Any, step: int) -> tuple[float, float]:
    if not isinstance(row, list) or len(row) != 2:
        raise Fault(f"the row of step {step} is {{}}, expected two probabilities", repr(row))
    wrong, right = (finite(value, f"the score of step {step}") for value in row)
    if min(wrong, right) < 0 or abs(wrong + right - 1) > ROUNDING:
        raise Fault(f"the row of step {step} is {{}}, expected two probabilities", repr(row))
    return wrong, right
