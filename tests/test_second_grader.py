"""The comparison with a second grader: its written answers, and the differences it lists."""

from __future__ import annotations

import json
import stat
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from stepcredit.evals.eval_tasks import EVAL_TASKS
from stepcredit.evals.sample_grading import outcome_reward

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


WRITTEN = {
    r"\frac{1}{2}": ({"0.5", "1/2", r"\dfrac{1}{2}"}, {r"\frac{2}{1}", r"\frac{1}{3}"}),
    "2220": ({"2,220", "2{,}220", "2220.0", "x = 2220"}, {"2221", "22200", "-2220"}),
    r"(3, \frac{\pi}{2})": ({r"(3, \tfrac{\pi}{2})"}, {r"(\frac{\pi}{2}, 3)"}),
    "3, 5, 7": ({"7, 5, 3"}, {"3, 5", "3, 5, 7, 12345"}),
    r"3\sqrt{13}": ({r"3 \cdot \sqrt{13}"}, {r"3\sqrt{14}"}),
    r"\text{Evelyn}": ({"Evelyn"}, set()),
    r"10,\!080": (set(), {r"10,\!081"}),
}


@pytest.mark.parametrize("gold", WRITTEN)
def test_written_answers_are_what_they_claim(gold: str, scripts: Any) -> None:
    made = list(scripts("written_answers").responses(gold, "Work."))
    found = {
        truth: {r["text"].split("$")[1] for r in made if r["truth"] == truth} for truth in (0, 1)
    }
    for truth, expected in zip((1, 0), WRITTEN[gold], strict=True):
        assert {rf"\boxed{{{answer}}}" for answer in expected} <= found[truth]
    ours = outcome_reward(EVAL_TASKS["math500"])([row["text"] for row in made], made)
    assert ours == [row["truth"] for row in made]


FAKE = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"strict": 1, "loose": int(row["gold"] in row["text"].split()[-1])}))
"""


def test_differences_are_listed_with_the_truth(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    python = tmp_path / "python"
    (tmp_path / "fake.py").write_text(FAKE)
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'fake.py'}\n")
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    rows = [
        {"text": "4 + 4 = 8\nA: 8", "answer": "8", "truth": 1},
        {"text": "4 + 4 = 9\nA: 9", "answer": "8", "truth": 0},
        {"text": "16", "answer": "6", "truth": 0},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out.jsonl"
    options = ["--task", "gsm8k", "--python", str(python), "--out", str(out), "--mark", "A:"]
    monkeypatch.setattr(sys, "argv", ["second_grader.py", str(tmp_path / "rows.jsonl"), *options])
    scripts("second_grader").main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "3 responses, 1 right by our grader"
    truth = "with known truth: {0}, ours right in {0} (100.0%)"
    assert printed[-2:] == [
        f"strict: agreement 33.33% of 3; differ: 2, {truth.format(2)}",
        f"loose: agreement 66.67% of 3; differ: 1, {truth.format(1)}",
    ]
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["metric"], row["answer"], row["ours"]) for row in found] == [
        ("strict", "9", 0.0),
        ("strict", "16", 0.0),
        ("loose", "16", 0.0),
    ]
    assert found[0]["end"].endswith("#### 9")
