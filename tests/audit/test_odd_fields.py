"""Fields of any kind and value beside the format's own: a report, or a refusal with the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.audit.made_rollouts import small_rows

import stepcredit as sc
from stepcredit.audit.audit_report import audit
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.errors import RowError

HUGE = 10**400
FIELDS = ("advantage", "step_labels", "kinds", "step_values")
NEVER_REFUSED = ("truncated", "finish_reason", "id", "method")
VALUES: tuple[Any, ...] = (
    *(None, True, "\x1b[2J", "", [], {}, [[]], [{}], {"a": [1]}),
    *(-1, HUGE, -HUGE, 1e308, float("nan"), float("inf"), 1e-320),
    *([1, 0], [None, None], ["\x1b", "right"], [HUGE, HUGE], [float("nan")] * 2, [True, "1"]),
    *([0.1, 0.2, 0.3], [HUGE] * 3, [1e308, -1e308, 1e308], [float("inf")] * 3, [[], {}, None]),
)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_the_audit_reads_may_hold_anything(field: str) -> None:
    for value in VALUES:
        rows = [row | {field: value} for row in small_rows(2)]
        try:
            report = audit(LoggedBatch.of(rows, "in.jsonl"), {"pass": sc.PASS()})
        except RowError as error:
            text = str(error)
            assert text.startswith(f"in.jsonl:1: {field}: ")
            assert len(text.splitlines()) == 1
            assert len(text) < 200
        else:
            json.dumps(report.as_json(), allow_nan=False)


def test_other_fields_are_never_refused() -> None:
    for value in VALUES:
        rows = [row | dict.fromkeys(NEVER_REFUSED, value) for row in small_rows(2)]
        report = audit(LoggedBatch.of(rows), {"grpo": sc.GRPO()})
        json.dumps(report.as_json(), allow_nan=False)


@pytest.mark.parametrize("value", [HUGE, 1e308, float("nan"), float("-inf")])
def test_an_advantage_that_is_no_number_of_float32_is_refused(value: float) -> None:
    rows = [*small_rows(2), small_rows(1)[0] | {"advantage": value}]
    with pytest.raises(RowError, match=r"in\.jsonl:5: advantage: .* (finite|float32)"):
        audit(LoggedBatch.of(rows, "in.jsonl"), {"grpo": sc.GRPO()})


@pytest.mark.parametrize("value", [True, "0.5", [0.5], None])
def test_an_advantage_that_is_no_number_is_not_compared(value: Any) -> None:
    rows = [row | {"advantage": value} for row in small_rows(2)]
    report = audit(LoggedBatch.of(rows), {"grpo": sc.GRPO()})
    assert "advantages" in {item.field for item in report.unchecked}
