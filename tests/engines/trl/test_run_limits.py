"""Lengths and the disk: what is refused could not work, and what works is not refused."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen2Config

from stepcredit.engines.preflight import run_folders
from stepcredit.engines.preflight.context_lengths import context_length, has_rope
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.trl.run_limits import check_output, check_policy_lengths, checkpoints_of

YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
ORIGINAL = "original_max_position_embeddings"
WEIGHTS = 100


def lengths(config: Any, completion: int, **changes: Any) -> Preflight:
    """The results for a prompt of 100 tokens."""
    plain = {"use_vllm": False, "vllm_max_model_length": None, "max_completion_length": completion}
    found = Preflight()
    check_policy_lengths(found, SimpleNamespace(**{**plain, **changes}), 100, config)
    return found


def states(found: Preflight) -> list[str]:
    return [result.state for result in found.results]


def test_yarn_extends_the_context():
    config = Qwen2Config(max_position_embeddings=32768, rope_parameters=YARN)
    assert context_length(config) == 131072
    assert states(lengths(config, 40_000)) == ["ok"]
    assert states(lengths(config, 40_000, use_vllm=True)) == ["ok"]
    assert states(lengths(config, 131_000, use_vllm=True)) == ["FAULT"]


def test_a_context_that_is_scaled_already_is_not_scaled_twice():
    scaled = Qwen2Config(max_position_embeddings=131072, rope_parameters={**YARN, ORIGINAL: 32768})
    assert context_length(scaled) == 131072
    llama = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, ORIGINAL: 8192}
    llama |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert context_length(LlamaConfig(max_position_embeddings=131072, rope_parameters=llama)) == (
        131072
    )


def test_layers_of_several_kinds_and_old_spellings_are_read():
    linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    plain = {"rope_type": "default", "rope_theta": 1e4}
    kinds = {"full_attention": linear, "sliding_attention": plain}
    config = Gemma3TextConfig(max_position_embeddings=1000, rope_parameters=kinds)
    assert context_length(config) == 8000
    assert has_rope(config)
    own = SimpleNamespace(max_position_embeddings=1000, rope_theta=1e4, rope_scaling=None)
    assert has_rope(own)
    assert context_length(own) == 1000
    assert context_length(SimpleNamespace()) is None


def test_without_vllm_rope_has_no_limit_and_learned_positions_have():
    longer = lengths(LlamaConfig(max_position_embeddings=2048), 4096)
    assert states(longer) == ["note"]
    assert longer.results[0].said == "100 + 4096 tokens are more than the 2048 it is made for"
    assert states(lengths(LlamaConfig(max_position_embeddings=2048), 4096, use_vllm=True)) == [
        "FAULT"
    ]
    assert lengths(GPT2Config(n_positions=1024), 925).faults == [
        "max_completion_length: 925 tokens after a prompt of 100 need 1025, the model has 1024"
    ]
    assert states(lengths(GPT2Config(n_positions=1024), 924)) == ["ok"]


def test_vllm_s_own_limit_stays_a_refusal():
    config = LlamaConfig(max_position_embeddings=4096)
    found = lengths(config, 1000, use_vllm=True, vllm_max_model_length=1024)
    assert states(found) == ["ok", "FAULT", "ok"]
    assert "vllm_max_model_length has 1024" in found.faults[0]
    assert states(lengths(config, 1000, vllm_max_model_length=1024)) == ["ok"]


def test_vllm_takes_no_more_than_the_model_unless_it_is_told_to(monkeypatch):
    config, plan = LlamaConfig(max_position_embeddings=4096), {"vllm_max_model_length": 4097}
    found = lengths(config, 1000, use_vllm=True, **plan)
    assert states(found) == ["ok", "ok", "FAULT"]
    assert found.faults[0].startswith("vllm_max_model_length: 4097 tokens: vLLM refuses more than")
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert states(lengths(config, 1000, use_vllm=True, **plan)) == ["ok", "ok", "ok"]


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A maker of the disk's check: 10 steps, a checkpoint each 5, and `free` bytes."""

    def check(free: int, own_optimizer: bool = False, **changes: Any) -> Preflight:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(run_folders.shutil, "disk_usage", lambda path: usage(0, 0, free))
        args = {
            **{"output_dir": str(tmp_path), "rollouts_dir": None, "save_only_model": False},
            **{"optim": "adamw_torch_fused", "save_strategy": "steps", "save_steps": 5},
            **{"max_steps": 10, "save_total_limit": None, "num_train_epochs": 3},
        }
        found = Preflight()
        plan = SimpleNamespace(**{**args, **changes})
        check_output(found, plan, WEIGHTS, has_own_optimizer=own_optimizer)
        return found

    return check


def fill(folder: Path, name: str, size: int) -> None:
    (folder / name).mkdir()
    (folder / name / "model.safetensors").write_bytes(b"x" * size)


def test_the_disk_holds_the_checkpoints_and_the_model(output):
    """Two checkpoints of 300 bytes, and 100 of the model."""
    assert not output(700).faults
    assert len(output(699).faults) == 1


def test_checkpoints_that_are_there_take_no_more_room(output, tmp_path):
    """With a limit of two, a third is there while it is written: 3 x 300 - 600 + 100 are new."""
    fill(tmp_path, "checkpoint-5", 300)
    fill(tmp_path, "checkpoint-10", 300)
    fill(tmp_path, "other", 500)
    resumed = {"save_total_limit": 2, "max_steps": 100}
    assert not output(400, **resumed).faults
    assert len(output(399, **resumed).faults) == 1
    fill(tmp_path, "checkpoint-15", 5000)  # as much as all checkpoints of the run, or more
    assert not output(100, **resumed).faults
    assert len(output(99, **resumed).faults) == 1


def test_moments_that_are_not_saved_are_not_counted(output):
    """Two checkpoints of 100 bytes, and 100 of the model."""
    found = output(300, save_only_model=True)
    assert not found.faults
    assert states(found) == ["ok", "ok"]
    assert len(output(299, save_only_model=True).faults) == 1


@pytest.mark.parametrize("changes", [{"optim": "adamw_bnb_8bit"}, {"own_optimizer": True}])
def test_the_state_of_another_optimizer_is_a_note(output, changes):
    found = output(300, **changes)
    assert not found.faults
    assert [result.state for result in found.results if result.what == "disk space"] == [
        "note",
        "ok",
    ]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "steps"}, 20),
        ({"save_strategy": "best"}, 2),  # where the metric gets better, which is not known
        ({"save_strategy": "epoch"}, 2),
        ({"save_strategy": "epoch", "max_steps": -1}, 3),
        ({"save_strategy": "steps", "save_total_limit": 1}, 2),
    ],
)
def test_checkpoints_are_counted_by_the_config(changes, count):
    plain = {"max_steps": 100, "save_steps": 5, "save_total_limit": None, "num_train_epochs": 2.5}
    assert checkpoints_of(SimpleNamespace(**{**plain, **changes})) == count
