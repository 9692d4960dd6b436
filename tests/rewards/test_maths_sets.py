"""Each maths set's gold answers, boxed, against themselves; and MATH500's own solutions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stepcredit.rewards.boxes import last_box
from stepcredit.rewards.maths import Maths, Verdict, gold_answer, grade, unreadable_golds

FIELDS = {
    "aime24": "answer",
    "amc23": "answer",
    "gsm8k_test": "answer",
    "math500": "answer",
    "minerva_math": "solution",
    "olympiadbench": "final_answer",
}


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
    golds = [gold_answer(row[FIELDS[name]], 0, name) for row in maths_rows(name)]
    refused = unreadable_golds(golds)
    print(f"{name}: {len(refused)} of {len(golds)} gold answers refused")
    assert len(refused) <= (2 if name == "olympiadbench" else 0)


WRONG_EVERYWHERE = (
    r"\infty", r"\emptyset", r"\frac{0}{0}", r"10^{-20}", "y=x", r"\text{no solution}", "J",
    r"\mathbb{R}", r"(-\infty,\infty)", "0=0", r"\text{all}", "", "?",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "gsm8k_test"])
def test_no_gold_answer_accepts_a_wrong_answer(name: str, maths_rows: Any) -> None:
    """A constant, a changed digit, and one more, against every second gold answer."""
    golds = [gold_answer(row[FIELDS[name]], 0, name) for row in maths_rows(name)][::2]
    pairs = [(f"{gold} + 1", gold) for gold in golds]
    pairs += [(changed_digit(gold), gold) for gold in golds if any(map(str.isdigit, gold))]
    pairs += [(WRONG_EVERYWHERE[at % len(WRONG_EVERYWHERE)], gold) for at, gold in enumerate(golds)]
    verdicts = grade([answer for answer, _ in pairs], [gold for _, gold in pairs])
    right = [
        pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is Verdict.RIGHT
    ]
    print(f"{name}: {len(right)} of {len(pairs)} wrong answers graded right")
    assert right == []


def changed_digit(gold: str) -> str:
    """The gold answer with one of its numbers one greater."""
    numbers = list(re.finditer(r"[0-9]+", gold))
    number = numbers[len(gold) % len(numbers)]
    return f"{gold[: number.start()]}{int(number[0]) + 1}{gold[number.end() :]}"


@pytest.mark.parametrize("name", ["maths", "maths_refused"])
def test_small_inputs_that_went_wrong(name: str, shared_dir: Path) -> None:
    lines = (shared_dir / "cases" / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    found = Maths()([row["text"] for row in rows], rows)
    wrong = [
        row["group"] for row, value in zip(rows, found, strict=True) if value != row["expected"]
    ]
    assert wrong == []


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
