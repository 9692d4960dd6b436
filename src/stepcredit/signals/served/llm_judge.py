"""Generative reward models and language models as judges: is this step right, Yes or No?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import choice, declare, flag, is_name, text, whole
from stepcredit.signals.responses import Response
from stepcredit.signals.served.chat_judge import PATH, ChatJudge
from stepcredit.signals.served.prompts import JudgePrompt
from stepcredit.signals.served.verdicts import UNDECIDED, VerdictReader, word
from stepcredit.signals.signal import IndexedScores
from stepcredit.signals.signal_registry import register_signal

STEPS_BEFORE_WARNING = 20
"""Steps scored before a judge that leaves most of them undecided is reported."""
UNDECIDED_WARNING = (
    "%s: %d of %d steps scored 0.5: the model hardly ever writes %s or %s; does it reason first?"
)
logger = logging.getLogger(__name__)


@register_signal("judge")
@dataclass(frozen=True, kw_only=True)
class Judge(ChatJudge):
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
        tell: called with requests and tokens before and after scoring; by default, the log.

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
    top_logprobs: int = whole(20, "tokens whose log-probs the server gives", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if word(self.yes) == word(self.no):
            raise SettingError(f"expected another word than yes, got {self.no!r}", field="no")
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
        """As for every judge, with the templates in use."""
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

    def bodies(self, response: Response) -> list[dict[str, Any]]:
        """One request per step, or one for the whole response."""
        count = len(response.step_texts)
        numbers = [count] if self.per == "response" else range(1, count + 1)
        return [self._body(response, number) for number in numbers]

    async def asked(
        self, asking: Any, response: Response, bodies: list[dict[str, Any]]
    ) -> list[float]:
        """Send the requests, all at the same time."""
        from stepcredit.signals.served.side_by_side import together

        if self.per == "response":
            lines = partial(self.verdicts.of_lines, len(response.step_texts))
            return list(await asking(PATH, bodies[0], lines))
        return await together(
            [partial(asking, PATH, body, self.verdicts.of_step) for body in bodies]
        )

    def _body(self, response: Response, number: int) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self.per != "response" and not self.reasons:
            more["max_tokens"] = self.max_tokens or 1
        if self.read == "logprobs":
            more |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return self.body(self.prompt.messages(response, number), **more)
