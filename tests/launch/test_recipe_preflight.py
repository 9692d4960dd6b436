"""The preflight of a recipe: what it prints, and that several faults come out in one list."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer, Qwen2Config, dynamic_module_utils
from trl import ModelConfig

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.run_record import write_run
from stepcredit.engines.trl.trainer import StepCreditGRPOTrainer
from stepcredit.launch.recipe_size import checkpoint_weights
from stepcredit.launch.script import _preflight, train_from_flags
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
        "  by: weights P b / G (+ 4 A), gradients T t / G, optimizer 2 T t / G",
    ):
        assert any(each.startswith(line) for each in shown.splitlines()), line
    assert "lengths fit the model" in shown
    assert shown.splitlines()[-1].startswith("preflight: ")
    assert not (tmp_path / "out").exists()


def test_bounds_of_a_watch_are_checked_before_anything_is_made(recipe, capfd):
    path = recipe(watch={"stepcredit/lenght": {"max": 8}})
    assert train_from_flags(["--config", str(path), "--check"]) == 2
    line = "watch.stepcredit/lenght: no such metric (did you mean stepcredit/length or "
    assert line in capfd.readouterr().err
    good = {"rewards/right/mean": {"min": 0}, "agreement/process": {"min": 0.5, "then": "stop"}}
    assert train_from_flags(["--config", str(recipe(watch=good)), "--check"]) == 0


STOP = {"length": {"max": 1, "then": "stop"}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"watch": STOP, "save_only_model": True},
            "save_only_model: True writes checkpoints that can't be resumed, but a stop of watch "
            "needs one that can; let watch only warn",
        ),
        (
            {"save_strategy": "best", "metric_for_best_model": "eval_reward", "eval_steps": 1}
            | {"eval_strategy": "steps", "dataset_test_split": "train[:4]"}
            | {"gradient_accumulation_steps": 1, "steps_per_generation": 2},
            "eval_steps: step 1 is within a generation, where the best model can't be kept; use a "
            "multiple of 2",
        ),
        (
            {"save_total_limit": 1},
            "save_total_limit: {out} holds checkpoint-2 of an earlier run, and the lowest numbers "
            "are deleted first: name another output_dir",
        ),
        (
            {"rollouts_dir": "{out}/rollouts"},
            "rollouts_dir: {out}/rollouts/rollouts-000000.jsonl is of an earlier run: name another "
            "folder, or move its files",
        ),
        (
            {"resume_from_checkpoint": True},
            "resume_from_checkpoint: {out}/checkpoint-2 holds only the model: start a new training "
            "from it",
        ),
    ],
)
def test_what_the_start_would_refuse_is_found_by_the_check(recipe, capfd, tmp_path, changes, line):
    out = tmp_path / "out"
    (out / "checkpoint-2").mkdir(parents=True)
    (out / "rollouts").mkdir()
    (out / "rollouts/rollouts-000000.jsonl").write_text("")
    placed = {
        name: value.replace("{out}", str(out)) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    for flags in (["--check"], []):
        assert train_from_flags(["--config", str(recipe(**placed)), *flags]) == 2
        assert line.replace("{out}", str(out)) in capfd.readouterr().err.splitlines()


def test_a_checkpoint_of_other_credit_is_found_by_the_check(recipe, capfd, tmp_path):
    """The record that the check compares is the one that a trainer would write."""
    checkpoint = tmp_path / "out/checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "rng_state.pth").write_bytes(b"")
    found = Preflight()
    made = _preflight(found, ["--config", str(recipe()), "--check"], ExitStack())
    assert not found.errors
    write_run(checkpoint, "run", made.record)
    write_run(tmp_path / "out", "run", made.record)
    for value, code in ((0.7, 0), (1.0, 2)):
        path = recipe(fields={"k": value}, resume_from_checkpoint=True)
        assert train_from_flags(["--config", str(path), "--check"]) == code
    line = f"resume_from_checkpoint: {checkpoint} was trained with other credit: fields.k was 0.7, "
    assert any(each.startswith(f"{line}is 1.0") for each in capfd.readouterr().err.splitlines())


def test_rows_are_measured_with_the_arguments_of_the_chat_template(recipe, models, capfd, tmp_path):
    policy = shutil.copytree(models / "policy", tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = "{{ messages[0].content }}{% if long %}{{ '1' * 99 }}{% endif %}"
    tokenizer.save_pretrained(policy)
    limits = {"model_name_or_path": str(policy), "max_prompt_length": 40}
    assert train_from_flags(["--config", str(recipe(**limits)), "--check"]) == 0
    path = recipe(**limits, chat_template_kwargs={"long": True})
    assert train_from_flags(["--config", str(path), "--check"]) == 2
    line = "max_prompt_length: each of the 6 prompts has more than 40 tokens"
    assert line in capfd.readouterr().err.splitlines()


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
            "scale_rewards: 'batch' has no effect: the method standardizes; leave it out, and set "
            "the method's operator",
            "resume_from_checkpoint: no such folder: no-such-checkpoint",
        ):
            assert line in lines
        assert any(line.startswith(f"output_dir: {tmp_path}/file/out can't be") for line in lines)
        assert any(line.startswith("process_signal: no/such/folder") for line in lines)


OWN_CONFIG = """
from transformers import Qwen2Config

