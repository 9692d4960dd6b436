"""Scores that a signal leaves out, in files: written as they are, and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stepcredit as sc
from stepcredit.cli.score import say_left_out
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.errors import RowError, SettingError, SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.score_file import Scoring, score_file

TEXTS = ["a b\n\nc", "a\n\nb\n\nc d", "x\n\ny"]


@dataclass(frozen=True)
class Short(sc.Signal):
    """Scores at most two steps of a response, and none of one that begins with x."""

    lenient: bool = True
    grain = "steps"

    @property
    def identity(self) -> dict[str, Any]:
        return {"signal": "short"}

    @property
    def may_leave_out(self) -> bool:
        return self.lenient

    def stream(self, responses: Sequence[Response]) -> Iterator[tuple[int, list[float]]]:
        for index, response in enumerate(responses):
            steps = [] if response.text.startswith("x") else response.step_texts
            yield index, [float(len(step)) for step in steps[:2]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [{"group": 0, "text": text, "outcome": i % 2} for i, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_has_what_was_scored_and_the_rest_is_counted(source: Path, tmp_path: Path) -> None:
    counted: list[Counter[str]] = []
    out = tmp_path / "out.jsonl"
    assert score_file(source, out, Scoring(Short()), left_out=counted.append) == 3
    assert counted == [Counter({"cut": 1, "unscored": 1})]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert (rows[0]["step_ends"], rows[0]["step_scores"]) == ([1, 2], [5.0, 1.0])
    assert (rows[1]["step_ends"], rows[1]["step_scores"]) == ([0, 3], [3.0, 3.0])
    assert rows[2]["signals"] == {"process": {"scores": [], "ends": []}}
    with RolloutFile(out) as file:
        assert file.fold(int, lambda count, batch: count + len(batch.rows)) == 3


def test_nothing_left_out_is_not_told(source: Path, tmp_path: Path) -> None:
    told: list[Counter[str]] = []
    scoring = Scoring(sc.signal("arithmetic"))
    score_file(source, tmp_path / "out.jsonl", scoring, left_out=told.append)
    assert told == []


def test_a_signal_that_must_score_all_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"in\.jsonl:2: 2 scores for 3 steps$"):
        score_file(source, tmp_path / "out.jsonl", Scoring(Short(lenient=False)))


def test_scores_that_would_stay_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    score_file(source, out, Scoring(sc.signal("arithmetic")))
    line = r"out\.jsonl:3: step_scores: would stay"
    with pytest.raises(RowError, match=line):
        score_file(out, tmp_path / "again.jsonl", Scoring(Short(), replace=True))


def test_log_probs_are_needed_for_every_token() -> None:
    teacher = sc.signal("logprobs", model="a-folder", unscorable="unknown")
    with pytest.raises(SettingError, match="teacher_logprobs: holds a log-prob of every token"):
        Scoring(teacher, stream="teacher_logprobs")


def test_the_command_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    say_left_out("prm", Counter({"unscored": 2, "cut": 1}))
    say_left_out("prm", Counter({"cut": 1}))
    assert capsys.readouterr().err.splitlines() == [
        "prm: responses too long for the model, or empty: 2 not scored, 1 scored only up to a step "
        "before the last",
        "prm: responses too long for the model, or empty: 1 scored only up to a step before the "
        "last",
    ]
