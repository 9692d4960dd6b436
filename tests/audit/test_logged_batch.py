"""Logged batches: what is read of files of every kind, and of the truth about steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.errors import FileError, RowError, SettingError
from stepcredit.logs.logged_response import RewardColumns

FORMATS = Path("cases/formats")


def row(**fields: Any) -> dict[str, Any]:
    """Three steps of one token each."""
    tokens = ["a", "b", "c"]
    return {"group": 1, "tokens": tokens, "step_ends": [0, 1, 2], "outcome": 1.0} | fields


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["right", "wrong", "odd"], ["right", "wrong", "odd"]),
        ([True, False, None], ["right", "wrong", None]),
        ([1, 0, -1], ["right", "wrong", "wrong"]),
        ([1.0, [2], {"a": 1}], ["right", None, None]),
        ([float("nan"), 0.5, float("inf")], [None, None, None]),
    ],
)
def test_labels_of_every_kind(given: list[Any], expected: list[Any]) -> None:
    assert LoggedBatch.of([row(step_labels=given)]).step_labels == [expected]
    assert LoggedBatch.of([row(kinds=given)]).step_labels == [expected]


def test_values_that_are_no_finite_numbers_are_unknown() -> None:
    given = [0.5, float("nan"), "1", 10**400]
    batch = LoggedBatch.of([row(step_values=given), row(), row(step_values=[0, 1, 1, True])])
    assert batch.step_values == [[0.5, None, None, None], [None] * 4, [0.0, 1.0, 1.0, 1.0]]


def test_truth_of_steps_that_are_not_trained_is_left_out_with_them() -> None:
    truth = {"step_labels": [1, 0, 1], "step_values": [0.1, 0.2, 0.3, 0.4]}
    batch = LoggedBatch.of([row(loss_mask=[1, 0, 1], **truth)])
    assert batch.step_counts == [2]
    assert batch.step_labels == [["right", "right"]]
    assert batch.step_values == [[0.1, 0.2, 0.4]]


def test_another_number_of_labels_than_of_steps_is_refused_by_line() -> None:
    batch = LoggedBatch.of([row(), row(step_labels=[1])], source="r.jsonl")
    with pytest.raises(RowError, match=r"r.jsonl:2: step_labels: has 1 values, expected 3"):
        _ = batch.step_labels


@pytest.mark.parametrize("given", [{}, {"step_labels": "right"}, {"step_labels": None}])
def test_no_truth(given: dict[str, Any]) -> None:
    batch = LoggedBatch.of([row(**given)])
    assert batch.step_labels is None
    assert batch.step_values is None


def test_rows_of_arrays_and_tensors() -> None:
    given = row(step_scores=np.array([0.5, 0.25, 1.0]), token_ids=torch.tensor([7, 8, 9]))
    batch = LoggedBatch.of([given])
    assert batch.rollouts.streams["process"].values.tolist() == [0.5, 0.25, 1.0]


def test_a_response_of_one_token_without_anything_else() -> None:
    batch = LoggedBatch.of([{"group": 1, "length": 1}])
    assert batch.texts == [None]
    assert batch.steps is batch.step_counts is batch.step_labels is batch.step_values is None


def test_steps_are_unknown_where_one_row_has_no_tokens() -> None:
    batch = LoggedBatch.of([row(), {"group": 1, "step_ends": [0, 3], "outcome": 0.0}])
    assert batch.steps is None
    assert batch.step_counts == [3, 2]


def test_a_file_of_rollouts_keeps_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(row()) + "\n\n" + json.dumps(row(text="abc")) + "\n")
    batch = LoggedBatch.read(path)
    assert [batch.line(0), batch.line(1)] == [1, 3]
    assert batch.texts == ["abc", "abc"]
    assert batch.steps == [["a", "b", "c"]] * 2


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_a_response_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(text)
    with pytest.raises(FileError):
        LoggedBatch.read(path)


def test_streams_of_two_kinds_are_refused_by_line() -> None:
    rows = [row(step_scores=[0.1, 0.2, 0.3]), row(token_scores=[0.1, 0.2, 0.3])]
    with pytest.raises(RowError, match="rows:2: token_scores: a score per token, but line 1"):
        LoggedBatch.of(rows)


def test_a_dump_of_verl(shared_dir: Path) -> None:
    batch = LoggedBatch.read(shared_dir / FORMATS / "verl_ok.jsonl")
    assert batch.rollouts.outcome.tolist() == [1.0, -1.0]
    assert batch.rollouts.num_groups == 1
    assert batch.texts[0] == "3+4=7\n\nSo \\boxed{7}."


@pytest.mark.filterwarnings("ignore")
def test_a_log_of_trl_with_several_rewards(shared_dir: Path) -> None:
    folder = shared_dir / FORMATS / "trl_none_for_one_prompt"
    with pytest.raises(SettingError, match="--outcome"):
        LoggedBatch.read(folder)
    batch = LoggedBatch.read(folder, columns=RewardColumns(outcome="maths"))
    assert not batch.rollouts.has_outcome.all()


def test_solutions_of_gsm8k(shared_dir: Path) -> None:
    batch = LoggedBatch.read(shared_dir / "data/math/gsm8k_model_solutions.jsonl")
    assert (batch.rollouts.num_groups, batch.rollouts.num_rollouts) == (1319, 4 * 1319)
    assert batch.steps is not None
    assert batch.rollouts.streams["process"].counts.tolist() == batch.step_counts


def test_rows_of_prmbench_are_responses_with_labels(shared_dir: Path) -> None:
    path = shared_dir / "data/prm/prm800k_train_p1_first400_4o_circular.jsonl"
    with pytest.warns(UserWarning, match=r"3 rows left out, the first: .*127: error_steps"):
        batch = LoggedBatch.read(path)
    first = json.loads(path.read_text().splitlines()[0])
    steps = first["modified_process"]
    labels = ["wrong" if at + 1 in first["error_steps"] else "right" for at in range(len(steps))]
    assert batch.step_labels is not None
    assert batch.step_labels[0] == labels
    assert batch.steps is not None
    assert [step.strip() for step in batch.steps[0]] == steps
    assert batch.line(0) == 1
