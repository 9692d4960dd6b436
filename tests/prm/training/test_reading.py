"""Files of labelled steps: what is read from them, and what is said of bad rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.prm.training.labelled import write_rows

from stepcredit.errors import FileError, RowError, SettingError
from stepcredit.prm.labelled.label_fields import LabelOptions
from stepcredit.prm.labelled.labelled_file import read_labelled

CIRCULAR = "data/prm/prm800k_train_p1_first400_4o_circular.jsonl"
KINDS = ("circular", "counterfactual", "redundency", "step_contradiction")


def completion(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": False}


def offered(
    *completions: dict[str, Any], chosen: int | None, own: str | None = None
) -> dict[str, Any]:
    human = None if own is None else {"text": own, "rating": None}
    return {
        "completions": list(completions),
        "chosen_completion": chosen,
        "human_completion": human,
    }


PRM800K = {
    "question": {"problem": "1 + 1?"},
    "label": {
        "steps": [
            offered(completion("Add.", 1), completion("Halve.", -1), chosen=0),
            offered(completion("So.", 0), chosen=0),
            offered(completion("It is 5.", -1), chosen=None, own="It is 2."),
            offered(completion("Or 7.", -1), completion("Or 8.", -1), chosen=None),
        ]
    },
}
PRMBENCH = {
    "question": "How many?",
    "original_question": "How  many? ",
    "modified_question": "How many there?",
    "original_process": ["one", "two"],
    "modified_process": ["one", "three", "two"],
    "error_steps": [2],
}
SHEPHERD = {
    "input": "How many? Step 1: one ки\nStep 2: two ки",
    "label": "How many? Step 1: one +\nStep 2: two -",
}
PROCESSBENCH = {"problem": "How many?", "steps": ["a", "b", "c"], "label": 1}
STEPWISE = {"prompt": "How many?", "completions": ["a", "b"], "labels": [True, None]}


def read_one(tmp_path: Path, row: Any, **reading: Any) -> list[Any]:
    path = write_rows(tmp_path / "rows.jsonl", [row])
    return read_labelled([path], options=LabelOptions(**reading)).rows


def test_prm800k_takes_the_steps_that_were_taken(tmp_path: Path) -> None:
    (row,) = read_one(tmp_path, PRM800K)
    assert row.question == "1 + 1?"
    assert row.steps == ("Add.", "So.", "It is 2.", "Or 7.")
    assert row.labels == (1, 1, 1, 0)
    assert row.source == f"{tmp_path}/rows.jsonl:1"


@pytest.mark.parametrize(("neutral", "label"), [("right", 1), ("wrong", 0), ("ignore", None)])
def test_prm800k_rating_0_is_what_it_is_said_to_be(
    tmp_path: Path, neutral: str, label: int | None
) -> None:
    (row,) = read_one(tmp_path, PRM800K, neutral=neutral)
    assert row.labels == (1, label, 1, 0)


def test_prm800k_alternatives_label_one_step_each(tmp_path: Path) -> None:
    _, *others = read_one(tmp_path, PRM800K, alternatives=True)
    assert [(row.steps[-1], row.labels) for row in others] == [
        ("Halve.", (0,)),
        ("It is 5.", (None, None, 0)),
        ("Or 8.", (None, None, None, 0)),
    ]
    assert others[1].steps[:2] == ("Add.", "So.")


def test_prmbench_and_its_original(tmp_path: Path) -> None:
    modified, original = read_one(tmp_path, PRMBENCH)
    assert (modified.question, modified.labels) == ("How many there?", (1, 0, 1))
    assert (original.question, original.labels) == ("How  many?", (1, 1))
    assert modified.key == original.key == "how many?"
    assert len(read_one(tmp_path, PRMBENCH, originals=False)) == 1


def test_prmbench_takes_an_original_once_a_question(tmp_path: Path) -> None:
    again = {**PRMBENCH, "question": "how  MANY?", "original_process": ["one", "two!"]}
    path = write_rows(tmp_path / "rows.jsonl", [PRMBENCH, again])
    rows = read_labelled([path]).rows
    assert [row.steps for row in rows if 0 not in row.labels] == [("one", "two")]


def test_math_shepherd(tmp_path: Path) -> None:
    (row,) = read_one(tmp_path, SHEPHERD)
    assert (row.question, row.steps) == ("How many?", ("Step 1: one", "Step 2: two"))
    assert row.labels == (1, 0)


@pytest.mark.parametrize(
    ("label", "labels"), [(1, (1, 0, None)), (-1, (1, 1, 1)), (0, (0, None, None))]
)
def test_processbench_knows_nothing_after_the_first_error(
    tmp_path: Path, label: int, labels: tuple[int | None, ...]
) -> None:
    (row,) = read_one(tmp_path, {**PROCESSBENCH, "label": label})
    assert row.labels == labels


def test_stepwise(tmp_path: Path) -> None:
    (row,) = read_one(tmp_path, STEPWISE)
    assert (row.question, row.steps, row.labels) == ("How many?", ("a", "b"), (1, None))


def test_formats_may_be_mixed_and_compressed(tmp_path: Path) -> None:
    rows = [PRM800K, SHEPHERD, PRMBENCH, PROCESSBENCH, STEPWISE]
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = read_labelled([path]).rows
    assert [row.source.rpartition(":")[2] for row in found] == ["1", "2", "3", "3", "4", "5"]


STEP = PRM800K["label"]["steps"][0]  # type: ignore[index]
BAD = {
    "none": ({"x": 1}, "has the fields of no format: expected one of prm800k, math-shepherd, "),
    "array": ([1], "expected a JSON object, got list"),
    "shepherd verdict": (
        {**SHEPHERD, "label": "How many? Step 1: one +\nStep 2: two 0"},
        "label: does not repeat `input` up to the verdict + or - of step 2",
    ),
    "shepherd text": (
        {**SHEPHERD, "label": "How much? Step 1: one +\nStep 2: two -"},
        "label: does not repeat `input` up to the verdict + or - of step 1",
    ),
    "shepherd rest": (
        {"input": "Step 1: a ки b", "label": "Step 1: a + b"},
        "input: has text after the last",
    ),
    "shepherd tag": ({"input": "Step 1: a", "label": "Step 1: a"}, "input: holds no step tag ки"),
    "shepherd question": (
        {"input": "a ки", "label": "a +"},
        "input: the question does not end in `Step 1:`",
    ),
    "prmbench beyond": (
        {**PRMBENCH, "error_steps": [4]},
        "error_steps: expected step numbers from 1 to 3, got 4",
    ),
    "prmbench same": (
        {**PRMBENCH, "modified_process": ["one", "two"]},
        "error_steps: names wrong steps, but modified_process is original_process",
    ),
    "prmbench text": (
        {**PRMBENCH, "modified_process": ["a", 3]},
        "modified_process[1]: expected a string, got 3",
    ),
    "processbench label": (
        {**PROCESSBENCH, "label": 3},
        "label: expected -1 or the index of one of 3 steps, got 3",
    ),
    "stepwise count": (
        {**STEPWISE, "labels": [True]},
        "labels: expected one for each of 2 completions, got 1",
    ),
    "stepwise label": (
        {**STEPWISE, "labels": [True, 2]},
        "labels: expected true, false or null, got 2",
    ),
    "empty step": ({**STEPWISE, "completions": ["a", " "]}, "steps: step 2 is empty"),
    "no step": ({**STEPWISE, "completions": [], "labels": []}, "steps: has no step"),
    "empty question": ({**STEPWISE, "prompt": " "}, "question: is empty"),
    "rating": (
        {**PRM800K, "label": {"steps": [offered(completion("a", 2), chosen=0)]}},
        "label.steps[0].completions[0].rating: expected -1, 0, 1 or null, got 2",
    ),
    "chosen": (
        {**PRM800K, "label": {"steps": [offered(completion("a", 1), chosen=1)]}},
        "label.steps[0].chosen_completion: expected the index of one of 1 completions, got 1",
    ),
    "not chosen": (
        {**PRM800K, "label": {"steps": [offered(completion("a", 1), chosen=None), STEP]}},
        "label.steps[0].chosen_completion: is null, and so is human_completion, but steps follow",
    ),
    "step": (
        {**PRM800K, "label": {"steps": [3]}},
        "label.steps[0]: expected an object, got 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    row, reason = BAD[name]
    path = write_rows(tmp_path / "rows.jsonl", [STEPWISE, row])
    with pytest.raises(RowError) as raised:
        read_labelled([path])
    assert str(raised.value).startswith(f"{path}:2: {reason}")
    read = read_labelled([path], bad="skip")
    assert (len(read.rows), len(read.faults)) == (1, 1)


def test_further_bad_rows_are_counted(tmp_path: Path) -> None:
    bad = {**PROCESSBENCH, "label": 9}
    path = write_rows(tmp_path / "rows.jsonl", [PROCESSBENCH, bad, bad, bad])
    with pytest.raises(RowError, match=r":2: label: .*, got 9 \(and 2 more faults\)$"):
        read_labelled([path])


def test_lines_that_are_not_json_are_told_as_rows_are(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [STEPWISE])
    good = path.read_bytes().strip()
    bad = (good[:-1] + b', "prompt": "2"}', good.replace(b"prompt", b"pro\x00mpt"), b"\xff\xfe")
    path.write_bytes(b"\n".join([b"\xef\xbb\xbf" + good, *bad]))
    read = read_labelled([path], bad="skip")
    assert len(read.rows) == 1
    assert [str(fault).removeprefix(f"{path}:").partition(":")[::2] for fault in read.faults] == [
        ("2", " prompt: is given twice in one object, so one of the two would be lost"),
        ("3", f" holds a NUL byte at column {bad[1].index(0) + 1}: expected JSON in UTF-8"),
        ("4", " is UTF-16, expected UTF-8"),
    ]


def test_a_line_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [STEPWISE])
    monkeypatch.setenv("STEPCREDIT_MAX_LINE_BYTES", "9")
    with pytest.raises(RowError, match=r":1: a line of 10 bytes or more, more than 9: set STEP"):
        read_labelled([path], bad="skip")


def test_what_can_not_be_read(tmp_path: Path) -> None:
    empty = write_rows(tmp_path / "empty.jsonl", [])
    with pytest.raises(FileError, match=r"empty.jsonl: no step-labelled row$"):
        read_labelled([empty])
    with pytest.raises(FileError, match=r"none.jsonl: no such file or directory$"):
        read_labelled([tmp_path / "none.jsonl"])
    with pytest.raises(SettingError, match=r"^format: expected one of auto, prm800k, .*'x'$"):
        read_labelled([empty], format="x")
    with pytest.raises(SettingError, match=r"^neutral: expected one of right, wrong, ignore"):
        LabelOptions(neutral="x")


def test_a_named_format_is_not_guessed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [PROCESSBENCH])
    with pytest.raises(RowError, match=r":1: prompt: expected a string, got None$"):
        read_labelled([path], format="stepwise")


def test_real_math_shepherd_rows(shared_dir: Path) -> None:
    path = shared_dir / "data/prm/openr_samples_math-shepherd.jsonl"
    rows = read_labelled([path]).rows
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(row.labels) for row in rows] == [one["input"].count("ки") for one in raw]
    assert rows[0].labels == (1, 1, 1, 1, 0)
    assert rows[0].question.endswith("than clarinet lessons in a year?")
    assert rows[0].steps[0].startswith("Step 1: Janet spends 3 hours")


def test_real_prm800k_rows(shared_dir: Path) -> None:
    """One of them gives up: a last step without any completion."""
    path = shared_dir / "data/prm/openr_samples_prm800k.jsonl"
    rows = read_labelled([path]).rows
    assert [len(row.steps) for row in rows] == [6, 7, 5, 7, 8, 12]
    assert rows[1].labels == (1, 1, 1, 1, 1, 1, 0)
    assert rows[0].steps[1] == "We have $3p+e=1.24$ and $5p+e=1.82$."
    more = read_labelled([path], options=LabelOptions(alternatives=True)).rows
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    rated = sum(
        other["rating"] is not None
        for one in raw
        for step in one["label"]["steps"]
        for other in step["completions"] or []
    )
    assert sum(label is not None for row in more for label in row.labels) == rated + 2  # 2 own


def test_real_prmbench_rows(shared_dir: Path) -> None:
    """22 of 1,604 rows name steps that aren't there, or call the original wrong."""
    paths = [shared_dir / f"data/prm/prm800k_train_p1_first400_4o_{kind}.jsonl" for kind in KINDS]
    with pytest.raises(RowError) as raised:
        read_labelled(paths)
    expected = "error_steps: expected step numbers from 1 to 12, got 37 (and 21 more faults)"
    assert str(raised.value) == f"{paths[0]}:127: {expected}"
    read = read_labelled(paths, bad="skip")
    assert len(read.faults) == 22
    right = [row for row in read.rows if row.first_error is None]
    assert (len(read.rows) - len(right), len(right)) == (1604 - 22, 401)
    assert len({row.key for row in read.rows}) == 401


def test_real_prmbench_labels_are_its_error_steps(shared_dir: Path) -> None:
    path = shared_dir / CIRCULAR
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    for row in read_labelled([path], bad="skip", options=LabelOptions(originals=False)).rows:
        own = raw[int(row.source.rpartition(":")[2]) - 1]
        wrong = [number for number, label in enumerate(row.labels, start=1) if label == 0]
        assert wrong == sorted(set(own["error_steps"]))
        assert len(row.steps) == len(own["modified_process"])
