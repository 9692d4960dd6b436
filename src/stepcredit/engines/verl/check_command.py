"""The command that runs the preflight of a verl config, without starting Ray or a worker."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.utils import create_rl_dataset
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.import_utils import import_external_libs

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.run_record import lines_of
from stepcredit.engines.verl.config_checks import MANAGER, is_default_manager
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.config_preflight import check_run
from stepcredit.engines.verl.group_filter import filter_warnings
from stepcredit.engines.verl.other_trainers import is_our_estimator
from stepcredit.engines.verl.outcome_estimators import PREFIX, outcome_settings
from stepcredit.engines.verl.run_folder import record_of, unread_keys
from stepcredit.engines.verl.trainer import (
    USE_OURS,
    check_golds,
    check_verls_own,
    collected_settings,
    is_verls_own,
)
from stepcredit.errors import first_line

REFUSED = 2
MODULE = "verl.trainer.config"


def check_from_flags(flags: Sequence[str] | None = None) -> int:
    """Check the config that the flags name, as those of `verl.trainer.main_ppo`.

    Args:
        flags: `--config-dir`, `--config-name`, `--check` (may be left out) and overrides; None:
            those of this process.

    Returns:
        0: no fault; 2: each fault is one line on stderr.
    """
    parser = ArgumentParser(prog="python -m stepcredit.engines.verl", description=__doc__)
    parser.add_argument("--config-dir", "--config-path", help="folder of the config")
    parser.add_argument("--config-name", default="ppo_trainer", help="its name")
    parser.add_argument("--check", action="store_true", help="what this command does in any case")
    known, overrides = parser.parse_known_args(flags)
    found = Preflight()
    try:
        config = composed_config(known.config_dir, known.config_name, overrides)
    except (HydraException, OmegaConfBaseException, OSError) as error:
        print(first_line(error), file=sys.stderr)
        return REFUSED
    told = check_whole_config(found, config)
    for line in (*found.lines(), "", *told, ""):
        print(line)
    if found.errors:
        print(f"{len(found.errors)} faults", flush=True)
        print(*map(first_line, found.errors), sep="\n", file=sys.stderr)
        return REFUSED
    print(found.summary)
    return 0


def composed_config(folder: str | None, name: str, overrides: Sequence[str]) -> Any:
    """verl's whole config, as its own command composes it.

    Args:
        folder: of the config; None: verl's own.
        name: of the config.
        overrides: such as `trainer.nnodes=2`.
    """
    if folder is None:
        with initialize_config_module(MODULE, version_base=None):
            config = compose(name, overrides=list(overrides))
    else:
        beside = f"hydra.searchpath=[pkg://{MODULE}]"
        with initialize_config_dir(str(Path(folder).absolute()), version_base=None):
            config = compose(name, overrides=[beside, *overrides])
    OmegaConf.resolve(config)
    return config


def check_whole_config(found: Preflight, config: Any) -> list[str]:
    """Run every check of a config.

    Args:
        found: gets the results.
        config: verl's; its reward manager is set as the trainer sets it.

    Returns:
        What credit is made of, one line per part, and the estimate of memory.
    """
    mode = str(config.trainer.v1.trainer_mode)
    trainer = found.run("trainer", lambda: get_trainer_cls(mode), at="trainer.v1.trainer_mode")
    if trainer is None or not is_verls_own(trainer):
        return _check_credit(found, config)
    faults, estimator = len(found.errors), str(config.algorithm.adv_estimator)
    found.run("keys of credit", lambda: check_verls_own(config, trainer))
    is_refused = len(found.errors) > faults
    if estimator.startswith(PREFIX):  # if verl does not know it, that is a fault
        return [] if is_refused else _check_estimator(found, config, estimator)
    if is_refused:  # the keys are meant for a trainer of ours, so all of their faults are shown
        return _check_credit(found, config)
    said = f"trainer.v1.trainer_mode={mode} computes no credit: {USE_OURS}"
    found.skip("rows, rewards and credit", said)
    return []


def _check_estimator(found: Preflight, config: Any, name: str) -> list[str]:
    """Check a config of verl's own trainer with an estimator of ours."""
    place = "algorithm.adv_estimator"
    libraries = config.actor_rollout_ref.model.get("external_lib")  # may register it
    found.run("external_lib", lambda: import_external_libs(libraries))
    found.run("estimator", lambda: bool(get_adv_estimator_fn(name)), at=place)
    if not is_our_estimator(name):
        return []
    keys = config.algorithm.get("stepcredit") or {}
    sizes = _check_rows(found, config, outcome_settings(keys, name.removeprefix(PREFIX)))
    return [f"advantages: {name}, of rewards alone", "", *sizes]


def _check_credit(found: Preflight, config: Any) -> list[str]:
    """Check a config of a trainer of ours; returns what credit is made of, and the memory."""
    settings = collected_settings(found, config)
    if is_default_manager(config):
        with open_dict(config):
            config.reward.reward_manager.name = MANAGER
    sizes = _check_rows(found, config, settings)
    for line in unread_keys(settings):
        found.note("not read by the method", line)
    for line in filter_warnings(config, settings):
        found.note("groups that verl drops", line)
    return [*lines_of(record_of(config, settings)), "", *sizes]


def _check_rows(found: Preflight, config: Any, settings: VerlSettings) -> list[str]:
    """Try the policy's tokenizer, rows, rewards, signals and folders; lines about the memory."""
    tokenizer = found.run(
        "the policy's tokenizer",
        lambda: omega_conf_to_dataclass(config.actor_rollout_ref.model).tokenizer,
        at="actor_rollout_ref.model.path",
    )
    data = config.data
    dataset = tokenizer and found.run(
        "rows to train on",
        lambda: create_rl_dataset(data.train_files, data, tokenizer, None, is_train=True),
        at="data.train_files",
    )
    if dataset:
        check_golds(found, config, settings, dataset)
    return check_run(found, config, settings, tokenizer, dataset, load_worker_models=True)
