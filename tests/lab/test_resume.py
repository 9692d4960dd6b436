"""An interrupted run ends as the uninterrupted one, bit for bit, whichever method was running."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from rich.console import Console
from tests.lab.micro import MICRO_WARM

from stepcredit.errors import FileError
from stepcredit.lab import comparison as job
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.resume import PROGRESS_FILE, Progress, newest_checkpoint

UPDATES = 12
MICRO = LabSettings(
    updates=UPDATES,
    prompts=2,
    group_size=4,
    evaluate_every=4,
    checkpoint_every=3,
    record_every=2,
    evaluation_problems=8,
    evaluation_samples=8,
    max_new_tokens=40,
    warm=MICRO_WARM,
)
PROGRAM = """
import sys
from pathlib import Path
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.comparison import train
settings, runs, cache = map(Path, sys.argv[1:])
try:
    train(LabSettings.load(settings), runs, "run", cache)
except KeyboardInterrupt as stopped:
    print(stopped)
    sys.exit(130)
"""
SAME = (
    "config.json",
    "metrics.jsonl",
    "rollouts.jsonl",
    "summary.json",
    "checkpoint/model.safetensors",
    "checkpoint-grpo/model.safetensors",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run's folder."""
    root = tmp_path_factory.mktemp("whole")
    return job.train(MICRO, root, "run", root / "cache", Console(file=io.StringIO()))


def interrupted(whole: Path, root: Path, by: int, method: str, update: int):
    """Start the run in a process of its own; signal it once the method has done the update."""
    command = [sys.executable, "-c", PROGRAM, whole / "config.json", root, whole.parent / "cache"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    metrics = root / "run" / "metrics.jsonl"
    wanted = f'"method":"{method}","update":{update},'.encode()
    until = time.monotonic() + 120
    while not (metrics.exists() and wanted in metrics.read_bytes()):
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(by)
    printed, _ = process.communicate(timeout=120)
    return root / "run", process.returncode, printed


def updates_done(folder: Path, method: str) -> int:
    return (folder / "metrics.jsonl").read_text().count(f'"method":"{method}"')


def go_on(folder: Path, cache: Path) -> None:
    job.resume(folder, cache, Console(file=io.StringIO()))


def assert_same(whole: Path, other: Path) -> None:
    for name in SAME:
        assert (other / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (other / "checkpoints").exists()


@pytest.mark.parametrize("method", ["pass", "grpo"])
def test_an_interrupt_saves_at_the_generations_end_and_the_run_goes_on_from_there(
    whole, tmp_path, method
):
    folder, code, printed = interrupted(whole, tmp_path, signal.SIGINT, method, 4)
    assert code == 130
    command = f"stepcredit train --resume {folder}"
    assert printed.splitlines()[-1] == f"interrupted; continue with: {command}"
    done = updates_done(folder, method)
    assert 4 <= done < UPDATES
    steps = done * MICRO.minibatches
    assert newest_checkpoint(folder / "checkpoints" / method).name == f"checkpoint-{steps}"
    go_on(folder, whole.parent / "cache")
    assert_same(whole, folder)


@pytest.mark.parametrize("method", ["pass", "grpo"])
def test_a_killed_run_goes_on_from_its_newest_checkpoint(whole, tmp_path, method):
    folder, code, _ = interrupted(whole, tmp_path, signal.SIGKILL, method, 4)
    assert code == -signal.SIGKILL
    assert updates_done(folder, method) < UPDATES
    go_on(folder, whole.parent / "cache")
    assert_same(whole, folder)


def test_both_methods_trained_so_the_comparison_means_something(whole):
    names = ("warm_start", "checkpoint", "checkpoint-grpo")
    weights = [(whole / name / "model.safetensors").read_bytes() for name in names]
    assert len(set(weights)) == 3


def test_a_checkpoint_without_its_mark_is_not_whole(tmp_path):
    for steps in (4, 8, 12):
        (tmp_path / f"checkpoint-{steps}").mkdir()
        if steps < 12:
            Progress([], {}).save(tmp_path / f"checkpoint-{steps}" / PROGRESS_FILE)
    assert newest_checkpoint(tmp_path).name == "checkpoint-8"
    assert not (tmp_path / "checkpoint-12").exists()


def test_a_damaged_mark_is_refused(tmp_path):
    (tmp_path / PROGRESS_FILE).write_text("{")
    with pytest.raises(FileError, match="not the progress of a run"):
        Progress.load(tmp_path / PROGRESS_FILE)


def test_another_seed_gives_another_run(whole, tmp_path):
    """The comparison above can fail: one seed further, nothing is equal."""
    changed = replace(MICRO, seed=1, updates=3, compare=None)
    other = job.train(changed, tmp_path, "run", whole.parent / "cache", Console(file=io.StringIO()))
    ours, theirs = ((p / "rollouts.jsonl").read_bytes().splitlines()[0] for p in (whole, other))
    assert ours != theirs
