"""`right_above`: what the audit says of right and wrong responses, for outcomes that are sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.audit.lab_rows import lab_rows

import stepcredit as sc
from stepcredit.audit.audit_report import AuditReport, audit
from stepcredit.audit.diff_report import DiffReport
from stepcredit.audit.logged_batch import LoggedBatch

READING = ("hack_detectors", "signal_quality")
"""The checks that tell right responses from wrong ones."""


def audited(shift: float, right_above: float, seed: int = 0) -> AuditReport:
    """The audit of one batch, with `shift` added to all outcomes."""
    rows = lab_rows("noisy", prompts=12, seed=seed)
    for row in rows:
        row["outcome"] += shift
    methods = {"grpo": sc.GRPO(), "rloo": sc.RLOO()}
    return audit(LoggedBatch.of(rows), methods, right_above=right_above)


def numbers(value: Any) -> Any:
    """A part of a report with rounded numbers, for a comparison of floats."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def test_a_shift_of_outcomes_and_threshold_changes_nothing() -> None:
    plain, shifted, misread = audited(0, 0), audited(1, 1), audited(1, 0)
    checks = [numbers(each.as_json()["checks"]) for each in (plain, shifted, misread)]
    for name in READING:
        assert checks[0][name]["figures"]
        assert checks[1][name] == checks[0][name]
        assert checks[2][name] != checks[0][name]
    assert shifted.as_json()["right_above"] == 1.0


def test_what_became_better_paid_tells_right_from_wrong_by_it() -> None:
    plain = DiffReport(audited(0, 0), audited(0, 0, seed=1))
    shifted = DiffReport(audited(1, 1), audited(1, 1, seed=1))
    pay = [
        {(c.what, c.method, c.stream): (c.first, c.second) for c in each.changes}
        for each in (plain, shifted)
    ]
    assert any("wrong responses" in what for what, _, _ in pay[0])
    assert pay[1].keys() == pay[0].keys()
    np.testing.assert_allclose(list(pay[1].values()), list(pay[0].values()), atol=1e-5)
