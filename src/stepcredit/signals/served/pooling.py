"""A learned process reward model that vLLM serves: all of a response's steps in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, ClassVar, Literal

import torch

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.requires import require
from stepcredit.settings.fields import choice
from stepcredit.signals.prm.protocols import PROTOCOLS, Protocol
from stepcredit.signals.prm.reading import Reading
from stepcredit.signals.registry import register_signal
from stepcredit.signals.responses import Response, at
from stepcredit.signals.served.base import Served
from stepcredit.signals.served.faults import Fault
from stepcredit.signals.served.reading import finite, items
from stepcredit.signals.signal import refuse_empty

HEADS = ("two-layer", "classes")
"""Heads whose classes `/pooling` gives; words of a vocabulary and single values it does not."""
ROUNDING = 0.02
"""How far from 1 a server's probabilities may sum, as it rounds them."""


@register_signal("prm-served")
@dataclass(frozen=True, kw_only=True)
class ServedPRM(Served):
    """A process reward model behind vLLM's `/pooling`, by its own protocol.

    The protocol writes the model's input here, with the model's tokenizer; token ids are sent. The
    server gives two probabilities at each tag (STEP pooling) or at each token (ALL), and the
    protocol makes the score of them: class 1 for Qwen's, p(1) - p(0) for PURE's.

    Args:
        protocol: of a model with two classes, by name, or with fields of its own.
        tokenizer: the reward model's, as a path or loaded; None for one at `model`.
        pooling: "step" or "all", as the server was started.
        empty: "refuse" an empty response, or "score" it.

    Raises:
        SettingError: a field out of range, or a protocol of another kind of model.

    Example:
        >>> prm = ServedPRM(url="http://localhost:8000", model="Qwen/Qwen2.5-Math-PRM-7B")
        >>> prm.protocol
        'qwen2.5-math-prm'

    Source: vLLM, `/pooling` with the task token_classify. Differs: steps are picked by the places
    of their tags, so that a tag which a response writes itself shifts nothing.
    """

    grain: ClassVar[Literal["steps", "tokens"]] = "steps"

    protocol: str | Protocol = "qwen2.5-math-prm"
    tokenizer: Any = field(default=None, compare=False, repr=False)
    pooling: str = choice("step", ("step", "all"), "where the server gives probabilities")
    empty: str = choice("refuse", ("refuse", "score"), "what is done with an empty response")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._protocol.head not in HEADS:
            reason = f"{self._protocol.name} has no two classes, which /pooling is asked for"
            raise SettingError(reason, field="protocol")

    @property
    def identity(self) -> dict[str, Any]:
        """Model, revision, protocol with its fields, and the tokenizer's fingerprint."""
        return {
            "signal": self.name,
            "model": self.model,
            "revision": self.revision,
            "protocol": [self._protocol.name, asdict(self._protocol)],  # type: ignore[call-overload]
            "tokenizer": fingerprint(self._tokenizer),
        }

    async def ask(self, asking: Any, response: Response) -> list[float]:
        """One request: the scores of all steps."""
        if self.empty == "refuse":
            refuse_empty(response)
        reading = self._reading(response)
        body = {
            "model": self.model,
            "task": "token_classify",
            "input": reading.ids,
            "add_special_tokens": False,
            "use_activation": True,
            "encoding_format": "float",
        }
        places = self._places(response, reading)
        pairs = await asking("/pooling", body, partial(probabilities, reading.positions, places))
        scores: list[float] = self._protocol.score(torch.tensor(pairs).double().log()).tolist()
        return scores

    def _reading(self, response: Response) -> Reading:
        try:
            return self._protocol.encode(self._tokenizer, response.prompt, response.step_texts)
        except (RolloutError, SignalError) as error:
            raise at(response, type(error), error.reason, field=error.field) from error

    def _places(self, response: Response, reading: Reading) -> list[int]:
        """The tokens of the input at which the server gives probabilities."""
        if self.pooling == "all":
            return list(range(len(reading.ids)))
        tags = {reading.ids[position] for position in reading.positions}
        if len(tags) > 1:
            reason = "its steps are not read at one token: pooling='all' reads any"
            raise at(response, SignalError, reason)
        return [place for place, id in enumerate(reading.ids) if id in tags]

    @cached_property
    def _protocol(self) -> Protocol:
        if isinstance(self.protocol, Protocol):
            return self.protocol
        return PROTOCOLS.build(self.protocol)

    @cached_property
    def _tokenizer(self) -> Any:
        if self.tokenizer is not None and not isinstance(self.tokenizer, str):
            return self.tokenizer
        require("signals", "transformers")
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.tokenizer or self.model)
        except (OSError, ValueError) as error:
            reason = f"no tokenizer at {self.tokenizer or self.model}: tokenizer=PATH names it"
            raise SettingError(reason, field="tokenizer") from error


def probabilities(
    positions: Sequence[int], places: Sequence[int], answer: Any
) -> list[tuple[float, float]]:
    """The two classes' probabilities at each step.

    Args:
        positions: where the steps are read, tokens of the input.
        places: where the server gives probabilities, in order.
        answer: of `/pooling`, one row a place.

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
        raise Fault(f"the row of step {step} is {row!r}, expected two probabilities")
    wrong, right = (finite(value, f"the score of step {step}") for value in row)
    if min(wrong, right) < 0 or abs(wrong + right - 1) > ROUNDING:
        raise Fault(f"the row of step {step} is {row}, expected two probabilities")
    return wrong, right


def fingerprint(tokenizer: Any) -> str:
    """A tokenizer's own digest: its vocabulary, rules and chat template."""
    rules = tokenizer.backend_tokenizer.to_str()
    return sha256(f"{rules}\0{tokenizer.chat_template}".encode()).hexdigest()[:16]
