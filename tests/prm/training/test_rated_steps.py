"""Formats in which each step has its own rating, and files that are one JSON value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.prm.training.labelled import write_rows

from stepcredit.errors import RowError
from stepcredit.prm.labelled.label_fields import LabelOptions
from stepcredit.prm.labelled.label_formats import FIELDS, FORMATS, recognized
from stepcredit.prm.labelled.labelled_file import read_labelled


def turns(*said: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "conversations": [
            {"role": roles[index % 2], "content": text} for index, text in enumerate(said)
        ]
    }


def read_one(tmp_path: Path, row: Any, **reading: Any) -> list[Any]:
    path = write_rows(tmp_path / "rows.jsonl", [row])
    return read_labelled([path], options=LabelOptions(**reading)).rows


@pytest.mark.parametrize(
    ("first", "question", "step"),
    [
        ("How many? Is it 2? Step 1: one", "How many? Is it 2?", "Step 1: one"),
        ("Add 3 and 4.\nFirst, 7.", "Add 3 and 4.", "First, 7."),
        ('He asks "why?" How many? First, 7.', 'He asks "why?" How many?', "First, 7."),
    ],
)
def test_rlhflow_begins_with_the_question(
    tmp_path: Path, first: str, question: str, step: str
) -> None:
    (row,) = read_one(tmp_path, turns(first, "+", "So 8.", " - "))
    assert (row.question, row.steps, row.labels) == (question, (step, "So 8."), (1, 0))


def test_rlhflow_may_begin_with_a_system_turn(tmp_path: Path) -> None:
    row = turns("How many? Step 1: one", "+")
    row["conversations"].insert(0, {"role": "system", "content": "Judge."})
    assert read_one(tmp_path, row)[0].labels == (1,)


def test_openr_splits_at_its_tag(tmp_path: Path) -> None:
    process = "Step 1: one. \n\n\n\n\nStep 2: a\n\nb \n\n\n\n\n"
    (row,) = read_one(tmp_path, {"question": "How many?", "process": process, "label": ["+", "-"]})
    assert row.steps == ("Step 1: one.", "Step 2: a\n\nb")
    assert row.labels == (1, 0)


def node(text: str, value: float | None, *children: Any) -> dict[str, Any]:
    return {"text": text, "mc_value": value, "children": list(children)}


def test_openrs_tree_gives_a_row_per_leaf(tmp_path: Path) -> None:
    tree = node(
        "How many?",
        0.7,
        node("one", 0.75, node("two", 1.0), node("", 0.5, node("three", 0.5), node("four", None))),
        node("five", 0.0),
    )
    rows = read_one(tmp_path, {"question": "How many?", "reasoning_steps": tree})
    assert [(row.steps, row.labels) for row in rows] == [
        (("one", "two"), (1, 1)),
        (("one", "three"), (1, 0)),
        (("one", "four"), (1, None)),
        (("five",), (0,)),
    ]
    assert len({row.key for row in rows}) == 1


@pytest.mark.parametrize(("neutral", "label"), [("right", 1), ("wrong", 0), ("ignore", None)])
def test_ratings_are_those_of_prm800k(tmp_path: Path, neutral: str, label: int | None) -> None:
    steps = [{"step": str(rating), "rating": rating} for rating in (1, -1, 0, None)]
    (row,) = read_one(tmp_path, {"question": "How many?", "steps": steps}, neutral=neutral)
    assert row.labels == (1, 0, label, None)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (turns("How many? one"), "conversations: expected pairs of a step and its verdict, got 1"),
        (turns("One", "+"), "conversations[0].content: expected the question, then `Step 1`"),
        (turns("A? one", "ok"), "conversations[1].content: expected + or -, got 'ok'"),
        ({"conversations": [{"content": "A?"}] * 2}, "conversations[0].role: expected a string"),
        (
            {"question": "?", "process": "one\n\n\n\n\ntwo", "label": ["+"]},
            "label: expected one for each of 2 steps, got 1",
        ),
        ({"question": "?", "process": "one", "label": [1]}, "label[0]: expected + or -, got 1"),
        (
            {"question": "?", "reasoning_steps": node("?", 1, node("a", 7))},
            "reasoning_steps.children[0].mc_value: expected a share from 0 to 1, got 7",
        ),
        (
            {"question": "?", "steps": [{"step": "a", "rating": 2}]},
            "steps[0].rating: expected -1, 0, 1 or null, got 2",
        ),
        ({"question": "?", "steps": ["a"]}, "steps[0].step: expected a string, got None"),
        (
            {"messages": [], "step_labels": {}},
            "has the fields of no format: expected one of prm800k, math-shepherd, prmbench, "
            "processbench, stepwise, rlhflow, openr, openr-tree, ratings; this looks like messages "
            "with step labels, which `stepcredit convert` reads",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, line: str) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row])
    with pytest.raises(RowError) as raised:
        read_labelled([path])
    assert str(raised.value).startswith(f"{path}:1: {line}")


def test_a_deep_tree_is_refused(tmp_path: Path) -> None:
    tree = node("end", 1.0)
    for _ in range(300):
        tree = node("step", 1.0, tree)
    path = write_rows(tmp_path / "rows.jsonl", [{"question": "?", "reasoning_steps": tree}])
    with pytest.raises(RowError):
        read_labelled([path])


ROWS = [
    {"problem": "How many?", "steps": ["a", "b"], "label": 1},
    {"prompt": "Why?", "completions": ["c"], "labels": [True]},
]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "\n".join(map(json.dumps, ROWS)),
    ],
    ids=["list", "indented list", "indented rows", "lines"],
)
def test_a_file_may_be_one_list_or_have_indents(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    rows = read_labelled([path]).rows
    assert [row.labels for row in rows] == [(1, 0), (1,)]
    assert [row.source for row in rows] == [f"{path}:1", f"{path}:2"]


def test_a_broken_list_is_named_and_what_is_before_it_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS)[:-5])
    found = read_labelled([path], bad="skip")
    assert [row.labels for row in found.rows] == [(1, 0)]
    assert [fault.line for fault in found.faults] == [2]


def test_every_format_is_recognized_by_its_own_fields() -> None:
    assert set(FIELDS) == set(FORMATS)
    for name, fields in FIELDS.items():
        assert recognized(dict.fromkeys(fields)) == name


def test_published_files_are_read(shared_dir: Path) -> None:
    labels = {
        "openr_aps.jsonl": (1, 1),
        "processbench.json": (1, 1),
        "processbench_pretty.json": (1,),
        "rlhflow.jsonl": (1, 0),
        "shepherd_ok.jsonl": (1, 0),
        "steps_ratings.jsonl": (1, 0),
        "trl_stepwise.jsonl": (1, 0),
    }
    for name, expected in labels.items():
        path = shared_dir / "cases/formats" / name
        assert read_labelled([path]).rows[0].labels == expected, name
