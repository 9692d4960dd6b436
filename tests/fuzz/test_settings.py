"""Options of the command line with random fields and values: an object, or one line that names it.

Things are only constructed, through the functions that the commands use.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import fields

import pytest
from tests.fuzz.cases import CASES, generator

import stepcredit as sc
from stepcredit.cli.options import named_estimator, settings_of
from stepcredit.cli.reward import named_rewards
from stepcredit.cli.score import map_scores, named_signal, named_splitter
from stepcredit.errors import StepCreditError
from stepcredit.rewards.reward_registry import rewards
from stepcredit.signals.combine import MAPS
from stepcredit.signals.signal_registry import signal, signals
from stepcredit.signals.splitting import SPLITTERS

VALUES = [
    *["", " ", "0", "1", "-1", "0.5", "-0.0", "1e400", "-1e400", "NaN", "Infinity", "1e-320"],
    *[
        "true",
        "false",
        "null",
        "1" + "0" * 400,
        "-1" + "0" * 4200,
        "9" * 5000,
        "9223372036854775808",
    ],
    *["[]", "{}", '""', "[1, 2, 3]", "[1, [2, [3]]]", "[" * 90 + "]" * 90, "[" * 5000, "{" * 200],
    *['{"a": 1}', '{"process": 1e308, "outcome": -1e308}', '{"name": "exact"}', '{"": null}'],
    *['{"windows": {"size": 0}}', '{"windows": {"size": "x"}}', '{"tokens": {"no": 1}}'],
    *['"\\ud800"', "\udcff", "\u202e", "\x1b[31m", "a\nb", "é" * 300, "\U0001f600", "=", "a=b"],
    *["(", "(?P<x>", "a{99999999999}", "[a-", "math:fsum", "math:nothing", "no_such_module:f", ":"],
    *["masked_norm", "abs_max", "steps", "token", "boxed", "sentence", "auto", "pass", "response"],
    *["/no/such/folder", "http://", "http://[::1", "file:///etc/passwd", "x" * 3000],
]
"""Texts after the `=` of `--set`."""
BUILDERS: dict[str, Callable[[str, list[str]], object]] = {
    "--method": lambda name, texts: named_estimator(name, texts),
    "--reward": lambda name, texts: named_rewards([name], settings_of(texts)),
    "--signal": lambda name, texts: named_signal(name, texts),
    "--map": lambda name, texts: map_scores(signal("equations"), [f"{name}:{','.join(texts)}"]),
    "--split": lambda name, texts: named_splitter(f"{name}:{texts[0]}" if texts else name),
}
THINGS: dict[str, Callable[[], dict[str, type]]] = {
    "--method": sc.methods,
    "--reward": rewards,
    "--signal": signals,
    "--map": MAPS.all,
    "--split": SPLITTERS.all,
}


def settings(draw: random.Random, thing: type) -> list[str]:
    """Some `FIELD=VALUE`: most of fields that the thing has, a part of them with their default."""
    known = {field.name: field.default for field in fields(thing)}
    defaults = {name: json.dumps(value, default=str) for name, value in known.items()}
    names = [*known, *known, *known, "self", "cls", "name", "no_such_field", "", "__class__", "kéy"]
    found = []
    for _ in range(draw.randrange(1, 4)):
        name = draw.choice(names)
        values = [defaults[name]] if name in known and draw.random() < 0.3 else VALUES
        found.append(f"{name}={draw.choice(values)}")
    return found if draw.random() < 0.95 else [*found, draw.choice(VALUES)]


@pytest.mark.parametrize("option", BUILDERS)
def test_settings_build_something_or_are_refused_in_one_line(option: str) -> None:
    things = THINGS[option]()
    for case in range(CASES // len(BUILDERS)):
        draw = generator(f"settings {option}", case)
        name = draw.choice(list(things))
        texts = settings(draw, things[name])
        try:
            BUILDERS[option](name, texts)
        except StepCreditError as error:
            line = str(error)
            named = line.startswith((option, "--set"))
            assert named, f"case {case}: {name} {texts}: {line[:300]!r}"
