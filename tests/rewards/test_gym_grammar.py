"""What graders may evaluate, beside what they may not."""

from __future__ import annotations

import ast
import warnings

import pytest

from stepcredit.rewards.gym_grammar import LARGEST, LONGEST, Expressions, Literals, Texts
from stepcredit.rewards.gym_table import Rule, rule_of

FORMULA = rule_of("simple_integration").answer
SUMS = rule_of("countdown").answer
SHIFTS = rule_of("bitwise_arithmetic").fields["metadata.problem"]
LISTS = rule_of("number_sorting").fields["answer"]
QUEENS = rule_of("n_queens").answer
INTEGRALS = rule_of("intermediate_integration").fields["answer"]
VARIABLE = rule_of("simple_integration").fields["metadata.variable"]


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (SUMS, "(1 + 2)*3 - 4/5"), (SUMS, "-(4)"), (SUMS, "2 * (1)"), (SUMS, "2**10"),
        (SUMS, " 7\n"),
        (FORMULA, "x**2*sin(x)/2 + C"), (FORMULA, "-3*X**3*sin(X) - 9*X**2*cos(X) + C"),
        (FORMULA, "log(x, 10)"), (FORMULA, "asin(x/2) + acoth(x) + Abs(x)"), (FORMULA, "E**x + I"),
        (FORMULA, "x_1*y2 + pi"), (FORMULA, "0.5*x"), (FORMULA, "sqrt(1 - x**2)"),
        (FORMULA, "x**(-1/2)"), (FORMULA, "x**0.5"),
        (INTEGRALS, "3*Integral(x**3*cos(3*x), x) + C"),
        (SHIFTS, "((0x123 + 0xFFFF) << 0x3) >> 2"), (SHIFTS, "1 << 10000"),
        (LISTS, "['-1.5', '2']"), (LISTS, "[1, -2.5, [3]]"), (LISTS, "[]"), (LISTS, '["1"]'),
        (QUEENS, "_ Q\nQ _"), (QUEENS, "[['_', 'Q'],\n ['Q', '_']]"),
        (VARIABLE, "x"), (VARIABLE, "X"), (VARIABLE, "x_1"),
    ],
)  # fmt: skip
def test_approved(grammar: Texts | Literals | Expressions, text: str) -> None:
    assert grammar.approves(text)


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (SUMS, ""), (SUMS, "x"), (SUMS, "1.5"), (SUMS, "0x1"), (SUMS, "1_0"), (SUMS, "1e2"),
        (SUMS, "3!"), (SUMS, "2^3"), (SUMS, "7//2"), (SUMS, "7%2"), (SUMS, "(1, 2)"), (SUMS, "()"),
        (SUMS, "2**20000"), (SUMS, "9**9**9"), (SUMS, "9**(9**9)"), (SUMS, "(9**9999)**9"),
        (SUMS, "1" * 5000), (SUMS, "1\x0c+ 2"), (SUMS, "1 +\u00a02"), (SUMS, "\uff11 + 2"),
        (SUMS, "1 # 2"), (SUMS, "1; 2"), (SUMS, "1\n2"), (SUMS, "1 \\\n+ 2"), (SUMS, "1\x00"),
        (FORMULA, "sin"), (FORMULA, "x.y"), (FORMULA, "1 .real"), (FORMULA, "1..real"),
        (FORMULA, "sin(x)(x)"), (FORMULA, "x(1)"), (FORMULA, "f(x)"), (FORMULA, "sin()"),
        (FORMULA, "sin(x, x)"), (FORMULA, "log(x, x, x)"), (FORMULA, "sin(*x)"),
        (FORMULA, "sin(**x)"), (FORMULA, "sin(x=1)"), (FORMULA, "x, y"), (FORMULA, "x if x else x"),
        (FORMULA, "x or x"), (FORMULA, "not x"), (FORMULA, "x is x"), (FORMULA, "x in x"),
        (FORMULA, "True"), (FORMULA, "None"), (FORMULA, "S"), (FORMULA, "N(x)"), (FORMULA, "Q"),
        (FORMULA, "oo"), (FORMULA, "nan"), (FORMULA, "open"), (FORMULA, "open(x)"),
        (FORMULA, "Integral(x, x)"), (FORMULA, "Symbol(x)"), (FORMULA, "Lambda(x, x)"),
        (FORMULA, "E(x)"), (FORMULA, "factorial(9)"), (FORMULA, "1e5"), (FORMULA, "2j"),
        (FORMULA, "1if x else 2"), (FORMULA, "__x__"), (FORMULA, "\u017fin(x)"), (FORMULA, "x²"),
        (FORMULA, "sin(x)[0]"), (FORMULA, "x := 1"), (FORMULA, "lambda: x"), (FORMULA, "x x"),
        (FORMULA, "+".join(["x"] * 5000)), (FORMULA, "-" * 5000 + "x"),
        (FORMULA, "(" * 500 + "x" + ")" * 500),
        (INTEGRALS, "Integral(x, 1)"), (INTEGRALS, "Integral(x)"), (INTEGRALS, "Integral(x, x, x)"),
        (INTEGRALS, "Integral(open(x), x)"),
        (SHIFTS, "1 << 20000"), (SHIFTS, "1 << (1 << 20)"), (SHIFTS, "1 < 2"), (SHIFTS, "f"),
        (SHIFTS, "1 <> 2"), (SHIFTS, "0x1 | 0x2"), (SHIFTS, "2**3"),
        (LISTS, "1"), (LISTS, "(1, 2)"), (LISTS, "[x]"), (LISTS, "[f'{x}']"), (LISTS, "[b'a']"),
        (LISTS, "[True]"), (LISTS, "[*[1]]"), (LISTS, "[1]*9"), (LISTS, "[1][0]"), (LISTS, "[-x]"),
        (LISTS, "[1 + 2]"), (LISTS, "['a' + 'b']"), (LISTS, "['\\x41']"), (LISTS, "{1}"),
        (LISTS, "[x for x in x]"), (LISTS, "[-'a']"), (LISTS, "[1, ...]"),
        (QUEENS, "oracle"), (QUEENS, "valid_solutions"), (QUEENS, "[valid_solutions]"),
        (VARIABLE, ""), (VARIABLE, "xy"), (VARIABLE, "S"), (VARIABLE, "x\n"), (VARIABLE, "x()"),
    ],
)  # fmt: skip
def test_refused(grammar: Texts | Literals | Expressions, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not grammar.approves(text)


def test_the_bound_is_on_what_is_computed() -> None:
    plain = Expressions("0-9*() ", (ast.Mult, ast.Pow))
    assert plain.approves(f"1**{LARGEST // 8 - 1}")
    assert not plain.approves("*".join(["(9**9999)"] * 9))
    assert not plain.approves(" " * LONGEST + "1" + "*1" * LONGEST)


def test_a_text_that_repeats_the_rows_needs_the_rows_grammar() -> None:
    ungated = Rule(answer=SUMS)
    assert not ungated.lets_through("open(1)", {"answer": "open(1)"})
    gated = Rule(answer=FORMULA, fields={"answer": INTEGRALS})
    assert gated.lets_through("Integral(x, x)", {"answer": "Integral(x, x)"})
    assert gated.refused_field({"answer": "open(1)"}) == "answer"
