"""Each maths set's gold answers, boxed, against themselves; and MATH500's own solutions."""

from __future__ import annotations

from typing import Any

import pytest

from stepcredit.rewards.extract import last_box
from stepcredit.rewards.maths import Maths, Verdict, gold_answer, grade
from stepcredit.rewards.normalize import normalize_answer
from stepcredit.rewards.workers import shared_pool

FIELDS = {
    "aime24": "answer",
    "amc23": "answer",
    "gsm8k_test": "answer",
    "math500": "answer",
    "minerva_math": "solution",
    "olympiadbench": "final_answer",
}
UNREADABLE = {
    "minerva_math": {
        "np.arcsin(10/13)",
        r"\frac{dM}{dt}=\frac{10^{5} L_{\odot}}{0.007 c^{2} M_{\odot}^{6}} M^{6}",
        "-1./3",
        "-3./2",
        r"\hbar \omega(v+1 / 2)-\frac{E_{0}^{2} e^{2}}{2 m \omega^{2}}",
        "E_{1},E_{2}",
    },
    "olympiadbench": {
        r"m_{\max }=n^{2}-n-1",
        "f(x)=a x+b , where b is an arbitrary integer, and a is an arbitrary positive integer "
        r"with \mho(a)=0",
        "t(0,4]",
    },
}
"""Gold answers that math-verify reads as nothing; only the same text is right."""


@pytest.mark.parametrize("name", FIELDS)
def test_gold_answers_are_right_against_themselves(name: str, maths_rows: Any) -> None:
    facts = maths_rows(name)
    golds = [gold_answer(row[FIELDS[name]], at, name) for at, row in enumerate(facts)]
    responses = [rf"Therefore the answer is $\boxed{{{gold}}}$." for gold in golds]
    rewards = Maths(answer=FIELDS[name])(responses, facts)
    print(f"{name}: {sum(rewards):.0f} of {len(rewards)} gold answers right against themselves")
    assert rewards == [1.0] * len(rewards)


@pytest.mark.parametrize("name", FIELDS)
def test_gold_answers_are_read_as_maths(name: str, maths_rows: Any) -> None:
    """The same without the rule that the same text is right: math-verify alone."""
    golds = [normalize_answer(gold_answer(row[FIELDS[name]], 0, name)) for row in maths_rows(name)]
    letters = shared_pool("stepcredit.rewards.grader").verdicts(
        [(gold, gold) for gold in golds], limit=20.0
    )
    missed = {gold for gold, letter in zip(golds, letters, strict=True) if letter != "R"}
    print(f"{name}: math-verify reads {len(golds) - letters.count('G')} of {len(golds)}")
    assert missed <= UNREADABLE.get(name, set())


@pytest.mark.parametrize(("name", "floor"), [("math500", 0.99), ("aime24", 0.99)])
def test_solutions_are_right(name: str, floor: float, maths_rows: Any) -> None:
    rows = maths_rows(name)
    rewards = Maths()([row["solution"] for row in rows], rows)
    accuracy = sum(rewards) / len(rows)
    print(f"{name}: {sum(rewards):.0f} of {len(rows)} solutions right ({accuracy:.1%})")
    assert accuracy >= floor


def test_solutions_are_wrong_for_the_next_problem(maths_rows: Any) -> None:
    rows = maths_rows("math500")
    found = [last_box(row["solution"]) for row in rows]
    golds = [row["answer"] for row in rows]
    golds = golds[1:] + golds[:1]
    right = [
        (answer, gold)
        for answer, gold, verdict in zip(found, golds, grade(found, golds), strict=True)
        if verdict is Verdict.RIGHT
    ]
    print(f"math500: {len(right)} of {len(rows)} solutions right for the next problem")
    assert right == [("5", "x=5"), ("7", "7"), ("3", "3")]  # neighbours with the same answer


SLIPS = {
    "one more": lambda number: number + 1,
    "one less": lambda number: number - 1,
    "the other sign": lambda number: -number,
    "ten times": lambda number: number * 10,
    "a digit doubled": lambda number: int(f"{number}{abs(number) % 10}"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_in_whole_numbers_are_wrong(slip: str, maths_rows: Any) -> None:
    golds = [gold_answer(row["answer"], 0, "answer") for row in maths_rows("gsm8k_test")[:400]]
    numbers = [int(gold.replace(",", "")) for gold in golds]
    answers = [str(SLIPS[slip](number)) for number in numbers]
    verdicts = grade(answers, golds)
    wrong = [number for number, verdict in zip(numbers, verdicts, strict=True) if number]
    assert len(wrong) > 390
    assert {v for number, v in zip(numbers, verdicts, strict=True) if number} == {Verdict.WRONG}


CHANGES = {
    "plus one": "{} + 1",
    "twice": "2({})",
    "or zero": r"{} \text{{ or }} 0",
    "and a hedge": r"{}, 12345",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_to_expressions_are_wrong(change: str, maths_rows: Any) -> None:
    golds = [row["answer"] for row in maths_rows("math500") if row["answer"] not in ("0", "1")][
        :150
    ]
    verdicts = grade([CHANGES[change].format(gold) for gold in golds], golds)
    right = [gold for gold, v in zip(golds, verdicts, strict=True) if v is Verdict.RIGHT]
    print(f"{change}: {len(right)} of {len(golds)} graded right")
    assert right == []
