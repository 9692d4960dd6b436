"""The messages that a judge reads: Jinja templates, filled in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import SettingError, SignalError
from stepcredit.requires import require
from stepcredit.signals.responses import Response

VARIABLES = ("prompt", "steps", "earlier", "step", "number", "rubric", "yes", "no")
EXAMPLE = ["1 + 1 = 2.\n\n", "2 + 1 = 3.\n\n", "So 3."]
"""Steps of the response on which a template is tried before the first request."""
RUBRIC = """{% if rubric %}


What makes a step right:
{{ rubric }}{% endif %}"""
SYSTEM = {
    "step": "You check a solution one step at a time. If the step you are asked about is right, "
    "answer {{ yes }}, else {{ no }}: this one word." + RUBRIC,
    "response": "You check a solution step by step. For each step write one line, its number and "
    "{{ yes }} if the step is right, else {{ no }}, as in `1: {{ yes }}`. Write one line for each "
    "step and nothing after them." + RUBRIC,
}
QUESTIONS = {
    "step": """Problem:
{{ prompt }}
{% if earlier %}

Steps so far:
{% for text in earlier %}
{{ loop.index }}. {{ text.strip() }}
{% endfor %}
{% endif %}

Step {{ number }}, to check:
{{ step.strip() }}

Is step {{ number }} right? {{ yes }} or {{ no }}:""",
    "turns": """{% if number == 1 %}
{{ prompt }}

{% endif %}
{{ step.strip() }}""",
    "response": """Problem:
{{ prompt }}

Solution:
{% for text in steps %}
{{ loop.index }}. {{ text.strip() }}
{% endfor %}

Write {{ steps | length }} lines, one a step.""",
}


@dataclass(frozen=True)
class JudgePrompt:
    """The chat that asks a judge for its verdict.

    Args:
        per: "step", "turns" or "response", as in `Judge`.
        rubric: what makes a step right; templates may use it.
        system, template: Jinja templates of the system message and of the question; None for the
            defaults.
        yes, no: the two words of the verdict.
    """

    per: str
    rubric: str
    system: str | None
    template: str | None
    yes: str
    no: str

    @property
    def templates(self) -> tuple[str, str]:
        """The templates in use: of the system message, and of the question."""
        system = SYSTEM["response" if self.per == "response" else "step"]
        return (
            system if self.system is None else self.system,
            QUESTIONS[self.per] if self.template is None else self.template,
        )

    def check(self) -> None:
        """Refuse a template that does not parse, uses an unknown variable, or fails on an example.

        A template that fails because an element is missing or a value is wrong, such as
        `prompt.split("#")[1]`, may work for real responses: it is refused only when it fails on one
        of those.

        Raises:
            SettingError: the error names the setting.
        """
        require("signals", "jinja2")
        from stepcredit.signals.served.templates import TemplateFailed, fill

        for field, source in zip(("system", "template"), self.templates, strict=True):
            check_variables(source, field)
            for number in range(1, len(EXAMPLE) + 1):
                try:
                    fill(source, self._values("1 + 1 + 1 = ?", EXAMPLE, number))
                except TemplateFailed as failed:
                    if not failed.with_others:
                        reason = f"fails on an example: {failed}"
                        raise SettingError(reason, field=field) from None

    def messages(self, response: Response, number: int) -> list[dict[str, str]]:
        """The messages that ask for the verdict on one step, or on all with `per="response"`.

        Args:
            response: split into steps.
            number: the step's number, from 1.

        Raises:
            SignalError: a template fails on this response; the error names the response and the
                setting.
        """
        system_template, template = self.templates
        system = self._filled(system_template, "system", response, number)
        chat = [{"role": "system", "content": system}] if system else []
        for step in range(1 if self.per == "turns" else number, number):
            earlier = self._filled(template, "template", response, step)
            chat.append({"role": "user", "content": earlier})
            chat.append({"role": "assistant", "content": self.yes})
        question = self._filled(template, "template", response, number)
        return [*chat, {"role": "user", "content": question}]

    def _filled(self, source: str, field: str, response: Response, number: int) -> str:
        from stepcredit.signals.served.templates import TemplateFailed, fill

        try:
            return fill(source, self._values(response.prompt, response.step_texts, number))
        except TemplateFailed as failed:
            reason = f"fails on step {number}: {failed}"
        raise SignalError(reason, field=field, place=response.name)

    def _values(self, prompt: str, steps: list[str], number: int) -> dict[str, Any]:
        """What a template may use, by name; see `VARIABLES`."""
        return {
            "prompt": prompt,
            "steps": steps,
            "earlier": steps[: number - 1],
            "step": steps[number - 1],
            "number": number,
            "rubric": self.rubric,
            "yes": self.yes,
            "no": self.no,
        }


def check_variables(source: str, field: str, known: Sequence[str] = VARIABLES) -> set[str]:
    """Refuse a template that does not parse or uses an unknown variable.

    Args:
        source: the template.
        field: the setting that holds it, for errors.
        known: the variables that it may use.

    Returns:
        The variables that it uses.

    Raises:
        SettingError: the error names the setting.

    Example:
        >>> check_variables("{{ answer }}", "template")
        Traceback (most recent call last):
        ...
        stepcredit.errors.SettingError: template: unknown variable answer: expected prompt, steps, \
earlier, step, number, rubric, yes, no
    """
    from jinja2 import meta

    from stepcredit.signals.served.templates import TemplateFailed, compiled, environment

    try:
        compiled(source)
    except TemplateFailed as failed:
        raise SettingError(str(failed), field=field) from None
    used: set[str] = meta.find_undeclared_variables(environment().parse(source))
    for name in sorted(used - set(known)):
        reason = f"unknown variable {name}: expected {', '.join(known)}"
        raise SettingError(reason, field=field)
    return used
