"""Equations found in text and checked, against a table written by hand and a second checker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.work import assert_linear

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.programs import (
    equations,
    plain_spelling,
    remainders,
    sum_edges,
    written_sums,
)
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.programs.equations import annotated_equations, holds, value_of
from stepcredit.signals.programs.written_sums import written_equations
from stepcredit.signals.responses import Response
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import Newline

LONG = 100_000
HOLDS: list[tuple[str, bool | None]] = [
    ("48/2=24", True),
    ("48/2=25", False),
    ("2+2=4=8/2", True),
    ("2+2=4=9/2", False),
    ("2+3*4=14", True),
    ("(2+3)*4=14", False),
    ("-3+5=2", True),
    ("3-5=-2", True),
    ("3 - -5 = 8", True),
    ("007+1=8", True),
    (".5*.5=.25", True),
    ("5.=5", True),
    ("0.1+0.2=0.3", True),
    ("0.1+0.2=0.30000000000000004", True),
    ("10/3=3.33", True),
    ("10/3=3.34", False),
    ("10/3=3.3", True),
    ("10/3=3.2", False),
    ("10/3=3", False),
    ("2/3=0.66", True),
    ("2/3=0.67", True),
    ("2/3=0.68", False),
    ("-2/3=-0.66", True),
    ("-2/3=-0.67", True),
    ("-2/3=-0.65", False),
    ("1/8=0.12", True),
    ("1/8=0.13", True),
    ("1/8=0.14", False),
    ("1/200=0.0", True),
    ("1/3=1/3", True),
    ("1/2+1/3=5/6", True),
    ("3.33=10/3", False),
    ("1,200*2=2,400", True),
    ("1,200,000/2=600,000", True),
    ("20%*50=10", True),
    ("20% of 50 = 10", True),
    ("100/5%=2000", True),
    ("1/4=25%", True),
    ("1/4*100=25%", True),
    ("1/3=33.3%", True),
    ("1/3=33.5%", False),
    ("100%-20%=80%", True),
    ("100-20=80%", True),
    ("100-20=70%", False),
    ("(3+5)%*100=8", True),
    ("$12+$3=$15", True),
    ("€12 − £2 = 10", True),
    ("3 × 4 = 12", True),
    ("3 x 4 = 12", True),
    ("3x4=13", False),
    ("12 ÷ 4 = 3", True),
    (r"\frac{1}{2} + \dfrac{1}{2} = 1", True),
    (r"3 \times 4 \cdot 2 \div 6 = 4", True),
    (r"\$3 + 5\% = 3.05", True),
    ("x+2=5", None),
    ("5", None),
    ("", None),
    ("=", None),
    ("=5", None),
    ("2+2=", None),
    ("2+=2", None),
    ("1/0=5", None),
    ("0/0=0/0", None),
    ("560//10=56", None),
    ("2**3=8", None),
    ("9**9**9=1", None),
    ("2(3)=6", None),
    ("1 1/2+1=2.5", None),
    ("1e3=1000", None),
    ("1e99999999999=1", None),
    ("1_000=1000", None),
    ("1j=1", None),
    ("True+1=2", None),
    ("'5'=5", None),
    ("...=1", None),
    ("(5=5)", None),
    ("1.2.3=1", None),
    ("٣+١=4", None),
    ("__import__('os').getpid()=1", None),
    ("5if 1else 2=5", None),
]
WRITTEN: list[tuple[str, list[str]]] = [
    ("He has 3 + 4 = 7 apples.", ["3 + 4 = 7"]),
    ("It is 3+4=7. So 7 - 2 = 5.", ["3+4 = 7", "7 - 2 = 5"]),
    ("Total: $5 + $1.50 = $6.50.", ["5 + 1.50 = 6.50"]),
    ("So 1,200 × 2 = 2,400 or so", ["1200 * 2 = 2400"]),
    ("2 + 2 = 4 = 8 / 2", ["2 + 2 = 4 = 8 / 2"]),
    ("7 = 3 + 4", ["7 = 3 + 4"]),
    (
        "12 x 5 = 60, 12x5 = 60, 12 X (2 + 3) = 60",
        ["12 * 5 = 60", "12 * 5 = 60", "12 * (2 + 3) = 60"],
    ),
    ("Half is 24 x 1/2 = 12.", ["24 * 1/2 = 12"]),
    ("(3 + 4 = 7)", ["3 + 4 = 7"]),
    ("(2 x 3) + 7 = 13", ["(2 * 3) + 7 = 13"]),
    ("The sum is -3 + 5 = 2.", ["-3 + 5 = 2"]),
    ("First.\n3 + 4 = 7\n5 - 1 = 4", ["3 + 4 = 7", "5 - 1 = 4"]),
    ("- 3 + 4 = 7\n* 5 - 1 = 4\n• 1 + 1 = 2", ["3 + 4 = 7", "5 - 1 = 4", "1 + 1 = 2"]),
    ("1. 3 + 4 = 7\n2) 5 - 1 = 4\n(3) 1 + 1 = 2", ["3 + 4 = 7", "5 - 1 = 4", "1 + 1 = 2"]),
    ("**3 + 4 = 7**", ["3 + 4 = 7"]),
    ("**Total:** 3 + 4 = **7**", ["3 + 4 = 7"]),
    (r"Thus \(3 \times 4 = 12\).", ["3 * 4 = 12"]),
    (r"\[3 + 4 = 7\]", ["3 + 4 = 7"]),
    (r"$3 + 4 = 7\text{ cm}$", ["3 + 4 = 7"]),
    (r"\frac{6}{2} &= 3 + 0 \\ 4 + 1 &= 5", ["((6)/(2)) = 3 + 0", "4 + 1 = 5"]),
    ("20% of 50 + 1 = 11", ["20%*50 + 1 = 11"]),
    ("= 3 + 4 = 7", ["3 + 4 = 7"]),
    ("Cost = 3 + 4 = 7", ["3 + 4 = 7"]),
    ("3 + 4 = 7 x", []),
    ("x = 3", []),
    ("x + 3 = 7", []),
    ("x-3 = 2 + 1", []),
    ("x -3 = 2 + 1", []),
    ("2x + 3 = 7 + 2", []),
    ("f(3) = 4 + 5", []),
    ("3 + 4 = x", []),
    ("7 = 3 + 4x", []),
    ("38 - 32 = 32 + x", []),
    ("10/3 = 3 and 1/3", []),
    ("10 mod 3 + 1 = 2", []),
    ("2^3 + 1 = 9", []),
    ("2 ^ 3 + 1 = 9", []),
    ("9 = 5 + 2 ^ 2", []),
    (r"\sqrt{16} + 2 = 6", []),
    ("15 pages x 1/3 = 5", []),
    ("5 apples + 3 apples = 8 apples", []),
    ("7,5 = 3 + 4,5", []),
    (r"279/99999 = 0.\overline{00279}", ["279/99999 = ((000279-0)/99999)"]),
    ("3 + 4 ≠ 8, 3 + 4 != 8, 3 + 4 <= 8", []),
    ("48/2 = <<48/2=24>>24", ["48/2 = 24"]),
    ("", []),
    ("= = =", []),
    ("1 = 1", []),
]
ADVERSARIAL: dict[str, Callable[[int], str]] = {
    "ones": lambda n: "1" * n,
    "zeros": lambda n: "0" * n + "+1=1",
    "signs": lambda n: "1 = 2 " + "+ " * (n // 2) + "5",
    "open": lambda n: "(" * n + "1+1=2",
    "both": lambda n: "(" * n + "1" + ")" * n + "+1=2",
    "equals": lambda n: "1+1=" * (n // 4),
    "spaces": lambda n: "5" + " " * n + "+ 1 = 6",
    "percent": lambda n: "5 % " * (n // 4),
    "bold": lambda n: "**" * (n // 2) + "1+1=2",
    "fractions": lambda n: r"\frac{" * (n // 6),
    "calculator": lambda n: "<<" * (n // 2),
    "calculated": lambda n: "<<" + "1+" * (n // 2) + "1=1>>",
    "words": lambda n: "a 1+1=2 " * (n // 8),
    "bullets": lambda n: "- " * (n // 2),
    "lines": lambda n: "1)\n" * (n // 3),
    "sentences": lambda n: "1. " * (n // 3) + "= 3",
    "power": lambda n: "<<9**9**9=1>> <<1e999999999=1>> 9**9**9 = 1",
    "deep": lambda n: "-" * 290 + "5=5",
    "texts": lambda n: r"\text{" * (n // 6),
    "overlined": lambda n: "1." + "1" * n + r"\overline{3}" + "1 . " * (n // 4),
    "spaced": lambda n: "1" + " " * n + ". 1",
    "remainders": lambda n: "7 / 2 = 3 left over and 2 " * (n // 26),
    "dots": lambda n: "1 ... " * (n // 6),
    "stops": lambda n: "1+1=2. no. wait. " * (n // 17),
    "negations": lambda n: "1+1=2 is really truly only " * (n // 27),
    "shares": lambda n: "5% of " * (n // 6) + "7 = 1",
    "halves": lambda n: "1/2 of " * (n // 7) + "7 = 1",
    "bases": lambda n: "base " * (n // 5) + "1+1=2",
    "begins": lambda n: r"\begin{a}{" * (n // 10),
}


@pytest.mark.parametrize(("equation", "verdict"), HOLDS)
def test_an_equation_holds_or_not_or_is_none(equation: str, verdict: bool | None) -> None:
    assert holds(equation) is verdict


@pytest.mark.parametrize(
    ("equation", "verdict"),
    [("10/3=3.33", False), ("1/4=0.25", True), ("1/8=0.12", False), ("1/3=33.3%", False)],
)
def test_exactly(equation: str, verdict: bool) -> None:
    assert holds(equation, exact=True) is verdict


@pytest.mark.parametrize(("text", "found"), WRITTEN)
def test_sums_are_found_in_running_text(text: str, found: list[str]) -> None:
    assert written_equations(text) == found


def test_annotations_are_found() -> None:
    text = "a <<1+1=2>>2 <<3=3>> <<>> < <4=4>> <<5>5>>"
    assert annotated_equations(text) == ["1+1=2", "3=3", ""]


def read(text: str) -> None:
    """Find and check all equations of a text."""
    for equation in [*annotated_equations(text), *written_equations(text), text]:
        holds(equation)


@pytest.mark.parametrize("made", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_the_work_grows_no_faster_than_the_text(
    made: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read(made(LONG))
    modules = (equations, plain_spelling, remainders, sum_edges, written_sums)
    assert_linear(monkeypatch, lambda size: read(made(size)), (160, 320), *modules)


@st.composite
def sums(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction]:
    """A sum in writing and its value, made together."""
    if depth == 0 or draw(st.booleans()):
        digits = str(draw(st.integers(0, 9999)))
        places = draw(st.integers(0, 2))
        decimals = "." + draw(st.text("0123456789", min_size=places, max_size=places))
        return (
            (digits + decimals, Fraction(digits + decimals))
            if places
            else (digits, Fraction(digits))
        )
    (left, a), (right, b) = draw(sums(depth - 1)), draw(sums(depth - 1))
    sign = draw(st.sampled_from("+-*/")) if b else draw(st.sampled_from("+-*"))
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
    space = draw(st.sampled_from(["", " "]))
    return f"({left}{space}{sign}{space}{right})", value


@settings(max_examples=200, deadline=None)
@given(sums(), st.fractions(min_value=-3, max_value=3, max_denominator=7))
def test_values_are_exact(made: tuple[str, Fraction], off: Fraction) -> None:
    written, value = made
    if len(written) > 300:
        assert value_of(written) is None
        return
    assert value_of(written) == value
    shown = value + off
    right = f"({shown.numerator})/{shown.denominator}"
    assert holds(f"{written} = {right}") is (off == 0)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/()=.%, $x^\\{}[]<>\n abc×", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    for equation in [*annotated_equations(text), *written_equations(text), text]:
        assert holds(equation) in (True, False, None)


def rounded(value: Fraction, places: int) -> set[Fraction]:
    """What a writer may show of a value: cut off, or rounded, a tie either way."""
    scaled = abs(value) * 10**places
    down = Fraction(scaled.numerator // scaled.denominator)
    shown = {down} | ({down + 1} if scaled - down >= Fraction(1, 2) else set())
    sign = -1 if value < 0 else 1
    return {sign * one / 10**places for one in shown}


@pytest.mark.parametrize(
    ("equation", "verdict"),
    [
        ("501.2/5 = 100", True),
        ("100.2 = +100", True),
        ("100.2 = (100)/1", False),
        ("100.2 = 50 * 2", False),
        ("99.2 = 99", False),
    ],
)
def test_only_a_whole_number_alone_may_be_rounded(equation: str, verdict: bool) -> None:
    assert holds(equation) is verdict


@settings(max_examples=300, deadline=None)
@given(st.integers(-999, 999), st.integers(1, 99), st.integers(1, 3), st.integers(-2, 2))
def test_decimals_are_rounded_or_cut(over: int, under: int, places: int, off: int) -> None:
    value = Fraction(over, under)
    scaled = abs(value) * 10**places
    digits = max(0, scaled.numerator // scaled.denominator + off)
    shown = Fraction(digits, 10**places) * (-1 if value < 0 else 1)
    text = f"{'-' if value < 0 else ''}{digits // 10**places}.{digits % 10**places:0{places}d}"
    assert holds(f"{over}/{under}={text}") is (shown in rounded(value, places) or shown == value)


def test_gold_solutions_of_gsm8k_hold(shared_dir: Path) -> None:
    """23,716 annotations: all that can be read are right; `//` is no sum of ours."""
    verdicts: dict[bool | None, int] = {}
    for line in (shared_dir / "data/math/gsm8k_train.jsonl").read_text().splitlines():
        for equation in annotated_equations(json.loads(line)["answer"]):
            verdict = holds(equation)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
    assert verdicts == {True: 23_714, None: 2}


def test_sums_in_gold_solutions_hold(shared_dir: Path) -> None:
    """Without their annotations: what is found wrong there is wrong, or says more than a sum."""
    found: dict[str, dict[bool | None, int]] = {}
    for name, field in (("gsm8k_test", "answer"), ("math500", "solution")):
        for row in (shared_dir / f"data/math/{name}.jsonl").read_text().splitlines():
            for line in json.loads(row)[field].splitlines():
                for equation in written_equations(line):
                    counts = found.setdefault(name, {})
                    counts[holds(equation)] = counts.get(holds(equation), 0) + 1
    assert found["gsm8k_test"][False] <= 4
    assert found["gsm8k_test"][True] >= 3_600
    assert found["math500"].get(False, 0) == 0
    assert found["math500"][True] >= 145


def test_steps_are_scored_by_their_equations() -> None:
    text = "<<1+1=2>> and <<2+2=5>>\n<<1+1=2>> and <<x=5>>\nnone\n<<10/3=3.33>>\n3 + 4 = 8"
    split = Newline()([Response.of_text("?", text)])
    assert signal("equations").scores(split) == [[0.0, 1.0, 0.5, 1.0, 0.5]]
    exact = signal("equations", exact=True, neutral=-1)
    assert exact.scores(split) == [[0.0, 1.0, -1, 0.0, -1]]
    assert signal("arithmetic").scores(split) == [[0.5, 0.5, 0.5, 0.5, 0.0]]
    settings = {"neutral": -1, "exact": True}
    assert exact.identity == {"signal": "equations", "reading": 3, **settings}


def test_a_callable_scores_what_it_is_given() -> None:
    response = Newline().split(Response.of_text("?", "a b\nc", name="in:4"))
    tokens = Program(lambda r: range(r.num_tokens), per="tokens")
    assert tokens([response]).values.tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(SignalError) as raised:
        Program(lambda r: [1.0]).scores([response])
    assert str(raised.value) == "in:4: 1 scores for 2 steps"
    with pytest.raises(SignalError) as raised:
        Program(lambda r: [1.0, float("nan")]).scores([response])
    assert str(raised.value) == "in:4: the score of step 1 is nan"
    with pytest.raises(SignalError) as raised:
        Program(lambda r: [1.0, 1e39]).scores([response])
    assert str(raised.value) == "in:4: the score of step 1 is 1e+39, too large for float32"
    with pytest.raises(SignalError) as raised:
        Program(lambda r: None).scores([response])
    assert str(raised.value) == "in:4: function: TypeError: 'NoneType' object is not iterable"
    with pytest.raises(RolloutError) as raised_2:
        Program(lambda r: [1.0]).scores([Response.of_text("?", "a")])
    assert str(raised_2.value) == "row 0: steps: not split into steps"


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (None, "function: expected a function, or MODULE:FUNCTION, got None"),
        ("json", "function: expected a function, or MODULE:FUNCTION, got 'json'"),
        (":dumps", "function: expected a function, or MODULE:FUNCTION, got ':dumps'"),
        (
            "no_such_module:f",
            "function: no_such_module:f: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            "json:nothing",
            "function: json:nothing: AttributeError: module 'json' has no attribute 'nothing'",
        ),
        ("json:__name__", "function: json:__name__ is no function: 'json'"),
    ],
)
def test_a_callable_is_imported_at_once_or_refused(function: str | None, line: str) -> None:
    with pytest.raises(SettingError) as raised:
        Program(function)  # type: ignore[arg-type]
    assert str(raised.value) == line


def test_a_changed_function_is_another_signal() -> None:
    def make(score: float) -> Callable[[Response], list[float]]:
        return lambda response: [score]

    def one(response: Response) -> list[float]:
        return [1.0]

    def two(response: Response, score: float = 2.0) -> list[float]:
        return [score]

    assert Program(one).identity != Program(two).identity
    assert Program(make(1.0)).identity != Program(make(2.0)).identity
    assert Program(make(1.0)).identity == Program(make(1.0)).identity
    assert Program(print).identity == Program(print).identity != Program(len).identity
    assert Program(one).identity == Program(one).identity
    assert re.fullmatch(r"[0-9a-f]{64}", Program(one).identity["function"])
