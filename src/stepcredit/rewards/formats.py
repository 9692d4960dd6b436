"""Format templates: whether a response has the required format, as a reward and as a gate."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from stepcredit.errors import RolloutError
from stepcredit.rewards.base import Facts, Reward
from stepcredit.rewards.boxes import last_box
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.rewards.thinking import after_thinking
from stepcredit.settings.fields import declare, is_pattern, number

Template = Callable[[str], float | bool]


def sections(text: str, tags: Sequence[str]) -> list[str] | None:
    """The contents of `<a>...</a> <b>...</b>`, if the text consists of these sections only.

    Args:
        text: a response.
        tags: names of the tags in the required order, each once.

    Returns:
        The contents in order; None if the text has another format, or a section is empty.

    Example:
        >>> sections("<think>6*7</think> <answer>42</answer>", ["think", "answer"])
        ['6*7', '42']
        >>> sections("<answer>42</answer> I hope.", ["answer"]) is None
        True
    """
    rest, found = text.strip(), []
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1 or not rest.startswith(opening):
            return None
        content, closed, rest = rest[len(opening) :].partition(closing)
        if not closed or not content.strip():
            return None
        found.append(content.strip())
        rest = rest.lstrip()
    return None if rest else found


def _think_answer(text: str) -> bool:
    return sections(text, ["think", "answer"]) is not None


def _think_boxed(text: str) -> bool:
    head, closed, rest = text.strip().partition("</think>")
    thought = sections(head + closed, ["think"]) is not None
    return thought and "think>" not in rest and _boxed(rest)


def _after_prefill(template: Template) -> Template:
    """The same for a text whose opening `<think>` stands at the end of the prompt."""
    return lambda text: template("<think>" + text)


def _boxed(text: str) -> bool:
    return bool((last_box(after_thinking(text)) or "").strip())


def _qa_tags(text: str) -> bool:
    inside = after_thinking(text).strip()
    start = inside.find("<answer>")
    return start >= 0 and sections(inside[start:], ["answer"]) is not None


TEMPLATES: dict[str, Template] = {
    "think-answer": _think_answer,
    "think-boxed": _think_boxed,
    "prefilled-think-answer": _after_prefill(_think_answer),
    "prefilled-think-boxed": _after_prefill(_think_boxed),
    "boxed": _boxed,
    "qa-tags": _qa_tags,
}
"""think-answer: `<think>..</think><answer>..</answer>` and nothing else, each once, none empty.
think-boxed: `<think>..</think>`, then a text with a box that is not empty.
prefilled-think-answer, prefilled-think-boxed: the same without the opening `<think>`, which the
chat template has written at the end of the prompt.
boxed: a box that is not empty, behind the thinking.
qa-tags: one `<answer>..</answer>` that is not empty, at the end."""


def _is_template(value: Any) -> str | None:
    if callable(value) or (isinstance(value, str) and value in TEMPLATES):
        return None
    named = f"one of {', '.join(TEMPLATES)}"
    if not isinstance(value, str) or not value.startswith("^"):
        return f"{named}, a regular expression that starts with ^, or a function"
    return is_pattern(value)


@register_reward("format")
@dataclass(frozen=True)
class Format(Reward):
    r"""1 if a response has the format of the template, else 0; `gate` returns bools.

    Example:
        >>> layout = Format(template="think-answer")
        >>> layout(["<think>6*7</think><answer>42</answer>", "42"])
        [1.0, 0.0]
        >>> layout.gate(["<think>6*7</think><answer>42</answer>", "42"])
        [True, False]
        >>> Format(template=r"^\d+$")(["42", "about 42"])
        [1.0, 0.0]
    """

    gives: ClassVar[Literal["outcome", "format"]] = "format"
    template: str | Template = declare(
        "boxed", _is_template, "a template, a regular expression from ^ on (the whole text must "
        "match, . matches newlines too), or a function from a text to a bool or number"
    )  # fmt: skip
    passing: float = number(1.0, "the least reward with which a response passes the gate")

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """The reward of each text under the template."""
        rule = self._rule()
        return [_checked(rule(text), row) for row, text in enumerate(texts)]

    def gate(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has a format for which its advantages count."""
        return [value is not None and value >= self.passing for value in self(texts)]

    def _rule(self) -> Template:
        if callable(self.template):
            return self.template
        if self.template in TEMPLATES:
            return TEMPLATES[self.template]
        pattern = re.compile(self.template, re.DOTALL)
        return lambda text: pattern.fullmatch(text) is not None


def _checked(value: Any, row: int) -> float:
    if not isinstance(value, bool | int | float) or not abs(value) < float("inf"):
        raise RolloutError(
            f"the template gives {value!r}, not a finite number", row=row, field="format"
        )
    return float(value)
