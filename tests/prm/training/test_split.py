"""The split by question: no question on two sides, and each stays where it is."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.prm.training.labelled import row_of

from stepcredit.errors import StepCreditError
from stepcredit.prm.labelled.labelled_file import read_labelled
from stepcredit.prm.labelled.labelled_rows import (
    LabelledRow,
    masked_after_error,
    part_of,
    split_by_question,
)

KINDS = ("circular", "counterfactual", "redundency", "step_contradiction")


def test_no_question_is_on_two_sides(shared_dir: Path) -> None:
    """Four files whose spellings of one question differ; `idx` tells what is one problem."""
    paths = [shared_dir / f"data/prm/prm800k_train_p1_first400_4o_{kind}.jsonl" for kind in KINDS]
    rows = read_labelled(paths, bad="skip").rows
    parts = split_by_question(rows, seed=0, test=0.2, validation=0.1)
    sides = [parts.train, parts.validation, parts.test]
    assert sum(map(len, sides)) == len(rows)
    lines = {str(path): path.read_text().splitlines() for path in paths}
    problems = [{problem_of(row, lines) for row in side} for side in sides]
    assert not problems[0] & problems[1]
    assert not problems[0] & problems[2]
    assert not problems[1] & problems[2]
    assert len(set().union(*problems)) == 401


def problem_of(row: LabelledRow, lines: dict[str, list[str]]) -> str:
    """The benchmark's own name of a row's problem."""
    path, _, number = row.source.rpartition(":")
    return json.loads(lines[path][int(number) - 1])["idx"]


def test_a_question_keeps_its_part_whatever_else_there_is() -> None:
    rows = [row_of([1], question=f"q{number}") for number in range(300)]
    few = random.Random(0).sample(rows, 100)
    whole = split_by_question(rows, seed=3, test=0.3, validation=0.2)
    part = split_by_question(few, seed=3, test=0.3, validation=0.2)
    assert {row.key for row in part.test} == {row.key for row in few if row in whole.test}


def test_shares_and_seeds() -> None:
    keys = [f"q{number}" for number in range(4000)]
    parts = [part_of(key, seed=0, test=0.3, validation=0.1) for key in keys]
    assert parts.count("test") / 4000 == pytest.approx(0.3, abs=0.03)
    assert parts.count("validation") / 4000 == pytest.approx(0.1, abs=0.02)
    assert parts != [part_of(key, seed=1, test=0.3, validation=0.1) for key in keys]
    assert {part_of(key, seed=0, test=0.6, validation=0.4) for key in keys} == {
        "test",
        "validation",
    }


def test_shares_that_are_none() -> None:
    with pytest.raises(StepCreditError, match=r"^test and validation: .* got 0.9 and 0.2$"):
        split_by_question([], test=0.9, validation=0.2)


def test_labels_after_the_first_error_are_masked() -> None:
    assert masked_after_error(row_of([1, None, 0, 1, 0])) == (1, None, 0, None, None)
    assert masked_after_error(row_of([1, None, 1])) == (1, None, 1)


def test_a_row_as_a_response() -> None:
    response = row_of([1, 0], steps=["2 + 2\n= 4", "So 4."]).response
    assert response.text == "2 + 2\n= 4\n\nSo 4."
    assert response.step_texts == ["2 + 2\n= 4\n\n", "So 4."]
    assert response.step_ends == [4, 6]
