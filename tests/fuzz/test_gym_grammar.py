"""Whatever the grammars approve, evaluating it writes and starts nothing."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.fuzz.cases import CASES, generator

from stepcredit.rewards.gym_table import rule_of

sympy = pytest.importorskip("sympy")

PIECES = [
    "x", "C", "E", "I", "pi", "N", "S", "Q", "O", "1", "2", "10", "0x1f", "1.5", "1e9", "2j",
    "'a'", '"x"', "f'{x}'", "open", "eval", "sympify", "Symbol", "Lambda", "Integral", "print",
    "lambda", "if", "else", "for", "in", "or", "not", "is", "await", "True", "__import__",
    "sin", "log", "exp", "sqrt", "Abs", "factorial", ".__class__", ".func", "(", ")", "(x)",
    "(x, x)", "[", "]", "[0]", "{", "}", ",", ":", ":=", "=", "==", "<", "<<", ">>", "+", "-",
    "*", "/", "**", "//", "%", "^", "|", "&", "~", "!", "@", ";", "#", "\\", "\n", "\t", " ",
    "\x00", "\x0c", "\u00a0", "\uff08", "\uff4f", "\u017f", "_", "`", "$",
]  # fmt: skip
ATOMS = {
    "sums": ["1", "2", "10", "33"],
    "formulas": ["x", "C", "pi", "E", "2", "0.5", "x_1"],
    "shifts": ["0x1f", "3", "0xA0"],
    "lists": ["1", "-2.5", "'a'", '"1.5"'],
}
SHAPES = {
    "sums": ["{} + {}", "({} - {})", "{}*{}", "({})/({})", "-{}", "({})**{}"],
    "formulas": ["{} + {}", "({} - {})", "{}*{}", "({})**{}", "sin({})", "log({}, {})", "sqrt({})"],
    "shifts": ["({} << {})", "{} + {}", "({} >> {})", "{} * {}"],
    "lists": ["[{}, {}]", "[{}]", "[ {},{}]"],
}
GRAMMARS = {
    "sums": rule_of("countdown").answer,
    "formulas": rule_of("intermediate_integration").fields["answer"],
    "shifts": rule_of("bitwise_arithmetic").fields["metadata.problem"],
    "lists": rule_of("number_sorting").fields["answer"],
}
IMPORTING = {"compile", "exec", "import", "marshal.loads", "os.listdir", "os.scandir"}
"""What happens too where SymPy imports a part of itself when it is first needed."""

_EVENTS: list[list[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    inside = event.startswith(("object.__", "code.", "builtins.id", "sys._getframe"))
    if _EVENTS and event not in IMPORTING and not reads and not inside:
        _EVENTS[-1].append(event)


def sound(rng: random.Random, kind: str, depth: int) -> str:
    """A text as a data set could hold it."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(ATOMS[kind])
    shape = rng.choice(SHAPES[kind])
    return shape.format(*(sound(rng, kind, depth - 1) for _ in range(shape.count("{}"))))


def text_of(rng: random.Random, kind: str) -> str:
    """Pieces at random, or a sound text with some of them put in or in place of others."""
    if rng.random() < 0.1:
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))
    text = sound(rng, kind, rng.randint(1, 3))
    for _ in range(rng.randint(0, 2)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(PIECES) + text[at + rng.randint(0, 2) :]
    return text


def evaluate(text: str, kind: str) -> None:
    """As the graders do."""
    if kind in {"sums", "formulas"}:
        sympy.parse_expr(text, local_dict={"x": sympy.Symbol("x"), "C": sympy.Symbol("C")})
    else:
        eval(text)


@pytest.fixture(scope="module", autouse=True)
def audit() -> Iterator[None]:
    """A hook that stays, and notes events only while a case is evaluated."""
    sys.addaudithook(_note)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield
    sys.dont_write_bytecode = before


def test_the_hook_notes_what_runs(tmp_path: Path) -> None:
    _EVENTS.append([])
    with suppress(Exception):
        evaluate(f'sin(\'open("{tmp_path}/a", "w")\')', "formulas")
    with suppress(Exception):
        evaluate("__import__('os').system('true')", "formulas")
    assert _EVENTS.pop() == ["open", "os.system"]


@pytest.mark.parametrize("kind", GRAMMARS)
def test_what_is_approved_does_nothing(kind: str) -> None:
    approved = 0
    for case in range(CASES):
        text = text_of(generator(f"gym-{kind}", case), kind)
        if not GRAMMARS[kind].approves(text):
            continue
        approved += 1
        assert text.isascii()
        _EVENTS.append([])
        with suppress(Exception):
            evaluate(text, kind)
        assert _EVENTS.pop() == [], (case, text)
    assert approved > CASES / 10
