"""A small run on the multihop task: what it leaves, and that it resumes bit for bit."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from rich.console import Console
from tests.lab.micro import MICRO_WARM

import stepcredit as sc
from stepcredit.lab import comparison as job
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.report import Live

START = replace(MICRO_WARM, task="multihop")
MICRO = LabSettings(
    task="multihop",
    signal="g-opd-mismatched",
    updates=3,
    prompts=2,
    group_size=4,
    evaluate_every=3,
    checkpoint_every=1,
    record_every=3,
    evaluation_problems=4,
    evaluation_samples=8,
    max_new_tokens=24,
    warm=START,
    teacher=replace(START, seed=7, filler=0.45),
)
SAME = (
    *("config.json", "metrics.jsonl", "rollouts.jsonl", "summary.json"),
    *("checkpoint/model.safetensors", "checkpoint-grpo/model.safetensors"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, what was printed) of one run: PASS on a token signal, then GRPO."""
    root, out = tmp_path_factory.mktemp("multihop"), io.StringIO()
    return job.train(MICRO, root, "run", root / "cache", Console(file=out, width=120)), (
        out.getvalue()
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_split_is_evaluated_and_shown(whole: tuple[Path, str]) -> None:
    rows = [row for row in lines(whole[0] / "metrics.jsonl") if "evaluation" in row]
    assert [(row["method"], row["update"]) for row in rows] == [
        *(("warm start", 0), ("pass", 3), ("grpo", 3)),
    ]
    for row in rows:
        assert list(row["evaluation"]) == list(row["correct"]) == ["2 hops", "3 hops", "4 hops"]
        assert all(found["answers"] == 32 for found in row["evaluation"].values())
        assert all(len(counts) == 4 for counts in row["correct"].values())
    summary = json.loads((whole[0] / "summary.json").read_text())
    assert [list(row["evaluation"]) for row in summary] == [["2 hops", "3 hops", "4 hops"]] * 3
    for name in ("pass@1, 2 hops", "pass@1, 3 hops", "pass@1, 4 hops", "fillers, 2 hops"):
        assert name in whole[1]
    assert (whole[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_recorded_token_scores_give_the_recorded_advantages(whole: tuple[Path, str]) -> None:
    rows = lines(whole[0] / "rollouts.jsonl")
    own = [row for row in rows if row["method"] == "pass" and row["update"] == 3]
    rollouts = sc.Rollouts(
        group=[row["group"] for row in own],
        process=sc.Tokens([row["token_scores"] for row in own]),
        **{name: [row[name] for row in own] for name in ("outcome", "format", "format_ok")},
    )
    advantages = MICRO.estimators()[0][1](rollouts).ragged()
    for row, expected in zip(own, advantages, strict=True):
        assert row["advantages"] == pytest.approx(expected.tolist(), abs=1e-5)
        assert len(row["token_scores"]) == len(row["tokens"]) == row["step_ends"][-1] + 1
        assert len(row["kinds"]) == len(row["step_ends"])
    assert not any("token_scores" in row for row in rows if row["method"] == "grpo")


def test_the_teachers_divergence_is_logged_where_a_teacher_is_read(whole: tuple[Path, str]) -> None:
    rows = lines(whole[0] / "metrics.jsonl")
    logged = {row["method"]: "rollouts/teacher_kl" in row for row in rows if row["update"]}
    assert logged == {"pass": True, "grpo": False}


def test_an_interrupted_run_ends_as_the_whole_one(
    whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(live: Live, label: str, row: dict[str, Any]) -> None:
        if (label, row["update"]) == ("pass", 2):
            raise KeyboardInterrupt

    cache, console = whole[0].parent / "cache", Console(file=io.StringIO())
    with monkeypatch.context() as patched:
        patched.setattr(Live, "update", stopping)
        with pytest.raises(KeyboardInterrupt):
            job.train(MICRO, tmp_path, "run", cache, console)
    job.resume(tmp_path / "run", cache, console)
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (whole[0] / name).read_bytes(), name


@pytest.mark.parametrize("method", ["opd", "g-opd", "pure", "grpo-process", "pass-min"])
def test_other_methods_train_on_step_sums(
    whole: tuple[Path, str], tmp_path: Path, method: str
) -> None:
    settings = replace(MICRO, method=method, compare=None, signal="opd-steps", updates=1)
    folder = job.train(
        settings, tmp_path, "run", whole[0].parent / "cache", Console(file=io.StringIO())
    )
    row = lines(folder / "metrics.jsonl")[-1]
    assert "rollouts/teacher_kl" in row
