"""A judge's templates: sandboxed, bounded, and refused in one line that names the setting."""

from __future__ import annotations

from typing import Any

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving

from stepcredit.errors import SettingError, SignalError
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.templates import MOST_TURNS, TemplateFailed, fill

LARGE = "makes more than 10,000,000 characters or items"
TURNS = "its loops take more than 100,000 turns"
NO_TEXT = "TypeError: strip is a method: call it with ()"
WIDE = "a number above 1,000"
TWICE = "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}"
FAILS = [
    ("{{ prompt.nothing }}", "'str object' has no attribute 'nothing'"),
    ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
    ("{{ number / (number - 2) }}", "ZeroDivisionError: division by zero"),
    ("{{ prompt + 1 }}", 'TypeError: can only concatenate str (not "int") to str'),
    ("{{ prompt() }}", "TypeError: 'str' object is not callable"),
    ("{{ step.strip }}", NO_TEXT),
    ("{{ step['strip'] }}", NO_TEXT),
    ("{{ step.strip ~ '' }}", NO_TEXT),
    ("{{ step.strip | string }}", NO_TEXT),
    ("{{ {'a': [step.strip]} }}", NO_TEXT),
    ("{{ 'a' * 10**10 }}", f"* {LARGE}"),
    ("{{ 10**10 * [1] }}", f"* {LARGE}"),
    ("{{ 10**100000 }}", f"** {LARGE}"),
    ("{{ '%999999999d' % 1 }}", "a text takes no %"),
    ("{{ '{:999999999}'.format(1) }}", "format is not available"),
    ("{{ 'x'.center(10**9) }}", "center is not available"),
    ("{{ 'x'.rjust(10**9) }}", "rjust is not available"),
    ("{{ 'x' | center(10**9) }}", WIDE),
    ("{{ 'x\n' | indent(width=10**9) }}", WIDE),
    ("{{ steps | tojson(indent=10**9) }}", WIDE),
    ("{{ steps | batch(10**9, 'x') | list }}", WIDE),
    (
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "it nests too deeply, or calls itself",
    ),
    (TWICE + "{{ f(40) }}", TURNS),
    ("{% for a in [0] * 1000 %}{% for b in [0] * 1000 %}{% endfor %}{% endfor %}", TURNS),
    ("{% for a in [0] * 9999999 %}{% set b = a %}{% endfor %}", TURNS),
    (
        "{% for a in [0] * 20 %}{{ 'x' * 999999 }}{% endfor %}",
        "it writes more than 10,000,000 characters",
    ),
    ("{{ steps.__class__ }}", "access to attribute '__class__' of 'list' object is unsafe."),
    (
        "{{ prompt['__cla' ~ 'ss__'] }}",
        "access to attribute '__class__' of 'str' object is unsafe.",
    ),
    ("{{ steps.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
    ("{% include 'x' %}", "TypeError: no loader for this environment specified"),
]
VARIABLES = "expected prompt, steps, earlier, step, number, rubric, yes, no"
UNREAD = [
    ("{% for i in range(10**9) %}{% endfor %}", f"unknown variable range: {VARIABLES}"),
    ("{{ lipsum(n=10**9) }}", f"unknown variable lipsum: {VARIABLES}"),
    ("{{ _count_turn() }}", f"unknown variable _count_turn: {VARIABLES}"),
    ("{{ steps | random }}", "line 1 does not parse: No filter named 'random'."),
    ("\n{{ 'a' | nothing }}", "line 2 does not parse: No filter named 'nothing'."),
    ("{{ " + "(" * 5000, "does not parse: it nests too deeply, or calls itself"),
]
AT_START = [*UNREAD, *((source, f"fails on an example: {reason}") for source, reason in FAILS)]


@pytest.mark.parametrize("setting", ["template", "system"])
@pytest.mark.parametrize(("source", "reason"), AT_START)
def test_template_is_refused_before_anything_is_asked(
    source: str, reason: str, setting: str
) -> None:
    with pytest.raises(SettingError) as caught:
        Judge("http://h", "m", **{setting: source})
    assert str(caught.value) == f"{setting}: {reason}"
    assert caught.value.__cause__ is None


def test_number_of_too_many_digits_in_a_template() -> None:
    with pytest.raises(SettingError, match=r"\Atemplate: does not parse: ValueError: [^\n]*\Z"):
        Judge("http://h", "m", template="{{ " + "9" * 5000 + " }}")


NO_ELEMENT = "list object has no element 1"
AT_ROW = {
    "{{ prompt.split('#')[1].strip() }}": NO_ELEMENT,
    "{{ prompt.split('#')[1] }}": NO_ELEMENT,
    "{{ prompt[prompt.index('#'):] }}": "ValueError: substring not found",
}


@pytest.mark.parametrize("source", AT_ROW)
def test_template_that_fails_on_some_responses(server: Misbehaving, source: str) -> None:
    judge = Judge(server.url, "judge", template=source)
    assert judge.scores([truth.response("1 # 2", ["So 2."])])
    with pytest.raises(SignalError) as caught:
        judge.scores([truth.response("1", ["So 2."], name="r.jsonl:7")])
    assert str(caught.value) == f"r.jsonl:7: template: fails on step 1: {AT_ROW[source]}"


def test_long_error_of_a_template_is_cut() -> None:
    with pytest.raises(TemplateFailed) as caught:
        fill("{{ prompt.index('x' * 1000) }}{{ {}[prompt] }}", {"prompt": "y\n\x1b" * 1000})
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


PLAIN = {
    "{{ steps | length }}/{{ number + 1 }}": "2/2",
    "{{ earlier | join(' ') | trim }}|{{ step.strip().upper() }}": "|ONE.",
    "{{ steps | map('trim') | join('; ') }}": "One.; Two.",
    "{{ step | replace('.', '!') | indent(2, first=true) }}": "  One!",
    "{{ steps | map('trim') }}{{ (steps | reverse)[0] }}": "['One.', 'Two.']Two.",
    "{{ {'step': step} | tojson }}": '{"step": "One."}',
    "{% for s in steps %}{% for w in s.split('.') %}{{ loop.index }}{% endfor %}{% endfor %}": (
        "1212"
    ),
    "{% macro m(s) %}<{{ s }}>{% endmacro %}{{ m(yes) }}{{ '=' * 3 }}{{ 7 % 4 }}{{ 2**5 }}": (
        "<Yes>===332"
    ),
    "{% set n = number - 1 %}{{ steps[n] ~ steps[-1] }}": "One.Two.",
    "{% if number == 1 and rubric is defined %}{{ rubric or 'none' }}{% endif %}": "none",
}


@pytest.mark.parametrize("source", PLAIN)
def test_what_templates_can_do(source: str) -> None:
    Judge("http://h", "m", template=source)
    values = {"prompt": "?", "steps": ["One.", "Two."], "step": "One.", "number": 1, "yes": "Yes"}
    assert fill(source, {**values, "earlier": [], "rubric": "", "no": "No"}) == PLAIN[source]


def test_turns_are_counted_each_time_anew() -> None:
    half = "{% for a in [0] * " + str(MOST_TURNS * 3 // 5) + " %}{% endfor %}"
    assert fill(half, {}) == fill(half, {}) == ""
    with pytest.raises(TemplateFailed):
        fill(half + half, {})


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% for a in b %}", "{# no #}", "{{", "%}", "{% raw %}"]
)
def test_text_of_a_response_is_no_template(server: Misbehaving, text: str) -> None:
    judge: Any = Judge(
        server.url, "judge", template="{{ prompt }}|{{ step }}|{{ rubric }}", rubric=text
    )
    judge.scores([truth.response(text, [text])])
    assert server.count()["last"]["messages"][-1]["content"] == f"{text}|{text}|{text}"
