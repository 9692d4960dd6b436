"""`stepcredit oracles`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run

OWN = """
from dataclasses import dataclass

import stepcredit as sc


@sc.register("own-outcome")
@dataclass(frozen=True)
class OwnOutcome(sc.Estimator):
    factor: float = 1.0

    @property
    def reads(self):
        return sc.Reads(process=None, outcome="required")

    def credit(self, rollouts):
        return sc.Credit.flat(rollouts, self.factor * rollouts.outcome[:, None])
"""


def test_one_method_on_one_task_as_a_table(run: Run) -> None:
    ended = run("oracles", "--method", "pass", "--set", "k=1", "--world", "delayed")
    lines = [line.split() for line in ended.out.splitlines() if line.strip()]
    assert ended.code == 0
    assert lines[0][:4] == ["method", "signal", "RMSE", "Spearman"]
    assert [line[:3] for line in lines[2:]] == [
        ["pass", "k=1", signal] for signal in ("right", "noisy", "shifted", "hackable")
    ]


def test_ones_own_method(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registry: None
) -> None:
    (tmp_path / "own_outcome.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = ("--import", "own_outcome", "--method", "own-outcome", "--set", "factor=2.0")
    ended = run("oracles", *chosen, "--world", "filler", "--json")
    rows = json.loads(ended.out)["rows"]
    assert [row["method"] for row in rows] == ["exact advantage", "own-outcome factor=2.0"]
    # the raw outcome is REINFORCE without a baseline: unbiased, and noisier than with one
    figures = rows[1]["figures"]
    assert figures["cosine"]["mean"] == pytest.approx(1.0)
    assert figures["variance"]["mean"] > rows[0]["figures"]["variance"]["mean"]


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods registered in a test are gone after it."""
    from stepcredit.credit.method_registry import METHODS

    monkeypatch.setattr(METHODS, "_known", dict(METHODS._known))


def test_a_document_keeps_all_but_what_stands_between_its_marks(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- oracles: begin -->\nold\n<!-- oracles: end -->\nAfter\n")
    chosen = ("oracles", "--method", "rloo", "--world", "delayed", "-o", "page.md")
    assert run(*chosen).code == 0
    text = page.read_text()
    assert text.startswith("Before\n<!-- oracles: begin -->\n| method | signal | RMSE |")
    assert text.endswith("|\n<!-- oracles: end -->\nAfter\n")
    assert "old" not in text
    assert run(*chosen).code == 0
    assert page.read_text() == text
    assert run(*chosen[:-1], "new.md").code == 0
    assert "| rloo | none |" in (tmp_path / "new.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "pas"], "--method pas: unknown method 'pas', did you mean 'pass'?"),
        (["--method", "pass", "--set", "kk=1"], "--set kk: pass has no such field"),
        (["--set", "k=1"], "--set: needs --method"),
        (["--world", "filer"], "--world filer: unknown task, did you mean 'filler'?"),
        (["--import", "no_such_module"], "--import no_such_module: "),
        (
            ["--method", "rloo", "--world", "delayed", "-o", "page.md"],
            "page.md: expected <!-- oracles: begin --> and <!-- oracles: end -->, once each",
        ),
        (
            ["--method", "pass", "--set", 'weights={"prm": 1}', "--world", "delayed"],
            "--set weights: has no 'process', the name of the step signal here",
        ),
    ],
)
def test_refusals_are_one_line(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "page.md").write_text("no marks\n")
    ended = run("oracles", *arguments)
    assert ended.code == 1
    assert ended.err.startswith(message)
    assert ended.err.count("\n") == 1


def test_json_and_a_document_exclude_each_other(run: Run) -> None:
    ended = run("oracles", "--json", "-o", "page.md")
    assert ended.code == 2
    assert "goes without --output" in ended.err
