"""Thirty planted faults: the preflight tells each of them, and no trainer is made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from stepcredit.engines.preflight import run_folders
from stepcredit.engines.trl.trainer import StepCreditGRPOTrainer
from stepcredit.launch.script import train_from_flags
from stepcredit.launch.tiny_models import save_language_model, save_reward_model

SERVER = Path(__file__).parents[1] / "signals" / "served" / "server.py"
ROWS = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(1, 7)]
PRM = {"model": "{models}/prm", "protocol": "token-classifier", "empty": "score"}
SERVED = {"url": "http://127.0.0.1:9", "model": "m", "backoff": 0.01, "timeout": 2}
OPD = {"tokenizer": "{models}/policy"}
OWN = """
def fails(completions, **columns):
    raise KeyError("gold")

def too_few(completions, **columns):
    return [1.0]

def texts(completions, **columns):
    return ["good"] * len(completions)
"""

FAULTS = {
    "an unknown key": ({"methud": "pass"}, "{recipe}: methud: unknown key, did you mean"),
    "a value of another type": ({"max_steps": [1]}, "{recipe}: max_steps: expected int, got [1]"),
    "a module that is missing": ({"import": "none.py"}, "import: none.py: no such file"),
    "a method's field": ({"fields": {"kk": 1}}, "fields.kk: pass has no such field"),
    "an unknown signal": ({"process_signal": "prn"}, "process_signal: unknown signal 'prn'"),
    "a signal's field": (
        {"process_signal_fields": {**PRM, "empti": 1}},
        "process_signal_fields.empti: prm has no such field",
    ),
    "an unknown splitter": ({"splitter": "newlin"}, "splitter: unknown splitter 'newlin'"),
    "an unknown reward": ({"rewards": {"right": "exakt"}}, "rewards.right: unknown reward 'exakt'"),
    "an outcome that is no reward": (
        {"outcome_reward": "rihgt"},
        "outcome_reward: no reward function 'rihgt'",
    ),
    "a gate without a format": (
        {"rewards": {"right": "exact"}, "format_gate": 0.5},
        "format_gate: 0.5 is a threshold of the format reward",
    ),
    "weights of no stream": (
        {"fields": {"weights": {"prm": 1.0, "process": 1.0, "outcome": 1.0}}},
        "fields.weights.prm: no such stream",
    ),
    "a setting of TRL's that loses credit": ({"scale_rewards": "batch"}, "scale_rewards: 'batch'"),
    "checkpoints that can't resume": (
        {"ignore_data_skip": True},
        "ignore_data_skip: True resumes with the wrong prompts",
    ),
    "no policy": ({"model_name_or_path": "{models}/none"}, "model_name_or_path: Repo id must be"),
    "no reward model": (
        {"process_signal_fields": {**PRM, "model": "{models}/none"}},
        "process_signal: {models}/none: does not load",
    ),
    "a model that is no reward model": (
        {"process_signal_fields": {**PRM, "model": "{models}/policy"}},
        "process_signal: {models}/policy: lacks the weights score.bias, score.weight",
    ),
    "a judge that does not answer": (
        {"process_signal": "judge", "process_signal_fields": SERVED},
        "process_signal: the ... : http://127.0.0.1:9/v1/chat/completions: ",
    ),
    "a server that breaks off": (
        {
            "process_signal": "logprobs-served",
            "process_signal_fields": {**SERVED, "url": "{server}", "model": "t", "api": "sglang"},
        },
        "process_signal: the ... : {server}/generate: ",
    ),
    "no API key": (
        {
            "process_signal": "judge",
            "process_signal_fields": {**SERVED, "api_key_env": "NO_SUCH_KEY_IS_SET"},
        },
        "process_signal: api_key_env: no environment variable of this name",
    ),
    "a teacher of another vocabulary": (
        {"process_signal": "opd", "process_signal_fields": {**OPD, "teacher": "{models}/other"}},
        "process_signal: {models}/other: another vocabulary than {models}/policy's",
    ),
    "a teacher at another temperature": (
        {
            "process_signal": "opd",
            "process_signal_fields": {**OPD, "teacher": "{models}/policy", "temperature": 0.5},
        },
        "temperature: 1, but the signal opd takes log-probs at 0.5",
    ),
    "a reward model of too short a context": (
        {"max_completion_length": 300, "process_signal_fields": {**PRM, "model": "{models}/short"}},
        "process_signal: the right made-up response: text: is 68 tokens with its prompt",
    ),
    "lengths beyond the policy, in vLLM": (
        {
            **{"max_completion_length": 4096, "use_vllm": True},
            **{"process_signal": None, "process_signal_fields": None},
        },
        "max_completion_length: 4096 tokens after a prompt of",
    ),
    "a context beyond the policy's, in vLLM": (
        {"use_vllm": True, "vllm_max_model_length": 90000},
        "vllm_max_model_length: 90000 tokens: vLLM refuses more than the 4096",
    ),
    "vLLM that is not installed": ({"use_vllm": True}, "use_vllm: vLLM is not installed"),
    "a logger that is not installed": (
        {"report_to": ["clearml"]},
        "report_to: ClearMLCallback requires 'clearml' to be installed",
    ),
    "an unknown logger": ({"report_to": ["wandbb"]}, "report_to: 'wandbb' is unknown"),
    "no rows": ({"dataset_name": "{folder}/none.jsonl"}, "dataset_name: no such file"),
    "a column that is not there": (
        {"columns": {"answer": "gold"}},
        "columns.answer: {folder}/rows.jsonl has no column 'gold'",
    ),
    "too few rows": (
        {"per_device_train_batch_size": 64},
        "dataset_name: 6 rows, but a generation samples 32 prompts",
    ),
    "a gold that can't be read": (
        {"dataset_name": "{folder}/unreadable.jsonl", "rewards": {"right": "maths"}},
        "row 4: answer: can't be read as maths",
    ),
    "a reward function that raises": (
        {"import": "{folder}/thirty_rewards.py", "rewards": {"mine": "thirty_rewards:fails"}},
        "rewards.mine: KeyError: 'gold'",
    ),
    "a reward function that gives too few": (
        {"import": "{folder}/thirty_rewards.py", "rewards": {"mine": "thirty_rewards:too_few"}},
        "rewards.mine: gave 1 rewards for 14 completions",  # 2 x 2 of row 0, 2 of each other
    ),
    "a reward function that gives no numbers": (
        {"import": "{folder}/thirty_rewards.py", "rewards": {"mine": "thirty_rewards:texts"}},
        "rewards.mine: gave 'good', expected a number or None",
    ),
    "a folder that can't be written": (
        {"output_dir": "{folder}/rows.jsonl/out"},
        "output_dir: {folder}/rows.jsonl/out can't be written",
    ),
    "no checkpoint to resume from": (
        {"resume_from_checkpoint": "no/such"},
        "resume_from_checkpoint: no such folder: no/such",
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_language_model(folder / "policy")
    save_reward_model(folder / "prm", "token-classifier", {})
    shutil.copytree(folder / "prm", folder / "short")
    config = json.loads((folder / "short/config.json").read_text())
    (folder / "short/config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    shutil.copytree(folder / "policy", folder / "other")
    words = json.loads((folder / "other/tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (folder / "other/tokenizer.json").write_text(json.dumps(words))
    return folder


@pytest.fixture(scope="module")
def server():
    """The served models' stand-in, which does not know sglang's address and breaks off."""
    with subprocess.Popen(
        [sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True
    ) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


def filled(value, names):
    """A setting with the folders of this test in it."""
    if isinstance(value, str):
        for name, own in names.items():
            value = value.replace(f"{{{name}}}", str(own))
        return value
    if isinstance(value, dict):
        return {key: filled(inner, names) for key, inner in value.items()}
    return value


@pytest.fixture
def written(tmp_path, models, server, monkeypatch):
    """Writes a recipe with changes; returns the names in it."""

    def no_trainer(*args, **kwargs):
        raise AssertionError("the trainer was made: the preflight let a fault pass")

    monkeypatch.setattr(StepCreditGRPOTrainer, "__init__", no_trainer)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    golds = [*ROWS[:4], {**ROWS[4], "answer": "t(0,4]"}, ROWS[5]]
    unreadable = "".join(json.dumps(row) + "\n" for row in golds)
    (tmp_path / "unreadable.jsonl").write_text(unreadable)
    (tmp_path / "thirty_rewards.py").write_text(OWN)
    names = {"folder": tmp_path, "models": models, "server": server}
    names["recipe"] = tmp_path / "recipe.yaml"
    keys = {
        "model_name_or_path": "{models}/policy",
        "dataset_name": "{folder}/rows.jsonl",
        "rewards": {"right": "exact", "layout": "format"},
        "output_dir": "{folder}/out",
        "process_signal": "prm",
        "process_signal_fields": PRM,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 48,
        "save_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
    }

    def write(changes):
        text = yaml.safe_dump(filled({**keys, **changes}, names))
        names["recipe"].write_text(text)
        return names

    return write


@pytest.fixture(autouse=True)
def forgotten():
    """Each test's rewards are another file of the same name."""
    yield
    sys.modules.pop("thirty_rewards", None)


