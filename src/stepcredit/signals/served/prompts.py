"""What a judge is asked: Jinja templates, filled in a sandbox."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from stepcredit.errors import SettingError
from stepcredit.requires import require
from stepcredit.signals.responses import Response

if TYPE_CHECKING:
    from stepcredit.signals.served.judge import Judge

VARIABLES = ("prompt", "steps", "earlier", "step", "number", "rubric", "yes", "no")
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


@cache
def _environment() -> Any:
    require("signals", "jinja2")
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True)


def check_template(source: str | None, field: str) -> None:
    """Refuse a template that does not parse or uses a variable there is not.

    Raises:
        SettingError: it names the setting.

    Example:
        >>> check_template("{{ answer }}", "template")
        Traceback (most recent call last):
        ...
        stepcredit.errors.SettingError: template: unknown variable answer: expected prompt, steps, \
earlier, step, number, rubric, yes, no
    """
    environment = _environment()
    from jinja2 import TemplateSyntaxError, meta

    try:
        used = meta.find_undeclared_variables(environment.parse(source or ""))
    except TemplateSyntaxError as error:
        reason = f"line {error.lineno} does not parse: {error.message}"
        raise SettingError(reason, field=field) from error
    for name in sorted(used - set(VARIABLES)):
        reason = f"unknown variable {name}: expected {', '.join(VARIABLES)}"
        raise SettingError(reason, field=field)


def templates(judge: Judge) -> tuple[str, str]:
    """The templates in use, of the system message and of the question."""
    system = SYSTEM["response" if judge.per == "response" else "step"]
    question = QUESTIONS[judge.per]
    return (
        system if judge.system is None else judge.system,
        question if judge.template is None else judge.template,
    )


def messages(judge: Judge, response: Response, number: int) -> list[dict[str, str]]:
    """The chat that asks for the verdict on a step, or with `per="response"` on all.

    Args:
        judge: whose templates and words are used.
        response: split into steps.
        number: of the step, from 1.
    """
    system_template, template = templates(judge)
    system = _filled(system_template, judge, response, number)
    chat = [{"role": "system", "content": system}] if system else []
    for step in range(1 if judge.per == "turns" else number, number):
        chat.append({"role": "user", "content": _filled(template, judge, response, step)})
        chat.append({"role": "assistant", "content": judge.yes})
    return [*chat, {"role": "user", "content": _filled(template, judge, response, number)}]


def _filled(source: str, judge: Judge, response: Response, number: int) -> str:
    steps = response.step_texts
    filled: str = _template(source).render(
        prompt=response.prompt,
        steps=steps,
        earlier=steps[: number - 1],
        step=steps[number - 1],
        number=number,
        rubric=judge.rubric,
        yes=judge.yes,
        no=judge.no,
    )
    return filled


@cache
def _template(source: str) -> Any:
    return _environment().from_string(source)
