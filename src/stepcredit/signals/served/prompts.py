"""What a judge is asked: Jinja templates, filled in a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepcredit.errors import SettingError, SignalError
from stepcredit.requires import require
from stepcredit.signals.responses import Response, at

if TYPE_CHECKING:
    from stepcredit.signals.served.llm_judge import Judge

VARIABLES = ("prompt", "steps", "earlier", "step", "number", "rubric", "yes", "no")
EXAMPLE = ["1 + 1 = 2.\n\n", "2 + 1 = 3.\n\n", "So 3."]
"""Steps of the response on which a template is tried before anything is asked."""
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


def check_templates(judge: Judge) -> None:
    """Refuse a template that does not parse, uses a variable there is not, or fails on an example.

    What fails for want of an element or by a wrong value, such as `prompt.split("#")[1]`, may do
    for real responses: it is refused where it fails on one of those.

    Raises:
        SettingError: it names the setting.
    """
    require("signals", "jinja2")
    from stepcredit.signals.served.templates import TemplateFailed, fill

    for field, source in zip(("system", "template"), templates(judge), strict=True):
        check_variables(source, field)
        for number in range(1, len(EXAMPLE) + 1):
            try:
                fill(source, _values(judge, "1 + 1 + 1 = ?", EXAMPLE, number))
            except TemplateFailed as failed:
                if not failed.with_others:
                    reason = f"fails on an example: {failed}"
                    raise SettingError(reason, field=field) from None


def check_variables(source: str, field: str) -> None:
    """Refuse a template that does not parse or uses a variable there is not.

    Raises:
        SettingError: it names the setting.

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
    used = meta.find_undeclared_variables(environment().parse(source))
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

    Raises:
        SignalError: a template fails on this response; it names the response and the setting.
    """
    system_template, template = templates(judge)
    system = _filled(system_template, "system", judge, response, number)
    chat = [{"role": "system", "content": system}] if system else []
    for step in range(1 if judge.per == "turns" else number, number):
        earlier = _filled(template, "template", judge, response, step)
        chat.append({"role": "user", "content": earlier})
        chat.append({"role": "assistant", "content": judge.yes})
    question = _filled(template, "template", judge, response, number)
    return [*chat, {"role": "user", "content": question}]


def _filled(source: str, field: str, judge: Judge, response: Response, number: int) -> str:
    from stepcredit.signals.served.templates import TemplateFailed, fill

    try:
        return fill(source, _values(judge, response.prompt, response.step_texts, number))
    except TemplateFailed as failed:
        reason = f"fails on step {number}: {failed}"
    raise at(response, SignalError, reason, field=field)


def _values(judge: Judge, prompt: str, steps: list[str], number: int) -> dict[str, Any]:
    """What a template may use, by name; see `VARIABLES`."""
    return {
        "prompt": prompt,
        "steps": steps,
        "earlier": steps[: number - 1],
        "step": steps[number - 1],
        "number": number,
        "rubric": judge.rubric,
        "yes": judge.yes,
        "no": judge.no,
    }
