"""Labels, names and file names are shown as they are, whatever rich or a terminal reads in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.cli.conftest import Run, write

import stepcredit as sc
from stepcredit.cli import progress
from stepcredit.cli.paint import visible
from stepcredit.cli.prm_report import bars, print_figures
from stepcredit.credit.rich_table import table_lines
from stepcredit.lab.report import EVALUATED, closing_table, live

LABELS = {
    "[/b]": "[/b]",
    "[red]x[/red]": "[red]x[/red]",
    ":smile:": ":smile:",
    "a\x1b[31m\nb": "a\\x1b[31m\\nb",
    "é\U0001f600": "é\U0001f600",
}


def rows_of(label: str) -> list[dict[str, Any]]:
    judge = {"[/x]": {"scores": [1.0, 0.5]}}
    row = {"group": label, "length": 2, "signals": judge}
    return [row | {"outcome": 1.0}, row | {"outcome": 0.0}]


@pytest.mark.parametrize("label", LABELS)
def test_explain_shows_a_label_as_it_is(label: str, run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows_of(label))
    weights = '{"[/x]": 1, "outcome": 1}'
    ended = run("explain", "in.jsonl", "--group", label, "--set", f"weights={weights}")
    assert (ended.code, ended.err) == (0, "")
    assert "'[/x]': 1" in ended.out
    headings, first = ended.out.splitlines()[-5:-3]
    assert "N([/x])" in headings.split()
    assert first.startswith(f"{LABELS[label]} ")
    method = sc.PASS(weights={"[/x]": 1, "outcome": 1})
    rollouts = sc.read_rollouts(tmp_path / "in.jsonl")
    assert ended.out.rstrip() == str(method.explain(rollouts))


@pytest.mark.parametrize("label", LABELS)
def test_compare_shows_a_label_as_it_is(label: str, run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", rows_of(label))
    ended = run("compare", "in.jsonl", "grpo", "rloo")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].split() == ["2", *LABELS[label].split(), "-0.7071", "-1.0000"]


def test_validate_shows_a_stream_name_on_one_line(run: Run, tmp_path: Path) -> None:
    row = {"group": 1, "signals": {"a\n\x1b[31m": {"scores": [1.0]}}}
    write(tmp_path / "in.jsonl", [row])
    ended = run("validate", "in.jsonl")
    line = next(line for line in ended.out.splitlines() if line.startswith("a\\n\\x1b[31m  "))
    assert line.endswith("  a score per token, on 1 of 1 rollouts, 1 in all")


def test_paint_keeps_line_ends_alone() -> None:
    assert visible("a\nb\x1b[31m\r") == "a↵\nb\\x1b[31m\\r"


@pytest.mark.parametrize("name", ["a{b}.jsonl", "[[x].jsonl", "[red].jsonl"])
def test_a_progress_bar_shows_any_file_name(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name, rows_of("1"))
    monkeypatch.setattr(progress, "PROGRESS_BAR_BYTES", 1)
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    ended = run("validate", name)
    assert ended.code == 0
    assert name in ended.err


def test_the_figures_of_a_reward_model_show_a_title_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's name is the title; a narrow terminal cuts no number."""
    monkeypatch.setenv("COLUMNS", "20")
    errors = {
        "solutions_wrong": 3,
        "solutions_right": 4,
        "threshold": 0.5,
        "threshold_from": "given",
    }
    errors |= {"f1": 0.123, "accuracy_wrong": 0.456, "accuracy_right": 0.789}
    steps = {"wrong_share": 0.25, "roc_auc": 0.815, "average_precision": None}
    figures = {
        "first_error": errors,
        "steps": steps,
        "data": {"steps": 70, "wrong_steps": 7},
        "intervals": {"f1": (0.1, 0.2), "roc_auc": None},
        "calibration": {"ece": 0.111, "brier": 0.222},
        "prm_bench": {"prm_score": 0.333, "f1_right": 0.444, "f1_wrong": None},
    }
    print_figures(figures, "runs/[red]x\x1b[31m: judged on 7 questions")
    out = capsys.readouterr().out
    assert " ".join(out.split("\n")[0].split()) == "runs/[red]x\\x1b[31m: judged on 7 questions"
    for number in ("0.123", "[0.100, 0.200]", "0.815", "0.111", "0.222"):
        assert number in out


def test_a_bar_shows_a_stage_and_figures_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    with bars() as shown:
        shown.score("[red]test", 1, 2)
    assert "scoring [red]test" in screen.getvalue()


def test_the_lab_shows_a_method_as_it_is() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=120)
    with live(console, 10) as shown:
        shown.warm("[red]mine", 10, 10, None)
    assert screen.getvalue() == "[red]mine 10/10\n"
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    row = {"run": "[red]mine", "update": 3, "evaluation": {f: interval for _, f, _ in EVALUATED}}
    assert "[red]mine, 3 updates" in "\n".join(table_lines(closing_table([row])))
