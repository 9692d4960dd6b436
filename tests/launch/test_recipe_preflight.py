"""The preflight of a recipe: what it prints, and that several faults come out in one list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from stepcredit.engines.trl.trainer import StepCreditGRPOTrainer
from stepcredit.launch.script import train_from_flags
from stepcredit.launch.tiny_models import save_language_model, save_reward_model

ROWS = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(1, 7)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_language_model(folder / "policy")
    save_reward_model(folder / "prm", "token-classifier", {})
    return folder


@pytest.fixture
def recipe(tmp_path, models, monkeypatch):
    """The keys of a recipe without a fault, whose changes are written to its file."""
    monkeypatch.setattr(StepCreditGRPOTrainer, "__init__", _no_trainer)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    keys = {
        "model_name_or_path": str(models / "policy"),
        "dataset_name": str(tmp_path / "rows.jsonl"),
        "rewards": {"right": "exact", "layout": "format"},
        "output_dir": str(tmp_path / "out"),
        "method": "pass",
        "process_signal": "prm",
        "process_signal_fields": {
            "model": str(models / "prm"),
            "protocol": "token-classifier",
            "empty": "score",
        },
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 64,
        "save_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
    }

    def write(**changes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**keys, **changes}))
        return path

    return write


def _no_trainer(*args, **kwargs):
    raise AssertionError("the trainer was made: the preflight let a fault pass")


def test_a_check_prints_results_credit_and_sizes_and_trains_nothing(recipe, capsys, tmp_path):
    assert train_from_flags(["--config", str(recipe()), "--check"]) == 0
    shown = capsys.readouterr().out
    assert "ok  signal process" in " ".join(shown.split("\n")).replace("   ", "  ")
    for line in (
        "credit by pass(",
        "  process: prm(model=",
        "  outcome: right (weight 1)",
        "memory of one GPU, estimated: ",
        "  by: weights P b / G, gradients T t / G, Adam 2 T t / G",
    ):
        assert any(each.startswith(line) for each in shown.splitlines()), line
    assert "lengths fit the model" in shown
    assert shown.splitlines()[-1].startswith("preflight: ")
    assert not (tmp_path / "out").exists()


def test_several_faults_are_one_list_and_no_trainer_is_made(recipe, capfd, tmp_path):
    (tmp_path / "file").write_text("")
    path = recipe(
        methud="pass",
        fields={"kk": 1},
        rewards={"right": "exact", "layout": "formatt"},
        output_dir=str(tmp_path / "file" / "out"),
        process_signal_fields={"model": "no/such/folder", "protocol": "token-classifier"},
        scale_rewards="batch",
        resume_from_checkpoint="no-such-checkpoint",
    )
    for flags in ([], ["--check"]):
        assert train_from_flags(["--config", str(path), *flags]) == 2
        lines = capfd.readouterr().err.splitlines()
        for line in (
            f"{path}: methud: unknown key, did you mean 'method'?",
            "fields.kk: pass has no such field, did you mean 'k'?",
            "rewards.layout: unknown reward 'formatt', did you mean 'format'?, or MODULE:FUNCTION",
            "scale_rewards: 'batch' has no effect: the estimator standardizes; set its operator "
            "instead",
            "resume_from_checkpoint: no such folder: no-such-checkpoint",
        ):
            assert line in lines
        assert any(line.startswith(f"output_dir: {tmp_path}/file/out can't be") for line in lines)
        assert any(line.startswith("process_signal: no/such/folder") for line in lines)
