"""Tokens of the smoke test's policy: one sum per step, then an answer.

The answer has the form that the recipe's rewards read. So a policy that samples at random often
keeps the format, is sometimes right, and writes several steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepcredit.launch.reward_functions import reward_functions

SUMS = [(left, total - left) for total in (7, 9) for left in range(2, 6)]
"""They have two totals, so that every second answer is right."""
WORDS = ("So ", "Then ", "we have ")
FORMS = {"boxed": r"\boxed{%s}", "hash": "#### %s", "answer-tag": "<answer>%s</answer>"}
"""How an answer is written for each reader of `stepcredit.rewards`; of several, the tag is last."""
LAYOUTS = {
    "boxed": "boxed",
    "think-boxed": "boxed",
    "think-answer": "answer-tag",
    "qa-tags": "answer-tag",
}
"""The form that each template of the format reward requires."""


@dataclass(frozen=True)
class TinyVocabulary:
    """Texts that are one token each.

    Args:
        opening: the beginning of a response; empty where it begins with a step.
        steps: right and wrong sums, each with the blank line after it, and words.
        answers: the texts that may end a response.
    """

    opening: tuple[str, ...]
    steps: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them."""
        return self.opening + self.steps + self.answers


def reward_pieces(
    rewards: Mapping[str, str], fields: Mapping[str, Mapping[str, Any]]
) -> TinyVocabulary:
    """The texts that a recipe's rewards read; an answer in every form if no reward asks for one.

    Args:
        rewards, fields: the recipe's `rewards` and `reward_fields`.

    Raises:
        SettingError, EngineError: an unknown reward or field; the message begins with the key.

    Example:
        >>> reward_pieces({"layout": "format"}, {"layout": {"template": "think-answer"}}).answers
        ('</think>\\n<answer>7</answer>', '</think>\\n<answer>9</answer>')
    """
    rules = [each.rule for each in reward_functions(rewards, fields)]
    templates = {str(getattr(rule, "template", "")) for rule in rules}
    wanted = {getattr(rule, "read", None) for rule in rules} | set(map(LAYOUTS.get, templates))
    forms = [FORMS[name] for name in FORMS if name in wanted] or list(FORMS.values())
    thinks = any(template.startswith("think-") for template in templates)
    form = ("</think>\n" if thinks else "") + "\n".join(forms)
    totals = sorted({left + right for left, right in SUMS})
    steps = [f"{a} + {b} = {a + b + off}\n\n" for a, b in SUMS for off in (0, 1)]
    return TinyVocabulary(
        opening=("<think>\n",) if thinks else (),
        steps=(*steps, *WORDS),
        answers=tuple(form.replace("%s", str(total)) for total in totals),
    )
