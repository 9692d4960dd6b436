"""`ChatJudge`: the base class of judges that answer in a chat."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import choice, declare, is_mapping, number, whole
from stepcredit.signals.responses import Response
from stepcredit.signals.served.judge_cost import CountedAsking, JudgeCost, Usage
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import IndexedScores, refuse_empty

PATH = "/v1/chat/completions"
logger = logging.getLogger(__name__)


def is_json_object(value: Any) -> str | None:
    """A check for mappings that JSON can hold.

    Example:
        >>> is_json_object({"seed": 1}), is_json_object({"seed": float("nan")})
        (None, 'an object of fields that JSON can hold')
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return is_mapping(value) or "an object of fields that JSON can hold"
    return is_mapping(value)


def log_usage(notice: str) -> None:
    """Write to the log what a judge costs."""
    logger.info("judge: %s", notice)


@dataclass(frozen=True, kw_only=True)
class ChatJudge(Served):
    """A signal that a chat model gives, which is asked with one or several requests per response.

    A subclass defines `bodies` and `asked`. Before the first request and after the last one, it is
    said how many requests and tokens that takes.

    Args:
        votes: samples per question.
        temperature: temperature of the samples; above 0 if there are several.
        max_tokens: most tokens that the model writes per answer.
        extra: further fields of the request, such as `{"seed": 1}`.
        empty: "refuse" an empty response, or "score" it.
        tell: called with a line before and after scoring; by default, the log.
    """

    votes: int = whole(1, "samples per question", at_least=1)
    temperature: float = number(0.0, "temperature of the samples", at_least=0)
    max_tokens: int | None = whole(
        None, "most tokens that the model writes", at_least=1, optional=True
    )
    extra: Mapping[str, Any] = declare({}, is_json_object, "further fields of the request")
    empty: str = choice("refuse", ("refuse", "score"), "what is done with an empty response")
    tell: Callable[[str], None] = declare(
        log_usage,
        lambda value: None if callable(value) else "a function",
        "called with requests and tokens before and after scoring",
        repr=False,
    )

    notice_field = "tell"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes > 1 and self.temperature == 0:
            reason = f"expected a number above 0: at 0 all {self.votes} votes are the same"
            raise SettingError(reason, field="temperature")

    @property
    def identity(self) -> dict[str, Any]:
        """All settings but those of the connection and of what is said."""
        return {name: value for name, value in super().identity.items() if name != "tell"}

    @cached_property
    def spent(self) -> Usage:
        """What this judge was asked so far, over all its streams; trainers log it."""
        return Usage()

    @abstractmethod
    def bodies(self, response: Response) -> list[dict[str, Any]]:
        """The requests that a response needs."""

    @abstractmethod
    async def asked(
        self, asking: Any, response: Response, bodies: list[dict[str, Any]]
    ) -> list[float]:
        """The scores of a response, from its requests."""

    async def ask(self, asking: Any, response: Response) -> list[float]:
        """The scores of a response that is not empty, or may be."""
        if self.empty == "refuse":
            refuse_empty(response)
        return await self.asked(asking, response, self.bodies(response))

    def cost(self, responses: Sequence[Response]) -> JudgeCost:
        """The requests and tokens that the responses take.

        Args:
            responses: split into steps.

        Raises:
            SignalError: a template fails on a response; the error names the response.
        """
        kept = (each for each in responses if self.empty == "score" or not each.is_empty)
        return JudgeCost.of(body for response in kept for body in self.bodies(response))

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Yield scores as they arrive; say before and after what they cost."""
        usage = Usage()
        if responses:
            self.tell(str(self.cost(responses)))
        yield from self.run(responses, partial(self._counted, usage))
        if responses:
            self.tell(str(usage))

    async def _counted(self, usage: Usage, asking: Any, response: Response) -> list[float]:
        return await self.ask(CountedAsking(asking, (usage, self.spent)), response)

    def body(self, messages: list[dict[str, str]], **more: Any) -> dict[str, Any]:
        """A request for `votes` answers, with further fields and those of `extra`."""
        body = {
            "model": self.model,
            "messages": messages,
            "n": self.votes,
            "temperature": self.temperature,
        }
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return {**body, **more, **self.extra}
