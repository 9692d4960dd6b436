"""Generative reward models and language models as judges: is this step right, Yes or No?"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import (
    choice,
    declare,
    flag,
    is_mapping,
    is_name,
    number,
    text,
    whole,
)
from stepcredit.signals.responses import Response
from stepcredit.signals.served.prompts import JudgePrompt
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.served.verdicts import UNDECIDED, VerdictReader, word
from stepcredit.signals.signal import IndexedScores, refuse_empty
from stepcredit.signals.signal_registry import register_signal

PATH = "/v1/chat/completions"
STEPS_BEFORE_WARNING = 20
"""Steps scored before a judge that leaves most of them undecided is reported."""
UNDECIDED_WARNING = (
    "%s: %d of %d steps scored 0.5: the model hardly ever writes %s or %s; does it reason first?"
)
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


@register_signal("judge")
@dataclass(frozen=True, kw_only=True)
class Judge(Served):
    """A language model's Yes or No on each step, as a probability or a share of votes.

        s_j = mean over votes of P(Yes) / (P(Yes) + P(No))

    P is read at the token where the verdict stands, from the log-probs of the most likely tokens
    there; case and space around a token do not matter. A vote with neither word counts 0.5.
    A model that thinks first begins with its thoughts, not with a verdict: set `reasons`, or turn
    its thinking off through `extra`.

    Args:
        per: "step" sends one question per step, with the earlier steps in the question; "turns"
            does the same with each earlier step as a turn that was answered Yes; "response" sends
            one question per response, and the answer has one numbered line per step.
        rubric: what makes a step right, in your words; part of the question.
        system: template of the system message; None for the default, "" for no message.
        template: template of the question (Jinja); it may use `prompt`, `steps`, `earlier`,
            `step`, `number`, `rubric`, `yes` and `no`. It is filled in Jinja's sandbox: 10,000,000
            characters and 100,000 turns of its loops at most.
        yes, no: the two words.
        read: "logprobs" for P, or "text" for 1 or 0 by the word that was written.
        reasons: the model reasons before its verdict: the last Yes or No it writes is read.
        votes: samples per question.
        temperature: temperature of the samples; above 0 if there are several.
        max_tokens: most tokens that the model writes; None: 1, or the server's default if the
            verdict may need more.
        top_logprobs: how many tokens the server gives log-probs of.
        extra: further fields of the request, such as `{"seed": 1}`.
        empty: "refuse" an empty response, or "score" it.

    Raises:
        SettingError: a field out of range, or a template that does not parse or fails.
        SignalError: a template fails on a response; the error names the response.

    Example:
        >>> direct = {"chat_template_kwargs": {"enable_thinking": False}}
        >>> judge = Judge(url="http://localhost:8000", model="Qwen/Qwen3-8B", extra=direct)
        >>> judge.grain
        'steps'

    Source: generative reward models (RLHFlow, GenRM). Differs: earlier turns are answered Yes.
    """

    grain = "steps"
    per: str = choice("step", ("step", "turns", "response"), "what one request is about")
    rubric: str = text("", "what makes a step right")
    system: str | None = text(None, "template of the system message")
    template: str | None = text(None, "template of the question")
    yes: str = declare("Yes", is_name, "the word for a right step")
    no: str = declare("No", is_name, "the word for a wrong step")
    read: str = choice("logprobs", ("logprobs", "text"), "where a verdict is read")
    reasons: bool = flag(False, "the model reasons before its verdict")
    votes: int = whole(1, "samples per question", at_least=1)
    temperature: float = number(0.0, "temperature of the samples", at_least=0)
    max_tokens: int | None = whole(
        None, "most tokens that the model writes", at_least=1, optional=True
    )
    top_logprobs: int = whole(20, "tokens whose log-probs the server gives", at_least=1)
    extra: Mapping[str, Any] = declare({}, is_json_object, "further fields of the request")
    empty: str = choice("refuse", ("refuse", "score"), "what is done with an empty response")

    def __post_init__(self) -> None:
        super().__post_init__()
        if word(self.yes) == word(self.no):
            raise SettingError(f"expected another word than yes, got {self.no!r}", field="no")
        if self.votes > 1 and self.temperature == 0:
            reason = f"expected a number above 0: at 0 all {self.votes} votes are the same"
            raise SettingError(reason, field="temperature")
        self.prompt.check()

    @cached_property
    def prompt(self) -> JudgePrompt:
        """The messages that ask for a verdict."""
        return JudgePrompt(self.per, self.rubric, self.system, self.template, self.yes, self.no)

    @cached_property
    def verdicts(self) -> VerdictReader:
        """How scores are read from the answers."""
        return VerdictReader(self.yes, self.no, self.read, self.reasons, self.votes)

    @property
    def identity(self) -> dict[str, Any]:
        """All settings but those of the connection; the templates in use."""
        system, template = self.prompt.templates
        return {**super().identity, "system": system, "template": template}

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Yield scores as they arrive; warn once if most verdicts are undecided."""
        undecided, steps, warned = 0, 0, False
        for index, scores in super().stream(responses):
            yield index, scores
            steps += len(scores)
            undecided += scores.count(UNDECIDED)
            if not warned and 2 * undecided > steps >= STEPS_BEFORE_WARNING:
                warned = True
                logger.warning(UNDECIDED_WARNING, self.name, undecided, steps, self.yes, self.no)

    async def ask(self, asking: Any, response: Response) -> list[float]:
        """Send one request per step, all at the same time, or one for the whole response."""
        from stepcredit.signals.served.running import together

        if self.empty == "refuse":
            refuse_empty(response)
        count = len(response.step_texts)
        if self.per == "response":
            lines = partial(self.verdicts.of_lines, count)
            return list(await asking(PATH, self._body(response, count), lines))
        bodies = [self._body(response, number) for number in range(1, count + 1)]
        return await together(
            [partial(asking, PATH, body, self.verdicts.of_step) for body in bodies]
        )

    def _body(self, response: Response, number: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.prompt.messages(response, number),
            "n": self.votes,
            "temperature": self.temperature,
        }
        short = self.per != "response" and not self.reasons
        if self.max_tokens is not None or short:
            body["max_tokens"] = self.max_tokens or 1
        if self.read == "logprobs":
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return body | dict(self.extra)
