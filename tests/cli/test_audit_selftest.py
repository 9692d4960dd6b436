"""`stepcredit audit --selftest`."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Run

import stepcredit.audit.planted_faults as planted_faults
from stepcredit.audit.false_alarms import FalseAlarms
from stepcredit.audit.planted_faults import SelfTest, SelfTestRow


@pytest.mark.parametrize(("found", "code"), [(2, 0), (1, 3)])
def test_it_needs_no_input_and_fails_where_a_fault_is_missed(
    run: Run, monkeypatch: pytest.MonkeyPatch, found: int, code: int
) -> None:
    rows = (SelfTestRow("scaled", "conformance", 2, found, 1.0, 1.0),)
    matrix = SelfTest(rows, FalseAlarms(3, 0, {"conformance": 0}))
    monkeypatch.setattr(planted_faults, "selftest_matrix", lambda **given: matrix)
    result = run("audit", "--selftest")
    assert result.code == code
    assert f"{found} of 2" in result.out
    assert "False alarms, on 3 clean logs" in result.out