class OwnConfig(Qwen2Config):
    model_type = "own-code"
"""
OWN_MODEL = """
from transformers import Qwen2ForCausalLM
from .configuration_own import OwnConfig

class OwnModel(Qwen2ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(tmp_path, models, monkeypatch):
    """A policy whose config and model are code in its folder."""
    modules = tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(sys, "path", [*sys.path])
    policy = tmp_path / "own"
    shutil.copytree(models / "policy", policy)
    (policy / "configuration_own.py").write_text(OWN_CONFIG)
    (policy / "modeling_own.py").write_text(OWN_MODEL)
    names = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnModel",
    }
    config = json.loads((policy / "config.json").read_text())
    config |= {"model_type": "own-code", "auto_map": names}
    (policy / "config.json").write_text(json.dumps(config))
    return str(policy)


def test_a_policy_with_code_of_its_own_is_loaded_where_the_recipe_trusts_it(
    recipe, own_code, capfd
):
    trusted = recipe(model_name_or_path=own_code, trust_remote_code=True)
    assert train_from_flags(["--config", str(trusted), "--check"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert ["ok", "the", "policy's", "config"] in lines
    assert ["ok", "disk", "space"] in [line[:3] for line in lines]  # its weights were counted
    refused = recipe(model_name_or_path=own_code, trust_remote_code=False)
    assert train_from_flags(["--config", str(refused), "--check"]) == 2
    assert "model_name_or_path: " in capfd.readouterr().err


def test_a_policy_s_prompt_is_measured_with_the_recipe_s_template_arguments(recipe, capsys, models):
    """A template with a long text where the recipe says so: 4000 tokens more."""
    policy = Path(shutil.copytree(models / "policy", recipe().parent / "talking"))
    template = "{% if long %}{{ 'x' * 4000 }}{% endif %}{{ messages[0]['content'] }}"
    settings = json.loads((policy / "tokenizer_config.json").read_text())
    (policy / "chat_template.jinja").write_text(template)
    (policy / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": template})
    )
    path = recipe(
        model_name_or_path=str(policy),
        chat=True,
        chat_template_kwargs={"long": True},
        process_signal=None,
        process_signal_fields=None,
        method="grpo",
    )
    assert train_from_flags(["--config", str(path), "--check"]) == 0
    assert "4007 + 64 of 4096" in capsys.readouterr().out


def test_of_adapters_alone_the_trained_weights_are_counted():
    """Rank 2 on the 16 x 16 map of queries and the 16 x 8 of values: 2 x 32 + 2 x 24 numbers."""
    pytest.importorskip("peft")
    config = Qwen2Config(
        **{"hidden_size": 16, "intermediate_size": 32, "vocab_size": 100},
        **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1},
    )
    adapters = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}
    assert checkpoint_weights(config, ModelConfig(dtype="float32", **adapters)) == 112 * 4
