"""What a backend of `stepcredit eval` takes and gives: requests for samples, and samples."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stepcredit.errors import SettingError
from stepcredit.evals.eval_tasks import EvalTask
from stepcredit.evals.problems import EvalProblem
from stepcredit.keys import keyed_seed
from stepcredit.settings.fields import (
    check_fields,
    check_seed,
    declare,
    is_mapping,
    number,
    text,
    whole,
)
from stepcredit.signals.chat import apply_chat_template
from stepcredit.signals.offsets import spans_of_text, word_tokens
from stepcredit.signals.responses import Response
from stepcredit.signals.server_statistics import ServedStatistics

Finish = Literal["stop", "length"]
_PLACE = re.compile(r"\{(prompt)\}")


@dataclass(frozen=True)
class SamplingSettings:
    """How samples are drawn; two runs that write one file must agree in all of it but `samples`.

    Args:
        samples: n, samples per problem.
        temperature: 0 takes the most likely token.
        top_p: only the most likely tokens, whose probabilities sum to this, are drawn.
        max_tokens: most tokens of a response.
        seed: seed of the draws; each sample has its own, made of it, its problem and its place.
        system: the system turn; None: none.
        templates: the user's turn of a task, by the task's name; `{prompt}` in it is the problem.
        chat: whether turns are put into the model's chat template; None: if it has one.

    Raises:
        SettingError: a value out of range, or several samples at temperature 0.

    Example:
        >>> SamplingSettings(samples=4, temperature=0.0)
        Traceback (most recent call last):
        ...
        stepcredit.errors.SettingError: samples: 4 at temperature 0 would all be the same; ask \
for 1, or a temperature above 0
    """

    samples: int = whole(1, "samples per problem", at_least=1)
    temperature: float = number(1.0, "temperature of the draws", at_least=0)
    top_p: float = number(1.0, "probability of the tokens that are drawn", above=0, at_most=1)
    max_tokens: int = whole(2048, "most tokens of a response", at_least=1)
    seed: int = whole(0, "seed of the draws")
    system: str | None = text(None, "the system turn")
    templates: Mapping[str, str] = declare({}, is_mapping, "the user's turn by task")
    chat: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_seed(self.seed)
        if self.samples > 1 and self.temperature == 0:
            reason = f"{self.samples} at temperature 0 would all be the same"
            advice = "ask for 1, or a temperature above 0"
            raise SettingError(f"{reason}; {advice}", field="samples")
        for name, template in self.templates.items():
            if "{prompt}" not in template:
                raise SettingError("holds no {prompt}", field=f"template {name}")

    def user_turn(self, problem: EvalProblem) -> str:
        """What the user says: the task's template with the problem in it."""
        template = self.templates.get(problem.task.name, problem.task.template)
        return _PLACE.sub(lambda _: problem.prompt, template)

    def identity(self, task: EvalTask) -> dict[str, Any]:
        """What the samples of a task depend on, besides the model; written into each row."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "system": self.system,
            "template": self.templates.get(task.name, task.template),
        }


@dataclass(frozen=True)
class SampleRequest:
    """One sample to be drawn.

    Args:
        problem: the problem.
        place: which of its samples, from 0.
        user: the user's turn.
        system: the system turn, if there is one.
    """

    problem: EvalProblem
    place: int
    user: str
    system: str | None = None

    @property
    def name(self) -> str:
        """The name in errors."""
        return f"{self.problem.group}, sample {self.place}"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns, as chat templates and servers take them."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.user}]

    @property
    def plain(self) -> str:
        """The turns as one text, for models without a chat template."""
        return "\n\n".join(turn["content"] for turn in self.messages)

    def draw_seed(self, seed: int, bits: int = 63) -> int:
        """The sample's own seed, whatever else is sampled, of at most 63 bits."""
        return keyed_seed(seed, "sample", self.problem.group, self.place) % 2**bits


@dataclass(frozen=True)
class EvalSample:
    """One sampled response.

    Args:
        text: without special tokens.
        finish: `stop`, or `length` where it was cut off at the limit.
        completion_tokens: tokens sampled, the one that ends the text included.
        tokens: the text in one piece per token.
        token_ids: the sampled ids, if the backend knows them.
        prompt_ids: the ids of the prompt, likewise.
    """

    text: str
    finish: Finish
    completion_tokens: int
    tokens: list[str] = field(default_factory=list)
    token_ids: list[int] | None = None
    prompt_ids: list[int] | None = None


Drawn = list[tuple[int, EvalSample]]
"""Samples that came together, each with the index of its request."""


class Sampler(ABC):
    """A backend: it draws samples from one model.

    Args:
        settings: how samples are drawn.
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Which model is sampled and how, as JSON: two runs with the same one may share a file."""

    @property
    def server_counts(self) -> ServedStatistics | None:
        """The requests to servers so far; None: the model is in this process."""
        return None

    @abstractmethod
    def draw(self, requests: Sequence[SampleRequest]) -> Iterator[Drawn]:
        """Draw each requested sample once; yield them as they come, in any order.

        Raises:
            SettingError: a prompt that does not fit into the model; before the first is drawn.
            SignalError: the model or the server failed.
        """


def prompt_tokens(tokenizer: Any, request: SampleRequest, chat: bool | None) -> list[int]:
    """The token ids of a request's turns.

    Args:
        tokenizer: of transformers.
        request: the request.
        chat: whether the chat template is used; None: if the tokenizer has one.

    Raises:
        SignalError: the template fails, or there is none although `chat` asks for it.
    """
    has_template = getattr(tokenizer, "chat_template", None) is not None
    if has_template if chat is None else chat:
        options = {"add_generation_prompt": True, "return_dict": True}
        return list(apply_chat_template(tokenizer, request.messages, **options)["input_ids"])
    return list(tokenizer(request.plain)["input_ids"])


def finish_of(reason: Any) -> Finish:
    """How a response ended, by the `finish_reason` of vLLM and of servers.

    Example:
        >>> finish_of("length"), finish_of("stop"), finish_of(None)
        ('length', 'stop', 'stop')
    """
    return "length" if reason == "length" else "stop"


def sample_of_ids(
    ids: Sequence[int], tokenizer: Any, finish: Finish, prompt_ids: Sequence[int]
) -> EvalSample:
    """A sample from the ids that were drawn."""
    response = Response.of_ids("", ids, tokenizer)
    return EvalSample(
        response.text, finish, len(ids), response.token_texts, list(ids), list(prompt_ids)
    )


def sample_of_text(
    written: str, tokenizer: Any, finish: Finish, completion_tokens: int | None
) -> EvalSample:
    """A sample of which only the text is known: its tokens are those of a tokenizer, or words.

    Example:
        >>> sample_of_text("It is 4.", None, "stop", None).tokens
        ['It ', 'is ', '4.']
    """
    if tokenizer is None or not written:
        tokens = word_tokens(written)
        return EvalSample(written, finish, completion_tokens or len(tokens), tokens)
    ids, spans = spans_of_text(written, tokenizer)
    response = Response("", written, spans, token_ids=ids)
    count = completion_tokens or len(ids)
    return EvalSample(written, finish, count, response.token_texts, list(ids))
