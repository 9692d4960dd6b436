"""The lints and `conformance` on logs of TRL and verl; skipped where they are not at hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tests.conftest import SHARED

import stepcredit as sc
from stepcredit.audit.check_registry import AuditInput, audit_checks
from stepcredit.audit.conformance import conformance_of
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.planted_faults import LINT_NAMES

CASES = SHARED / "cases" / "formats"


def read(name: str) -> LoggedBatch:
    """A log, without the notes on how it was read."""
    if not (CASES / name).exists():
        pytest.skip(f"the log {name} is not here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LoggedBatch.read(CASES / name)


@pytest.mark.parametrize("name", ["verl_ok.jsonl", "verl_scattered.jsonl", "verl_tools.jsonl"])
def test_a_verl_dump_is_not_accused(name: str) -> None:
    given = AuditInput.of(read(name), {"grpo": sc.GRPO()})
    found = [each for lint in LINT_NAMES for each in audit_checks()[lint](given).findings]
    assert [each.sentence for each in found if each.severity != "note"] == []
    result = conformance_of(given.batch, {"grpo": sc.GRPO()})
    assert [each.field for each in result.unchecked] == ["advantages"]


def test_the_advantages_of_a_trl_log_are_compared() -> None:
    pytest.importorskip("pyarrow")
    batch = read("trl_tool_call")
    logged = [row.fields["advantage"] for row in batch.rows]
    given = sc.GRPO()(batch.rollouts).ragged()
    factor = float(np.median([a / b[0].item() for a, b in zip(logged, given, strict=True)]))
    result = conformance_of(batch, {"grpo": sc.GRPO()})
    if abs(factor - 1) < 0.005:
        assert result.findings == ()
    else:  # the log rounds 0.7071 to one decimal
        assert f"multiplied by {factor:.4g}" in result.findings[0].sentence
