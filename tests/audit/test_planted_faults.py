"""The self-test: every planted fault is found and sized, and clean logs are not accused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from stepcredit.audit.generated_logs import SIGNALS, generated_log, with_advantages
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.planted_advantages import PLANTED_ADVANTAGES
from stepcredit.audit.planted_faults import SelfTest, SelfTestRow, selftest_matrix
from stepcredit.audit.planted_lints import PLANTED_LINTS

CLEAN_FILES = int(os.environ.get("STEPCREDIT_CLEAN_FILES", "50"))
"""Set to 1000 for the slow mode."""


def test_every_planted_fault_is_found_and_sized() -> None:
    matrix = selftest_matrix(files=0, planted_files=3)
    assert [row.fault for row in matrix.rows if row.found < row.files] == []
    assert len(matrix.rows) == len(PLANTED_LINTS) + len(PLANTED_ADVANTAGES)
    sized = [row for row in matrix.rows if row.planted is not None]
    assert [row.measured for row in sized] == [
        pytest.approx(row.planted, abs=0.02) for row in sized
    ]


def test_clean_logs_are_not_accused() -> None:
    matrix = selftest_matrix(files=CLEAN_FILES, planted_files=1, seed=500)
    assert (matrix.alarms, matrix.alarmed_files) == ({}, 0)
    assert f"False alarms: 0 of {CLEAN_FILES} clean files." in matrix.text()


def test_a_miss_and_an_alarm_are_told() -> None:
    rows = (SelfTestRow("a fault", "a check", 5, 4, 0.25, 0.5),)
    matrix = SelfTest(rows, 10, 2, {"a check": 3})
    assert not matrix.finds_all
    assert "4 of 5" in matrix.text()
    assert "2 of 10 clean files (a check 3)." in matrix.text()
    assert SelfTest((), 0, 0, {}).finds_all


def test_progress_counts_every_log() -> None:
    seen: list[tuple[int, int]] = []
    selftest_matrix(files=2, planted_files=1, progress=lambda done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))


def test_generated_logs_are_valid_and_of_many_kinds() -> None:
    logs = [generated_log(np.random.default_rng(seed)) for seed in range(12)]
    for rows in logs:
        assert LoggedBatch.of(rows).rollouts.num_groups >= 10
        assert all(len(row["advantages"]) == row["step_ends"][-1] + 1 for row in rows)
    assert {"loss_mask" in rows[0] for rows in logs} == {True, False}
    assert {min(row["outcome"] for row in rows) for rows in logs} == {0.0, -1.0}
    scores = [[x for row in rows for x in row["step_scores"]] for rows in logs]
    assert len({(min(s) < 0, min(s) < -1) for s in scores}) == len(SIGNALS)
    again = generated_log(np.random.default_rng(0))
    assert again == logs[0]


def test_advantages_stand_at_trained_tokens() -> None:
    rows = [{"group": 0, "loss_mask": [0, 1]}, {"group": 0, "length": 2}]
    placed = with_advantages(rows, [[1.5], [0.5, -0.5]])
    assert [row["advantages"] for row in placed] == [[0.0, 1.5], [0.5, -0.5]]
    assert "advantages" not in rows[0]
