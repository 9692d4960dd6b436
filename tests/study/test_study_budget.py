"""`stepcredit study list`: what has been run, and what the rest costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run, run

pytest.importorskip("trl")

__all__ = ["run"]  # a fixture
ROOT = Path(__file__).resolve().parents[2]


def listed(run: Run, *options: str) -> str:
    """What the command prints of the committed store, on one line."""
    store = str(ROOT / "evidence/study.sqlite")
    return " ".join(run("study", "list", "--store", store, *options).out.split())


def test_runs_at_the_chosen_settings_are_counted(run: Run) -> None:
    shown = listed(run, "--tuned", str(ROOT / "evidence/tuned.yaml"))
    assert "│ main │ 360 │ 360 │ 0.00 │" in shown
    assert "is not here" not in shown


def test_without_the_chosen_settings_the_table_says_so(run: Run) -> None:
    """The same runs at other settings are other runs: most of them were never made."""
    shown = listed(run)
    assert "│ main │ 360 │ 360 │" not in shown
    assert "evidence/tuned.yaml is not here: runs are counted at the defaults" in shown


def test_a_report_into_a_missing_folder_is_refused_before_the_work(
    run: Run, tmp_path: Path
) -> None:
    page = tmp_path / "none" / "page.html"
    asked = run("study", "report", str(tmp_path / "no store"), "-o", str(page))
    assert (asked.code, asked.err) == (1, f"{page}: no such file or directory\n")
    asked = run("study", "report", str(ROOT / "evidence/study.sqlite"))
    assert (asked.code, asked.err) == (1, "name a file with --output or --markdown\n")
