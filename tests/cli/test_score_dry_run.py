"""`stepcredit score --dry-run`: what scoring would take, and nothing is asked or written."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run, write

ROWS = [{"group": 1, "prompt": "2 + 3?", "text": f"It is {n}.\n\nSo {n}."} for n in range(4)]
SERVED = ["--set", "url=http://localhost:1", "--set", "model=judge"]


def test_the_requests_of_a_judge_are_counted(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    flags = ["score", "in.jsonl", "-o", "out.jsonl", "--dry-run", *SERVED]
    ended = run(*flags, "--signal", "rubric", "--set", "recipe=wrong-steps")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("rubric: 4 requests, about ")
    assert ended.out.endswith(" tokens to read\n")
    ended = run(*flags, "--signal", "judge", "--set", "max_tokens=5")
    assert ended.out.startswith("judge: 8 requests, about ")
    assert ended.out.endswith(" to read, at most 40 to write\n")
    inner = json.dumps({"judge": {"url": "http://localhost:1", "model": "judge"}})
    ended = run(*flags[:5], "--signal", "difference", "--set", f"signal={inner}")
    assert ended.out.startswith("judge: 8 requests, about ")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_signal_that_counts_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    ended = run("score", "in.jsonl", "-o", "out.jsonl", "--dry-run", "--signal", "arithmetic")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "--dry-run: arithmetic counts no cost beforehand\n"
