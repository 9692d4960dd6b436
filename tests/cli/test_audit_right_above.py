"""`stepcredit audit` takes `right_above` from a run's record, or from the option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.audit.made_runs import write_lines
from tests.cli.conftest import Run

import stepcredit as sc
from stepcredit.engines.run_record import describe


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run whose outcome is the sum of two rewards, with the record of its trainer."""
    rows = [
        {
            "group": "a",
            "length": 1,
            "outcome": outcome,
            "step_ends": [0],
            "step_scores": [score],
            "format": 1.0,
        }
        for outcome, score in ((2.0, 0.9), (1.0, 0.2), (1.0, 0.3), (2.0, 0.8))
    ]
    write_lines(tmp_path / "run" / "rollouts-1.jsonl", rows)
    given: dict[str, Any] = {"format_reward": None, "gate": None, "splitter": None}
    credit = describe(sc.PASS(), None, outcome="accuracy", right_above=1.0, **given)
    record = {"run": "a", "credit": credit}
    (tmp_path / "run" / "stepcredit_run.json").write_text(json.dumps(record))
    return tmp_path


RIGHT = "A response is right where its outcome is above {}."
RANKING = "right response has the higher mean"


@pytest.mark.parametrize(
    ("arguments", "above"),
    [
        (["run"], "1"),
        (["run@1"], "1"),
        (["run", "--set", "clip=5"], "1"),
        (["run", "--method", "grpo"], "1"),
        (["run", "--right-above", "1.5"], "1.5"),
        (["run@1", "--right-above", "1.5"], "1.5"),
        (["run/rollouts-1.jsonl", "--right-above", "1"], "1"),
    ],
)
def test_the_record_of_a_run_or_the_option_says_what_is_right(
    run: Run, recorded: Path, arguments: list[str], above: str
) -> None:
    ended = run("audit", *arguments, "--json", "found.json")
    assert ended.code == 0, ended.err
    assert RIGHT.format(above) in " ".join(ended.out.split())
    found = json.loads((recorded / "found.json").read_text())
    assert found["right_above"] == float(above)
    [share] = [
        each["value"]
        for each in found["checks"]["signal_quality"]["figures"]
        if RANKING in each["name"]
    ]
    assert share == 1.0


def test_without_either_every_outcome_above_0_is_right(run: Run, recorded: Path) -> None:
    ended = run("audit", "run/rollouts-1.jsonl")
    assert RANKING not in ended.out
    assert "A response is right" not in ended.out


def test_a_threshold_that_is_no_number_or_not_read_is_refused(run: Run, recorded: Path) -> None:
    source = "run/rollouts-1.jsonl"
    ended = run("audit", source, "--right-above", "nan")
    assert ended.err == "--right-above: expected a finite number, got nan\n"
    ended = run("audit", source, "--right-above", "1", "--conformance")
    line = "--right-above: --conformance compares stored advantages, and no more"
    assert ended.err == f"{line}\n"