def test_the_recipe_itself_has_no_fault(written):
    assert train_from_flags(["--config", str(written({})["recipe"]), "--check"]) == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_told_before_a_trainer_is_made(fault, written, capfd):
    changes, line = FAULTS[fault]
    if fault == "vLLM that is not installed" and find_spec("vllm"):
        pytest.skip("vLLM is installed here")
    names = written(changes)
    assert train_from_flags(["--config", str(names["recipe"])]) == 2
    told = capfd.readouterr().err.splitlines()
    begins, _, holds = filled(line, names).partition(" ... ")  # which response fails first varies
    assert any(each.startswith(begins) and holds in each for each in told), told


def test_a_full_disk_is_told(written, capfd, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(run_folders.shutil, "disk_usage", lambda path: usage(1000, 1, 999))
    names = written({"save_steps": 1, "save_total_limit": 1})
    assert train_from_flags(["--config", str(names["recipe"])]) == 2
    told = capfd.readouterr().err
    assert "output_dir: 2 checkpoints of 3 x " in told
    assert ", and 999 bytes are free: keep fewer, or name another disk" in told


def test_there_are_thirty_and_the_documents_list_each():
    page = (Path(__file__).parents[2] / "docs" / "preflight.md").read_text()
    assert len(FAULTS) >= 30
    assert [fault for fault in FAULTS if f"| {fault} |" not in page] == []


DEAD = "http://127.0.0.1:9"
JUDGE = {**SERVED, "url": DEAD, "model": "j", "attempts": 2, "backoff": 0.01}
TOLD_TOGETHER = {
    "a dead judge and a bound on no metric": (
        {
            **{"process_signal": "judge", "process_signal_fields": JUDGE},
            "watch": {"stepcredit/lenght": {"max": 5}},
        },
        [],
        ["watch.stepcredit/lenght: ", f"process_signal: the  ... {DEAD}"],
    ),
    "a dead judge and a column that is not there": (
        {
            **{"process_signal": "judge", "process_signal_fields": JUDGE},
            "columns": {"answer": "gold"},
        },
        [],
        ["columns.answer: ", f"process_signal: {DEAD}: does not answer: connection refused"],
    ),
    "a dead server of vLLM, which trains elsewhere": (
        {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": DEAD},
        ["--check"],
        [f"vllm_server_base_url: {DEAD}: does not answer: connection refused"],
    ),
    "an unknown flag, an unknown key and no rows": (
        {"methud": "pass", "dataset_name": "{folder}/none.jsonl"},
        ["--methodd", "pass", "--max_step=3"],
        [
            "--methodd: unknown flag",
            "--max_step: unknown flag",
            "{recipe}: methud",
            "dataset_name: no such",
        ],
    ),
}


@pytest.mark.parametrize("faults", TOLD_TOGETHER)
def test_one_fault_does_not_hide_another(faults, written, capfd):
    changes, flags, lines = TOLD_TOGETHER[faults]
    names = written(changes)
    flags = ["--config", str(names["recipe"]), *flags]
    assert train_from_flags(flags) == 2
    told = capfd.readouterr().err.splitlines()
    for line in lines:
        begins, _, holds = line.replace("{recipe}", str(names["recipe"])).partition(" ... ")
        assert any(each.startswith(begins) and holds in each for each in told), "\n".join(told)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a machine without a GPU")
def test_a_recipe_for_gpus_is_checked_without_one(written, capfd):
    names = written({"use_cpu": False, "bf16": True, "tf32": True, "use_vllm": True})
    assert train_from_flags(["--config", str(names["recipe"]), "--check"]) == 0
    shown = capfd.readouterr().out
    assert "it has no GPU: the run is checked as on a CPU, without bf16, tf32" in " ".join(
        shown.split()
    )
    assert "credit of the made-up responses" in shown
    assert train_from_flags(["--config", str(names["recipe"])]) == 2  # it can't train here
