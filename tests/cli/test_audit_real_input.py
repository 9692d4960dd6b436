"""`audit` and `attack` on real rows and logs; skipped where they are not at hand."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import Run
from tests.conftest import SHARED

pytest.importorskip("scipy")

GSM8K = SHARED / "data" / "math" / "gsm8k_model_solutions.jsonl"
PRMBENCH = SHARED / "data" / "prm" / "prm800k_train_p1_first400_4o_circular.jsonl"
LOGS = SHARED / "cases" / "formats"


def first_lines(path: Path, count: int, to: Path) -> str:
    """A file of the first lines of another one."""
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand")
    with path.open() as lines:
        to.write_text("".join(islice(lines, count)))
    return to.name


def report(run: Run, *arguments: str) -> dict[str, Any]:
    """The JSON report of a file."""
    ended = run("audit", *arguments, "--json", "report.json")
    assert ended.code == 0
    return dict(json.loads(Path("report.json").read_text()))


def value(found: dict[str, Any], check: str, name: str) -> Any:
    """The first figure of a check whose name begins so."""
    figures = found["checks"][check]["figures"]
    return next(each["value"] for each in figures if each["name"].startswith(name))


def lacking(found: dict[str, Any], field: str) -> set[str]:
    """The checks that could not run for want of a field."""
    return {item["check"] for item in found["unchecked"] if item["field"] == field}


def test_solutions_of_models_with_checked_equations(run: Run, tmp_path: Path) -> None:
    """Four models per question: nearly all equations are right, so they hardly tell the outcome."""
    name = first_lines(GSM8K, 60, tmp_path / "gsm8k.jsonl")
    rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    found = report(run, name)
    assert (found["counts"]["responses"], found["counts"]["groups"]) == (240, 60)
    right = [m["is_correct"] for row in rows for m in row.values() if isinstance(m, dict)]
    assert value(found, "outcomes", "share of responses without an outcome") == 0
    assert [each for each in found["findings"] if each["severity"] == "fault"] == []
    sentences = " ".join(each["sentence"] for each in found["findings"])
    assert "have 3 different values only" in sentences  # right, wrong, no equation
    area = value(found, "signal_quality", "AUC within groups of the step mean")
    assert 0.4 < area < 0.65
    assert 0.2 < np.mean(right) < 0.6
    assert "format_ok" in {item["field"] for item in found["unchecked"]}
    assert lacking(found, "advantages") == {"masked tokens", "stored advantages"}


def test_labelled_rows_have_no_credit_and_the_report_says_why(run: Run, tmp_path: Path) -> None:
    name = first_lines(PRMBENCH, 130, tmp_path / "prmbench.jsonl")
    ended = run("audit", name, "--json", "-")
    found = json.loads(ended.out)
    # line 127 calls step 37 of 12 wrong
    assert ended.err == (
        "warning: 1 row left out, the first: prmbench.jsonl:127: error_steps: expected step "
        "numbers from 1 to 12, got 37\n"
    )
    assert found["findings"] == []
    assert lacking(found, "grpo") == {"methods"}
    assert {"contamination", "length", "resolution", "signal_quality"} <= lacking(
        found, "step_scores"
    )
    assert {"outcomes", "hack_detectors"} <= lacking(found, "outcome")


def test_a_trl_log_is_compared_with_its_own_advantages(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    log = LOGS / "trl_tool_call"
    if not log.is_dir():
        pytest.skip("the log is not at hand")
    found = report(run, str(log))
    assert found["counts"] == {"responses": 2, "groups": 1, "tokens": 13}
    (finding,) = found["findings"]  # the log writes 0.7, GRPO gives 0.7071
    assert "none of the methods compared" in finding["sentence"]
    assert "length" in lacking(found, "step_scores")


@pytest.mark.parametrize("command", ["audit", "attack"])
def test_an_option_of_convert_is_called_so(command: str, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    log = LOGS / "trl_none_for_one_prompt"
    if not log.is_dir():
        pytest.skip("the log is not at hand")
    options = ("--signal", "arithmetic") if command == "attack" else ()
    ended = run(command, str(log), *options)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("--outcome: name the column of the outcome reward: ")
    assert ended.err.endswith("; that option is `stepcredit convert`'s: IN may be what it writes\n")
    assert ended.err.count("\n") == 1
    run("convert", str(log), "-o", "rollouts.jsonl", "--outcome", "maths")
    assert run(command, "rollouts.jsonl", *options).code == 0


def test_a_verl_dump_with_a_tool_is_clean_and_its_note_names_the_command(
    run: Run, tmp_path: Path
) -> None:
    log = LOGS / "verl_tools.jsonl"
    if not log.exists():
        pytest.skip("the log is not at hand")
    ended = run("audit", str(log), "--json", "report.json")
    found = json.loads(Path("report.json").read_text())
    assert (ended.code, found["findings"]) == (0, [])
    assert found["counts"]["responses"] == 2
    assert "--tool-marks none trains it; that option is `stepcredit convert`'s" in ended.err
