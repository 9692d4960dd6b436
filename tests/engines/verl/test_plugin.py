"""verl finds the plugin by its entry point, in a process of its own, and pays nothing for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

from stepcredit.engines.verl import plugin
from stepcredit.engines.verl.trainer import StepCreditPPOTrainer, register_trainers
from stepcredit.errors import EngineError


def printed(*lines: str) -> list[str]:
    """What a fresh Python prints last, a line each."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return ran.stdout.splitlines()


def test_importing_verl_registers_all_three_when_each_is_loaded():
    found = printed(
        "import sys, verl",
        "print([name for name in sys.modules if name.startswith('stepcredit.')])",
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn",
        "print(get_adv_estimator_fn('stepcredit-grpo').keywords)",
        "from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls",
        "print(get_reward_manager_cls('stepcredit').__module__)",
        "from verl.trainer.ppo.v1 import get_trainer_cls",
        "print(get_trainer_cls('stepcredit').__name__)",
    )
    assert found == [
        "['stepcredit._deprecations', 'stepcredit._moved', 'stepcredit.engines', "
        "'stepcredit.engines.verl', "
        "'stepcredit.engines.verl.plugin']",
        "{'method': 'grpo'}",
        "stepcredit.engines.verl.reward_manager",
        "StepCreditPPOTrainer",
    ]


def test_importing_ours_first_registers_the_same_class():
    found = printed(
        "import sys",
        "sys.stderr = sys.stdout  # where a part that fails is told of",
        "from stepcredit.engines.verl.trainer import StepCreditPPOTrainer",
        "from verl.trainer.ppo.v1 import get_trainer_cls",
        "print(get_trainer_cls('stepcredit') is StepCreditPPOTrainer)",
    )
    assert [line for line in found if "stepcredit" in line] == []
    assert found[-1] == "True"


def test_methods_of_a_module_that_verl_imports_are_estimators_and_keys_too(tmp_path, monkeypatch):
    (tmp_path / "methods_of_ones_own.py").write_text(
        "from dataclasses import dataclass\n"
        "import stepcredit as sc\n"
        "@sc.register('mine')\n"
        "@dataclass(frozen=True)\n"
        "class Mine(sc.RLOO):\n"
        "    pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "methods_of_ones_own")
    found = printed(
        "import verl",
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn",
        "print(get_adv_estimator_fn('stepcredit-mine').keywords)",
        "from stepcredit.engines.verl.config_keys import VerlSettings",
        "given = {'algorithm': {'stepcredit': {'method': 'mine'}}}",
        "print(VerlSettings.of(given).estimator.name)",
    )
    assert found == ["{'method': 'mine'}", "mine"]


def test_verls_own_modules_keep_their_loader_and_source():
    import inspect

    import verl.trainer.ppo.core_algos as algorithms

    assert type(algorithms.__loader__).__name__ == "SourceFileLoader"
    assert "def register_adv_est" in inspect.getsource(algorithms)


def test_a_part_that_fails_is_told_of_and_stops_nothing(monkeypatch, caplog):
    parts = {"verl.trainer.ppo.v1": ("stepcredit.engines.no_such_module", None)}
    monkeypatch.setattr(plugin, "PARTS", parts)
    plugin.register_part("verl.trainer.ppo.v1")
    assert caplog.messages == [
        "stepcredit can't be used in verl: stepcredit.engines.no_such_module: "
        "ModuleNotFoundError: No module named 'stepcredit.engines.no_such_module'"
    ]


def test_anothers_trainer_of_the_name_is_refused(monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainerSync, trainer_base

    register_trainers()
    assert trainer_base.TRAINER_REGISTRY["stepcredit"] is StepCreditPPOTrainer
    monkeypatch.setitem(trainer_base.TRAINER_REGISTRY, "stepcredit", PPOTrainerSync)
    with pytest.raises(EngineError) as caught:
        register_trainers()
    name = "verl.trainer.ppo.v1.trainer_sync.PPOTrainerSync"
    assert str(caught.value) == f"trainer.v1.trainer_mode: 'stepcredit' is already {name}"
