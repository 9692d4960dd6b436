"""`SelfTeacher`: the policy that knows more as the teacher of the policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import choice, declare, is_name, number, text, whole
from stepcredit.signals.models.checkpoints import fingerprint_of_tokenizer, load_tokenizer
from stepcredit.signals.models.privileged_prompt import (
    CONTEXTS,
    SIBLING,
    TEMPLATE,
    Context,
    PrivilegedPrompt,
)
from stepcredit.signals.models.ratios import Distillation, model_field
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores
from stepcredit.signals.signal_registry import register_signal

logger = logging.getLogger("stepcredit.signals")


def log_absent(notice: str) -> None:
    """Write to the log how many responses had no context."""
    logger.info("self-teacher: %s", notice)


def _are_contexts(value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    listed = isinstance(names, list | tuple) and 0 < len(names) == len(set(map(str, names)))
    known = listed and all(name in CONTEXTS for name in names)
    return None if known else f"one or several of {', '.join(CONTEXTS)}"


@register_signal("self-teacher")
@dataclass(frozen=True, kw_only=True)
class SelfTeacher(Distillation):
    r"""Self-distillation: the policy with privileged context against the policy without it.

        score_t = log p(y_t | x, c, y_<t) - log p(y_t | x, y_<t)

    x is the prompt, c a context that the student never reads: the gold answer, a right response of
    the group, an environment's feedback, a critique, or several of them. A token that the policy
    would rather write once it knows c scores above 0. The teacher's prompt is the student's, with
    the question replaced by `template`; the response's tokens are the same on both sides.

    Args:
        student: the policy, as in `LogRatio`; None: `student_logprobs` of the rows, which a trainer
            computes.
        teacher: the model that reads the context, such as the policy before training; None: the
            student itself, loaded once. If both are None, a trainer computes both sides.
        context: "answer", "sibling", "feedback" or "critique", or a list of them. A response may
            lack some of a list.
        answer, feedback, critique: the row's fields that hold them.
        template: of the teacher's question (Jinja); it must use `prompt` and each of the contexts,
            which are empty where a response lacks them. It is filled in Jinja's sandbox.
        right_above: a sibling is right if its outcome is above this.
        seed: the sibling's draw depends on it and on the responses' texts.
        absent: "refuse" a response without any context, or let its scores be "zero".
        in_prompt: "refuse" a context that the student's prompt holds, as words of their own, or
            "allow" it. Short answers, such as numbers, often stand in a question.
        tokenizer: the policy's; needed if neither model is a local folder.
        tell: called with a line about how many responses have no context, where some have none; by
            default, the log.
        temperature, clamp, per, max_tokens_per_batch, device, dtype, unscorable: as in
            `Distillation`.

    Returns:
        A response without context scores exactly 0 (`absent="zero"`).

    Raises:
        RolloutError: a response without context, or a prompt that holds one; a prompt whose tokens
            do not hold its text.
        SettingError: a template that leaves out the prompt or a context, or no tokenizer.
        SignalError: as `Distillation`.

    Example:
        >>> from stepcredit.signals.models.self_teacher import SelfTeacher
        >>> teacher = SelfTeacher(student="models/policy", context=["sibling", "feedback"])
        >>> teacher.contexts, teacher.cacheable
        (('sibling', 'feedback'), False)

    Source: SDPO (2601.20802) with siblings and feedback, OPSD (2601.18734) with the gold answer,
    SDFT (2601.19897). Differs: the log-ratio is a process signal at the sampled token (k1), without
    a gradient and without the other tokens of the vocabulary.
    """

    teacher: Any = model_field("the model that reads the context; null: the student")
    student: Any = model_field("the policy, which wrote the responses")
    context: str | Sequence[str] = declare(
        "answer", _are_contexts, f"what the teacher is told: {', '.join(CONTEXTS)}, or a list"
    )
    answer: str = declare("answer", is_name, "field of the gold answer")
    feedback: str = declare("feedback", is_name, "field of an environment's feedback")
    critique: str = declare("critique", is_name, "field of a critique")
    template: str | None = text(None, "template of the teacher's question")
    right_above: float = number(0.0, "a sibling is right if its outcome is above this")
    seed: int = whole(0, "seed of the sibling's draw")
    absent: str = choice("refuse", ("refuse", "zero"), "what a response without context gets")
    in_prompt: str = choice(
        "refuse", ("refuse", "allow"), "a context that the student's prompt holds"
    )
    tell: Callable[[str], None] = declare(
        log_absent,
        lambda value: None if callable(value) else "a function",
        "called with how many responses have no context",
    )

    notice_field = "tell"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.privilege.check()

    @property
    def contexts(self) -> tuple[str, ...]:
        """The names of the contexts."""
        return (self.context,) if isinstance(self.context, str) else tuple(self.context)

    @cached_property
    def privilege(self) -> PrivilegedPrompt:
        """How the teacher's prompt is made."""
        return PrivilegedPrompt(
            contexts=self.contexts,
            fields={name: getattr(self, name) for name in CONTEXTS if name != SIBLING},
            template=TEMPLATE if self.template is None else self.template,
            may_lack=self.absent == "zero",
            may_show=self.in_prompt == "allow",
            right_above=self.right_above,
            seed=self.seed,
        )

    @property
    def cacheable(self) -> bool:
        """Whether no sibling is needed, which depends on the other responses."""
        return SIBLING not in self.contexts and super().cacheable

    def model_of(self, name: str) -> Any:
        """As in `LogRatio`; the teacher is the student where no other model is named."""
        named = super().model_of(name)
        return self.student if named is None and name == "teacher" else named

    @property
    def identity(self) -> dict[str, Any]:
        """As in `LogRatio`, with all that the teacher's prompt depends on."""
        names = ("answer", "feedback", "critique", "right_above", "seed", "absent", "in_prompt")
        known = self._tokenizer_source
        return {
            **super().identity,
            **{name: getattr(self, name) for name in names},
            "contexts": list(self.contexts),
            "template": self.privilege.template,
            "tokenizer": None if known is None else fingerprint_of_tokenizer(known),
        }

    def content(self, response: Response) -> Any:
        """What both models' log-probs depend on, and the context."""
        context = self.privilege.read([response])[0]
        return [super().content(response), response.prompt, sorted(context.items())]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Zeros where there is no context, then the others as in `LogRatio`."""
        contexts = self.privilege.read(responses)
        known = [index for index, context in enumerate(contexts) if context]
        if len(known) < len(responses):
            absent = len(responses) - len(known)
            self.tell(f"{absent} of {len(responses)} responses have no context: they score 0")
        for index, context in enumerate(contexts):
            if not context:
                yield index, [0.0] * self._size(responses[index])
        own = [responses[index] for index in known]
        told = [self._told(responses[index], contexts[index]) for index in known]
        for place, scores in self._ratios({"student": own, "teacher": told}):
            yield known[place], scores

    def _size(self, response: Response) -> int:
        return response.num_tokens if self.per == "tokens" else len(response.step_ends)

    def _told(self, response: Response, context: Context) -> Response:
        """The response as the teacher reads it."""
        if self.model_of("teacher") is None:  # its log-probs are in the row
            return response
        question = self.privilege.question(response, context)
        ids = self.privilege.prompt_ids(response, context, self._tokenizer)
        return replace(response, prompt=question, prompt_ids=ids)

    @property
    def _tokenizer_source(self) -> Any:
        """The tokenizer given, or else that of a local model; None: there is neither."""
        local = [each for each in self.sources.values() if isinstance(each, LocalLogProbs)]
        return local[0].tokenizer_source if local and self.tokenizer is None else self.tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        if self._tokenizer_source is None:
            reason = "the policy's is needed, to write the teacher's prompt"
            raise SettingError(reason, field="tokenizer")
        return load_tokenizer(self._tokenizer_source)
