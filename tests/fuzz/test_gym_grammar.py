"""Whatever the grammars approve, evaluating it opens, starts and imports nothing."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
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
SOUND = ["x + 1", "2*x**3 - sin(x)", "[[1, 2], ['a']]", "(3 + 4)*5", "0x1f << 2", "log(x, 2)/3"]
GRAMMARS = {
    "sums": rule_of("countdown").answer,
    "formulas": rule_of("intermediate_integration").fields["answer"],
    "shifts": rule_of("bitwise_arithmetic").fields["metadata.problem"],
    "lists": rule_of("number_sorting").fields["answer"],
}
HARMLESS = {"compile", "exec", "object.__getattr__", "code.__new__", "builtins.id"}
_EVENTS: list[list[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _EVENTS and event not in HARMLESS:
        _EVENTS[-1].append(event)


def text_of(rng: random.Random) -> str:
    """Pieces at random, or a sound text with some of them put in or in place of others."""
    if rng.random() < 0.3:
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))
    text = rng.choice(SOUND)
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
def audit() -> None:
    """A hook that stays, and notes events only while a case is evaluated."""
    sys.addaudithook(_note)
    with suppress(Exception):
        evaluate("Integral(sin(x)**2 + log(x, 2), x)", "formulas")  # imports what it needs


def test_the_hook_notes_what_runs() -> None:
    _EVENTS.append([])
    with suppress(Exception):
        evaluate("sin('open(\"/dev/null\")')", "formulas")
    assert "open" in _EVENTS.pop()


@pytest.mark.parametrize("kind", GRAMMARS)
def test_what_is_approved_does_nothing(kind: str) -> None:
    approved = 0
    for case in range(CASES):
        text = text_of(generator(f"gym-{kind}", case))
        if not GRAMMARS[kind].approves(text):
            continue
        approved += 1
        assert text.isascii()
        _EVENTS.append([])
        with suppress(Exception):
            evaluate(text, kind)
        assert _EVENTS.pop() == [], (case, text)
    assert approved > CASES / 50
