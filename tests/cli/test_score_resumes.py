"""`stepcredit score` goes on where it was killed or failed, and keeps a cache."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, environment, read, write

COUNTED = """
import os, time
def slow(response):
    with open("calls", "a") as calls:
        calls.write(response.text + "\\n")
    if os.environ.get("FAIL_AT") == response.text:
        raise RuntimeError("the server went away")
    time.sleep(float(os.environ.get("NAP", "0")))
    return [float(len(step)) for step in response.step_texts]
"""
SLOW = ("--signal", "callable", "--set", "function=counted:slow")


def texts(count: int) -> list[dict[str, Any]]:
    return [{"group": i % 5, "text": f"answer {i}\n\nso {i * i}"} for i in range(count)]


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split("\n\n")


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    write(tmp_path / "in.jsonl", texts(60))
    (tmp_path / "out.jsonl").write_text("as it was")
    command = [sys.executable, "-m", "stepcredit", "score", "in.jsonl", "-o", "out.jsonl", *SLOW]
    napping = environment() | {"NAP": "0.05"}
    process = subprocess.Popen(command, cwd=tmp_path, env=napping)
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls").exists() or (tmp_path / "calls").read_text().count("so") < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "out.jsonl").read_text() == "as it was"
    first = (tmp_path / "calls").read_text().count("so")
    assert 20 <= first < 60
    assert (tmp_path / ".out.jsonl.scored.sqlite").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True)
    assert (again.returncode, again.stdout, again.stderr) == (0, b"", b"")
    assert 60 <= (tmp_path / "calls").read_text().count("so") <= 61
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert {name for name in left if "sqlite" in name} == set()
    whole = [*command[:6], "whole.jsonl", *SLOW]
    assert subprocess.run(whole, cwd=tmp_path, env=environment()).returncode == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == [r["text"] for r in texts(60)]


def test_a_failing_signal_says_what_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "in.jsonl", texts(30))
    monkeypatch.setenv("FAIL_AT", "answer 12\n\nso 144")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SLOW)
    kept = "what was scored is kept in .out.jsonl.scored.sqlite: run the same command to continue"
    failed = "in.jsonl:13: function: RuntimeError: the server went away"
    assert (ended.code, ended.err) == (1, f"{kept}\n{failed}\n")
    assert not (tmp_path / "out.jsonl").exists()
    done = (tmp_path / "calls").read_text().count("so")
    monkeypatch.delenv("FAIL_AT")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SLOW).err == ""
    assert (tmp_path / "calls").read_text().count("so") == 30 + 1 <= done + 30
    assert not list(tmp_path.glob(".out*"))


def test_a_cache_is_kept_and_shared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "in.jsonl", [*texts(10), *texts(10)])
    for output in ("a.jsonl", "b.jsonl"):
        options = (*SLOW, "--cache", "scores.sqlite")
        assert run("score", "in.jsonl", "-o", output, *options).err == ""
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "calls").read_text().count("so") in (10, 20)
    assert not list(tmp_path.glob(".*.sqlite"))
