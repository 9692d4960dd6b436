"""Made-up and mutated templates: a text, or one line that names the setting, never a traceback.

A response's text goes through every template that works, and must come out as it is.
"""

from __future__ import annotations

import random
from typing import Any

from tests.fuzz.cases import CASES, generator

from stepcredit.errors import SettingError, SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.served.llm_judge import Judge
from stepcredit.signals.served.prompts import QUESTIONS, SYSTEM

NAMES = ["prompt", "steps", "earlier", "step", "number", "rubric", "yes", "no"]
ODD_NAMES = ["nothing", "range", "self", "lipsum", "namespace", "caller", "loop", "_count_turn"]
ATTRIBUTES = [
    "strip()",
    "upper()",
    "split()",
    "strip",
    "split()[0]",
    "__class__",
    "__globals__",
    "format(9)",
    "index",
]
ATTRIBUTES += [
    "center(10**9)",
    "append(1)",
    "__init__.__globals__",
    "first",
    "zfill(10**9)",
    "mro()",
]
FILTERS = ["trim", "upper", "length", "list", "first", "join", "join(',')", "tojson", "int", "sum"]
FILTERS += ["tojson(indent=10**9)", "indent(10**9)", "center(10**9)", "map('upper')", "safe", "e"]
FILTERS += ["random", "format(1)", "replace('', 'ab')", "batch(10**9, 1)", "attr('__class__')"]
FILTERS += [
    "default('x')",
    "map(attribute='__class__')",
    "groupby('a')",
    "sort",
    "pprint",
    "urlize",
]
NUMBERS = ["0", "1", "2", "-1", "10**9", "10**5000", "1e308"]
ODD_NUMBERS = ["9" * 5000, "1e9999", "0x" + "f" * 5000]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "or", "is"]
TEXTS = ["'a'", "'%999999999d'", "'{:999999999}'", "''", "'\\ud800'", "'{{ 7 * 7 }}'"]
PIECES = ["{{", "}}", "{%", "%}", "{#", "#}", "{%-", "-%}", "for", "in", "if", "endif", "endfor"]
PIECES += ["macro", "set", "block", "include", "extends", "raw", "\n", "\x00", "\ud800", "(", "["]
MARK = "{{ 'Qz' ~ 7 }}{% if %}{# é #}"
COMPILED = "Qz7"
"""What the mark becomes where a response's text is taken for a template."""
UNSAFE = ("<class", "built-in", "<function", "object at 0x", "mappingproxy")


def expression(chance: random.Random, depth: int) -> str:
    """An expression, which may make no sense."""
    inner = lambda: expression(chance, depth - 1)  # noqa: E731
    kind = chance.randint(0, 10) if depth else chance.randint(0, 3)
    odd = chance.random() < 0.02
    if kind < 2:
        return chance.choice(ODD_NAMES if odd else NAMES)
    if kind == 2:
        return chance.choice(ODD_NUMBERS if odd else NUMBERS)
    if kind == 3:
        return chance.choice(TEXTS)
    if kind == 4:
        return f"{inner()}.{chance.choice(ATTRIBUTES)}"
    if kind == 5:
        return f"{inner()} | {chance.choice(FILTERS)}"
    if kind == 6:
        return f"[{inner()}, {inner()}]"
    if kind == 7:
        return f"{inner()}[{inner()}]"
    if kind == 8:
        return f"{inner()}({inner()})"
    return f"({inner()} {chance.choice(OPERATORS)} {inner()})"


def statement(chance: random.Random, depth: int) -> str:
    """A piece of a template, which may nest others."""
    kind = chance.randint(0, 9) if depth else 0
    body = statement(chance, depth - 1) if kind > 2 else ""
    found = expression(chance, 3)
    if kind <= 2:
        return f"{{{{ {found} }}}}"
    if kind <= 4:
        return f"{{% for step in {found} %}}{body}{{% endfor %}}"
    if kind == 5:
        return f"{{% if {found} %}}{body}{{% else %}}{statement(chance, depth - 1)}{{% endif %}}"
    if kind == 6:
        return f"{{% set number = {found} %}}{body}"
    if kind == 7:
        return f"{{% macro x(y) %}}{body}{{{{ x(y) }}}}{{% endmacro %}}{{{{ x({found}) }}}}"
    if kind == 8:
        return f"{{% set x %}}{body}{body}{{% endset %}}{{{{ x }}}}"
    return f"{body} and {statement(chance, depth - 1)}"


def source(chance: random.Random) -> str:
    """A template: made up, or one of ours with letters and pieces put in, cut or doubled."""
    if chance.random() < 0.6:
        made = "".join(statement(chance, chance.randint(0, 3)) for _ in range(chance.randint(1, 3)))
        return f"{{{{ step }}}}{made}" if chance.random() < 0.7 else made
    text = chance.choice([*SYSTEM.values(), *QUESTIONS.values()])
    for _ in range(chance.randint(0, 3)):
        start, end = sorted(chance.choices(range(len(text) + 1), k=2))
        pieces = [chance.choice(PIECES), f"{{{{ {expression(chance, 2)} }}}}", "", text[start:end]]
        text = text[:start] + chance.choice(pieces) + text[chance.choice([start, end]) :]
    return text


def response(chance: random.Random) -> Response:
    """A response whose texts look like templates."""
    words = [MARK, "{{", "}}", "{% for s in steps %}", "\x00", "\ud800", "a", "1", "\n", "{{ x }}"]
    steps = ["".join(chance.choices(words, k=chance.randint(1, 5))) for _ in range(3)]
    steps = [MARK + step for step in steps]
    text = "".join(steps)
    ends = (len(steps[0]), len(steps[0]) + len(steps[1]), len(text))
    return Response(MARK, text, ((0, len(text)),), ends, name="r.jsonl:5")


def filled(chance: random.Random) -> tuple[str, str | list[dict[str, str]]]:
    """A case's template, and the chat it makes or the line that refuses it."""
    setting, written = chance.choice(["template", "system"]), source(chance)
    fields: dict[str, Any] = {setting: written, "per": chance.choice(["step", "turns", "response"])}
    asked = response(chance)
    try:
        judge = Judge(url="http://h", model="m", rubric=MARK, **fields)
        return written, judge.prompt.messages(asked, len(asked.step_texts))
    except (SettingError, SignalError) as error:
        line = str(error)
    place = f"{setting}: " if line.startswith(setting) else f"r.jsonl:5: {setting}: fails on step "
    assert line.startswith(place)
    return written, line


def test_template_is_filled_or_refused_in_one_line() -> None:
    chats = 0
    for case in range(CASES):
        try:
            written, found = filled(generator("templates", case))
        except Exception as error:
            raise AssertionError(f"case {case}") from error
        if isinstance(found, str):
            assert found.isprintable(), f"case {case}: {found!r}"
            assert len(found) < 500, f"case {case}: {found}"
            continue
        chats += 1
        texts = [turn["content"] for turn in found]
        for unsafe in UNSAFE:
            assert not any(unsafe in text for text in texts), f"case {case}: {written!r}"
        assert not any(COMPILED in text for text in texts), f"case {case}: {written!r}"
        if written.startswith("{{ step }}"):
            assert any(text.startswith(MARK) for text in texts), f"case {case}: {written!r}"
    assert 0 < chats < CASES
