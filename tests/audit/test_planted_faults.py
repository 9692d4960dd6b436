"""The self-test: every planted fault is found and sized, and clean logs are not accused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from stepcredit.audit.check_registry import AuditInput, audit_checks
from stepcredit.audit.conformance import CONFORMANCE
from stepcredit.audit.false_alarms import FalseAlarms, count_false_alarms, false_alarms
from stepcredit.audit.generated_logs import (
    SIGNALS,
    fitting_methods,
    generated_log,
    with_advantages,
)
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.planted_advantages import PLANTED_ADVANTAGES
from stepcredit.audit.planted_faults import SelfTest, SelfTestRow, selftest_matrix
from stepcredit.audit.planted_lints import PLANTED_LINTS
from stepcredit.credit.method_registry import METHODS

CLEAN_FILES = int(os.environ.get("STEPCREDIT_CLEAN_FILES", "12"))
"""Set to 1000 for the slow mode."""


def test_every_planted_fault_is_found_and_sized() -> None:
    matrix = selftest_matrix(files=0, planted_files=3)
    assert [row.fault for row in matrix.rows if row.found < row.files] == []
    assert len(matrix.rows) == len(PLANTED_LINTS) + len(PLANTED_ADVANTAGES)
    sized = [row for row in matrix.rows if row.planted is not None]
    assert [row.measured for row in sized] == [
        pytest.approx(row.planted, abs=0.02) for row in sized
    ]


def test_clean_logs_are_not_accused_by_any_check() -> None:
    found = count_false_alarms(range(500, 500 + CLEAN_FILES))
    assert found.by_check == dict.fromkeys((*audit_checks(), CONFORMANCE), 0)
    assert (found.files, found.alarmed) == (CLEAN_FILES, 0)


def test_a_share_above_its_limit_by_chance_is_no_alarm() -> None:
    """In this clean log 11 of 40 wrong responses score like right ones, in 7 of 14 groups."""
    assert false_alarms(generated_log(np.random.default_rng(1193))) == []


def test_small_logs_are_not_accused() -> None:
    """One to four groups of two to four responses: what few of them show, chance may show."""
    for seed in range(24):
        rows = generated_log(np.random.default_rng(seed))
        groups, size = 1 + seed % 4, 2 + seed % 3
        small = [row for g in range(groups) for row in [r for r in rows if r["group"] == g][:size]]
        for row in small:
            del row["advantages"]  # of the whole groups
        methods = {name: METHODS.build(name, {}) for name in fitting_methods(rows)}
        given = AuditInput.of(LoggedBatch.of(small), methods)
        found = [each for check in audit_checks().values() for each in check(given).findings]
        assert [each.sentence for each in found if each.severity != "note"] == []


def test_a_planted_fault_is_no_clean_log() -> None:
    rows = generated_log(np.random.default_rng(0))
    for row in rows:
        row["step_scores"] = [0.5] * len(row["step_scores"])
    assert "values of the signal" in {finding.check for finding in false_alarms(rows)}


@pytest.mark.parametrize(("name", "check"), [("pure", "length"), ("grpo-process", "contamination")])
def test_scores_and_outcomes_that_do_not_fit_a_method_are_rightly_accused(
    name: str, check: str
) -> None:
    """So clean logs are compared with the methods that fit them."""
    accused = {True: [False], False: [False]}
    for seed in range(24):
        rows = generated_log(np.random.default_rng(seed))
        given = AuditInput.of(LoggedBatch.of(rows), {name: METHODS.build(name, {})})
        found = {each.severity for each in audit_checks()[check](given).findings}
        accused[name in fitting_methods(rows)].append("warn" in found)
    assert not any(accused[True])
    assert sum(accused[False]) >= 3
    assert len(accused[True]) >= 4


def test_a_miss_and_an_alarm_are_told() -> None:
    rows = (SelfTestRow("a fault", "a check", 5, 4, 0.25, 0.5),)
    matrix = SelfTest(rows, FalseAlarms(10, 2, {"a check": 2, "another": 0}))
    assert not matrix.finds_all
    assert "4 of 5" in matrix.text()
    assert "False alarms, on 10 clean logs" in matrix.text()
    # P(X <= 2) of 10 at 0.5069 and P(X = 0) at 0.2589 are 0.05
    assert [line.split() for line in matrix.text().splitlines()[4:]] == [
        ["a", "check", "2", "50.69%"],
        ["another", "0", "25.89%"],
        ["any", "check", "2", "50.69%"],
    ]
    assert SelfTest((), FalseAlarms(0, 0, {})).finds_all
    assert "No clean log" in SelfTest((), FalseAlarms(0, 0, {})).text()


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
