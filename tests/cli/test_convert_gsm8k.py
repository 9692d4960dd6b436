"""GSM8K's model solutions as rollouts, against a second checker of equations."""

from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, read
from tests.signals.policies import byte_level

import stepcredit as sc

TOKEN = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)|(.))")


class NotASumError(Exception):
    """It cannot be read."""


def value(text: str) -> Fraction:
    """Recursive descent over a sum of decimals; `%` is a hundredth."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.replace("$", "")).strip()
    parts = [number or sign for number, sign in TOKEN.findall(text)]

    def take() -> str:
        return parts.pop(0) if parts else ""

    def atom() -> Fraction:
        part = take()
        if part in ("-", "+"):
            return -atom() if part == "-" else atom()
        if part == "(":
            inner = total()
            if take() != ")":
                raise NotASumError
        elif re.fullmatch(r"\d+\.?\d*|\.\d+", part):
            inner = Fraction(part)
        else:
            raise NotASumError
        while parts[:1] == ["%"]:
            take()
            inner /= 100
        return inner

    def product() -> Fraction:
        found = atom()
        while parts[:1] in (["*"], ["/"]):
            sign, right = take(), atom()
            if sign == "/" and right == 0:
                raise NotASumError
            found = found * right if sign == "*" else found / right
        return found

    def total() -> Fraction:
        found = product()
        while parts[:1] in (["+"], ["-"]):
            found = found + product() if take() == "+" else found - product()
        return found

    found = total()
    if parts:
        raise NotASumError
    return found


def is_right(equation: str) -> bool | None:
    sides = equation.split("=")
    try:
        values = [value(side) for side in sides]
    except NotASumError:
        return None
    if len(sides) < 2:
        return None
    return all(
        equals(left, right, side)
        for left, right, side in zip(values, values[1:], sides[1:], strict=False)
    )


def equals(left: Fraction, right: Fraction, side: str) -> bool:
    """The same, or the decimal that a calculator or a writer shows for it."""
    side = side.strip()
    if re.fullmatch(r"[-+]?[\d.]+%", side):
        return any(equals(each, right * 100, side[:-1]) for each in (left, left * 100))
    if left == right:
        return True
    if not re.fullmatch(r"[-+]?\s*\d*\.\d+", side):
        return False
    unit = Fraction(1, 10 ** len(side.partition(".")[2]))
    nearest = abs(left - right) * 2 <= unit
    cut = 0 <= abs(left) - abs(right) < unit and left * right >= 0
    return nearest or cut or abs(left - right) <= abs(left) / 10**14


def step_score(line: str) -> float:
    verdicts = [is_right(equation) for equation in re.findall(r"<<([^<>]*)>>", line)]
    known = [verdict for verdict in verdicts if verdict is not None]
    return float(all(known)) if known else 0.5


def steps_of(text: str) -> list[str]:
    """Lines; blank ones and the space before a line belong to the line before."""
    steps: list[str] = []
    for line in text.splitlines(keepends=True):
        if steps and not (steps[-1].strip() and line.strip()):
            steps[-1] += line
        else:
            steps.append(line)
    return steps or [""]


@pytest.fixture(scope="module")
def source(shared_dir: Path) -> Path:
    return shared_dir / "data/math/gsm8k_model_solutions.jsonl"


def test_every_solution_is_there_and_every_score_is_right(
    source: Path, run: Run, tmp_path: Path
) -> None:
    ended = run("convert", "gsm8k-solutions", str(source), "-o", "out.jsonl")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    rows = read(tmp_path / "out.jsonl")
    given = [json.loads(line) for line in source.read_text().splitlines()]
    assert (len(given), len(rows)) == (1319, 5276)
    assert Counter(Counter(row["group"] for row in rows).values()) == {4: 1319}
    scores: Counter[float] = Counter()
    for at, row in enumerate(rows):
        question = given[at // 4]
        solved: dict[str, Any] = question[row["model"]]
        assert (row["prompt"], row["text"]) == (question["question"], solved["solution"])
        assert row["outcome"] == float(solved["is_correct"])
        assert row["answer"] == question["ground_truth"].split()[-1]
        steps = steps_of(row["text"])
        assert "".join(row["tokens"]) == row["text"]
        ends, done = [], ""
        for end, token in enumerate(row["tokens"]):
            done += token
            if done.strip() and len(done) == sum(map(len, steps[: len(ends) + 1])):
                ends.append(end)
        assert row["step_ends"] == ends
        assert row["step_scores"] == [step_score(step) for step in steps]
        scores.update(row["step_scores"])
    right = Counter((row["model"], row["outcome"]) for row in rows)
    assert len(right) == 8
    for model in {row["model"] for row in rows}:
        assert right[model, 1.0] == sum(question[model]["is_correct"] for question in given)
    assert sum(row["outcome"] for row in rows) == 2001
    assert scores == {1.0: 16_574, 0.0: 52, 0.5: 6_515}
    assert run("validate", "out.jsonl").code == 0
    assert run("shape", "out.jsonl", "-o", "shaped.jsonl", "--method", "pass").code == 0
    assert sc.read_rollouts(tmp_path / "shaped.jsonl").num_groups == 1319


def test_the_policys_tokens(source: Path, run: Run, tmp_path: Path) -> None:
    few = source.read_text().splitlines(keepends=True)[:20]
    (tmp_path / "in.jsonl").write_text("".join(few))
    byte_level().save_pretrained(tmp_path / "policy")
    options = ("-o", "out.parquet", "--tokenizer", "policy")
    ended = run("convert", "gsm8k-solutions", "in.jsonl", *options)
    assert (ended.code, ended.err) == (0, "")
    decode = byte_level().backend_tokenizer.decode
    for row in sc.read_rows(tmp_path / "out.parquet"):
        ends, ids = [-1, *row["step_ends"]], row["token_ids"]
        steps = [decode(ids[a + 1 : b + 1]) for a, b in pairwise(ends)]
        expected = [step.strip() for step in steps_of(row["text"])]
        assert [step.strip() for step in steps] == expected
        assert row["step_scores"] == [step_score(step) for step in expected]


GOOD = {"question": "?", "ground_truth": "A: 5", "m": {"solution": "a", "is_correct": True}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "expected an object"),
        ({"question": "?"}, "ground_truth: missing"),
        (GOOD | {"question": 5}, "question: expected a string"),
        (
            {"question": "?", "ground_truth": "5"},
            "holds no model's solution: an object of solution and is_correct",
        ),
        (GOOD | {"m": {"solution": "a"}}, "m.is_correct: expected true or false"),
        (GOOD | {"m": {"is_correct": True}}, "m.solution: missing"),
    ],
)
def test_a_line_of_another_form_is_named(row: Any, reason: str, run: Run, tmp_path: Path) -> None:
    lines = [json.dumps(each) for each in (GOOD, row)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    ended = run("convert", "gsm8k-solutions", "in.jsonl", "-o", "out.jsonl")
    assert (ended.code, ended.out, ended.err) == (1, "", f"in.jsonl:2: {reason}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
