"""The prompt of a self-teacher: the policy's own, with a context that the policy did not see."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.requires import require
from stepcredit.signals.facts import policy_ids, text_fact
from stepcredit.signals.offsets import spans_of_ids
from stepcredit.signals.responses import Response
from stepcredit.signals.siblings import right_siblings

SIBLING = "sibling"
CONTEXTS = ("answer", SIBLING, "feedback", "critique")
"""What a teacher may be told; all but the sibling stand in fields of the row."""
TEMPLATE = """{{ prompt }}{% if answer %}


The right answer is: {{ answer }}{% endif %}{% if sibling %}


A right solution:
{{ sibling }}{% endif %}{% if feedback %}


Feedback on an attempt:
{{ feedback }}{% endif %}{% if critique %}


A critique of an attempt:
{{ critique }}{% endif %}


Now solve the problem in your own words."""
Context = Mapping[str, str]
"""The contexts of one response by name; none of them is empty."""


@dataclass(frozen=True)
class PrivilegedPrompt:
    """How the question of a prompt becomes the question that the teacher reads.

    Args:
        contexts: which of `CONTEXTS` the teacher is told.
        fields: the row's field of each context but the sibling.
        template: of the teacher's question (Jinja); it may use `prompt` and the contexts' names.
        may_lack: whether a response may have no context at all.
        may_show: whether the student's prompt may hold a context.
        right_above, seed: of the sibling, as in `right_siblings`.
    """

    contexts: tuple[str, ...]
    fields: Mapping[str, str]
    template: str = TEMPLATE
    may_lack: bool = False
    may_show: bool = False
    right_above: float = 0.0
    seed: int = 0

    def check(self) -> None:
        """Refuse a template that does not parse, fails, or leaves out the prompt or a context.

        Raises:
            SettingError: the error names the setting.
        """
        require("signals", "jinja2")
        from stepcredit.signals.served.prompts import check_variables
        from stepcredit.signals.served.templates import TemplateFailed, fill

        used = check_variables(self.template, "template", ("prompt", *CONTEXTS))
        for name in ("prompt", *self.contexts):
            if name not in used:
                reason = f"does not use {name}, so the teacher would not read it"
                raise SettingError(reason, field="template")
        try:
            fill(self.template, dict.fromkeys(("prompt", *CONTEXTS), "1 + 1 = 2"))
        except TemplateFailed as failed:
            if not failed.with_others:
                reason = f"fails on an example: {failed}"
                raise SettingError(reason, field="template") from None

    def read(self, responses: Sequence[Response]) -> list[Context]:
        """The contexts of each response; empty where it has none.

        Args:
            responses: whole groups, if a sibling is among the contexts.

        Raises:
            RolloutError: a response has no context, or its prompt holds one, and that is not
                allowed; or a field holds no text.
        """
        drawn: Sequence[str | None] = [None] * len(responses)
        if SIBLING in self.contexts:
            drawn = right_siblings(responses, right_above=self.right_above, seed=self.seed)
        found = [self._of(*pair) for pair in zip(responses, drawn, strict=True)]
        for response, context in zip(responses, found, strict=True):
            if not context and not self.may_lack:
                raise self._absent(response)
            self.check_hidden(response, context, response.prompt)
        return found

    def check_hidden(self, response: Response, context: Context, prompt: str) -> None:
        """Refuse a context that stands in the student's prompt, as words of their own.

        Raises:
            RolloutError: it names the response and the context.
        """
        for name, text in () if self.may_show else context.items():
            if _holds(prompt, text):
                shown = f"{text[:40]}..." if len(text) > 40 else text
                reason = f"holds the {name} {shown!r} already, so the student reads it too"
                reason = f"{reason}; in_prompt='allow' lets it"
                raise RolloutError(reason, field="prompt", place=response.name)

    def question(self, response: Response, context: Context) -> str:
        """The question that the teacher reads.

        Raises:
            SignalError: the template fails on this response.
        """
        from stepcredit.signals.served.templates import TemplateFailed, fill

        values = {name: context.get(name, "") for name in CONTEXTS}
        try:
            return fill(self.template, {"prompt": response.prompt.strip(), **values})
        except TemplateFailed as failed:
            reason = str(failed)
        raise SignalError(f"fails: {reason}", field="template", place=response.name)

    def prompt_ids(self, response: Response, context: Context, tokenizer: Any) -> tuple[int, ...]:
        """The teacher's prompt: the student's, in which the question's tokens are replaced.

        All other tokens stay, such as a system turn and the marks of a chat template. Marks that
        stand in a context as text are no marks there.

        Args:
            response: with the policy's ids.
            context: what the teacher is told.
            tokenizer: the policy's, a fast one.

        Raises:
            RolloutError: the question does not stand in the prompt's tokens, or a context does.
        """
        ids, _ = policy_ids(response)
        text, spans = spans_of_ids(ids, tokenizer)
        self.check_hidden(response, context, text)
        asked = response.prompt.strip()
        start = text.rfind(asked)
        if not asked or start < 0:
            reason = "its text is not in the prompt's tokens, so a context can't be put there"
            raise RolloutError(reason, field="prompt", place=response.name)
        held = [
            index
            for index, (first, last) in enumerate(spans)
            if first < start + len(asked) and last > start
        ]
        left, right = spans[held[0]][0], spans[held[-1]][1]
        question = self.question(response, context)
        written = text[left:start] + question + text[start + len(asked) : right]
        new = tokenizer(written, add_special_tokens=False, split_special_tokens=True)
        return (*ids[: held[0]], *new["input_ids"], *ids[held[-1] + 1 :])

    def _of(self, response: Response, sibling: str | None) -> Context:
        found = {SIBLING: sibling} if sibling else {}
        for name in self.contexts:
            if name != SIBLING and response.facts.get(self.fields[name]) is not None:
                found[name] = text_fact(response, self.fields[name])
        return found

    def _absent(self, response: Response) -> RolloutError:
        """The error about a response without any context."""
        first = self.contexts[0]
        if first == SIBLING:
            reason = "no other response of the group is right"
        else:
            first, reason = self.fields[first], "missing: this signal needs it"
        reason = f"{reason}; absent='zero' gives scores of 0"
        return RolloutError(reason, field=first, place=response.name)


def _holds(text: str, part: str) -> bool:
    """Whether a text holds another, and not as a part of a longer word or number.

    Example:
        >>> _holds("Is it 42?", "42"), _holds("Is it 142, or 42.5?", "42")
        (True, False)
    """
    words = re.escape(part.strip())
    pattern = rf"(?<!\w)(?<!\d[.,]){words}(?!\w)(?![.,]\d)"
    return re.search(pattern, text, re.IGNORECASE) is not None
