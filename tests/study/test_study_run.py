"""A study runs each run once, survives kill -9, and gives the same numbers again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

pytest.importorskip("trl")

from filelock import FileLock
from rich.console import Console
from tests.study.micro_study import MICRO, MICRO_LAB, run_micro

from stepcredit.errors import FileError
from stepcredit.study.single_run import run_once
from stepcredit.study.study_cells import Arm, Block, Preset
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_runner import RunOptions, run_study
from stepcredit.study.study_store import StudyStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Folder of the warm starts, which all tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def killed(tmp_path_factory, cache) -> Path:
    """A store whose study was killed after its first finished run, and then run to its end."""
    path = tmp_path_factory.mktemp("killed") / "study.sqlite"
    script = ROOT / "tests" / "study" / "micro_study.py"
    command = [sys.executable, str(script), str(path), str(cache)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        while finished(path) == 0 and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = rows(path)
    assert 0 < len(before) < 6
    tally = run_micro(path, cache)
    assert (tally.total, tally.there, tally.done) == (6, len(before), 6 - len(before))
    assert [row for row in rows(path) if row[0] in dict(before)] == before
    return path


def finished(path: Path) -> int:
    try:
        return len(rows(path))
    except sqlite3.OperationalError:  # not made yet
        return 0


def rows(path: Path) -> list[tuple[str, float]]:
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    found = base.execute("SELECT key, cpu_seconds FROM run WHERE status = 'done'").fetchall()
    base.close()
    return found


def test_a_killed_study_goes_on_and_counts_no_run_twice(killed: Path, cache: Path) -> None:
    with StudyStore(killed) as store:
        runs = StudyData(store).runs
    assert len(runs) == 12
    assert len({run.key for run in runs}) == 6
    assert {run.status for run in runs} == {"done"}
    again = run_micro(killed, cache)
    assert (again.there, again.done, again.failed) == (6, 0, {})


def test_the_same_seed_gives_the_same_numbers(killed: Path, cache: Path, tmp_path: Path) -> None:
    cell = next(c for c in MICRO.cells() if c.label == "pass" and c.signal == "hackable")
    found = run_once(cell.settings, cache, tmp_path / "run", lambda update: None)
    with StudyStore(killed) as store:
        run = next(r for r in StudyData(store).runs if r.key == cell.key)
    assert found.after[0].correct == tuple(run.record("after").correct)
    assert found.before[0].correct == tuple(run.record("before").correct)
    assert found.tokens == run.costs["tokens"]
    for mine, kept in zip(found.curve, run.curve, strict=True):
        assert {n: v if v is None else round(v, 4) for n, v in mine.items()} == kept
    assert not (tmp_path / "run").exists()


def test_costs_and_curves_are_kept(killed: Path) -> None:
    with StudyStore(killed) as store:
        runs = {(r.label, r.signal, r.seed): r for r in StudyData(store).runs}
    run, plain = runs["pass", "noisy", 0], runs["grpo", "noisy", 0]
    assert run.costs["signal_calls"] == 4 * 2 * 4
    assert plain.costs["signal_calls"] == 0
    assert plain.key == runs["grpo", "hackable", 0].key
    assert run.key == runs["k", "noisy", 0].key
    assert [row["update"] for row in run.curve] == [1, 2, 3, 4]
    lengths = [row["length"] for row in run.curve]
    assert run.costs["tokens"] == pytest.approx(sum(lengths) * 8, abs=0.01)
    assert any(row["process_std"] > 0 for row in run.curve)
    assert all(row["teacher_kl"] is None for row in run.curve)
    assert len(run.record("after").correct) == 8
    assert run.record("after").samples == 8


def test_a_failed_run_is_recorded_and_retried_on_demand(cache: Path, tmp_path: Path) -> None:
    warm = replace(MICRO_LAB["warm"], target=1.0, max_steps=1)
    block = Block("arithmetic", {"noisy": {}}, (Arm("grpo", "grpo"),), (0,))
    preset = Preset("bad", "", "tuning", (replace(block, lab={**MICRO_LAB, "warm": warm}),))
    path = tmp_path / "study.sqlite"
    assert list(run_micro(path, cache, preset).failed.values()) == [
        "StepCreditError: pass@1 1.0: not reached in 1 supervised steps"
    ]
    assert run_micro(path, cache, preset).done == 0
    (kept,) = cache.glob("*.failed")
    assert kept.read_text() == "pass@1 1.0: not reached in 1 supervised steps"
    with StudyStore(path) as store:
        (run,) = StudyData(store).runs
        assert (run.status, run.error[:15]) == ("failed", "StepCreditError")
        options = RunOptions(workers=1, cache_dir=cache, retry_failed=True)
        again = run_study("bad", preset.cells(), store, options, Console(stderr=True))
    assert (again.there, again.done, len(again.failed)) == (0, 0, 1)


def test_a_second_study_on_one_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    with (
        StudyStore(path, create=True) as store,
        FileLock(f"{path}.lock"),
        pytest.raises(FileError, match="another study is running on this store"),
    ):
        run_study("micro", MICRO.cells(), store, RunOptions(workers=1), None)
