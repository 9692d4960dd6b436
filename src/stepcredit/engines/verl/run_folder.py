"""What a run under verl is made of, and whose checkpoint it would resume from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepcredit.engines.build import unread_streams
from stepcredit.engines.run_record import (
    Record,
    check_same_credit,
    describe,
    new_run,
    read_run,
    spelled,
    write_run,
)
from stepcredit.engines.verl.batch_credit import with_engine
from stepcredit.engines.verl.config_checks import uses_engine
from stepcredit.engines.verl.config_keys import CONFIG_KEY, ENGINE_STREAM, VerlSettings
from stepcredit.errors import EngineError

RESUME_MODE = "trainer.resume_mode"


def record_of(config: Any, settings: VerlSettings) -> Record:
    """What credit is made of, from verl's whole config and the settings in it."""
    estimator, sources = settings.estimator, dict[str, Any](settings.signals)
    path = (config["reward"].get("custom_reward_function") or {}).get("path")
    outcome = spelled(settings.outcome_reward) or path or "verl's compute_score"
    format_reward = spelled(settings.format_reward)
    if uses_engine(config):
        estimator = with_engine(estimator)
        name = config["algorithm"]["adv_estimator"]
        sources[ENGINE_STREAM] = f"verl's own advantage by {name}, of {_named(outcome)}"
    return describe(
        estimator,
        sources,
        outcome=_named(outcome),
        format_reward=_named(format_reward) if format_reward else path,
        gate=settings.format_gate,
        splitter=settings.splitter,
        right_above=settings.right_above,
        complete=path is None,
    )


def _named(reward: Any) -> str:
    return reward["name"] if isinstance(reward, dict) else str(reward)


def unread_keys(settings: VerlSettings) -> Iterator[str]:
    """What is computed for a method that does not read it, one line per key."""
    reads, name = settings.estimator.reads, settings.estimator.name
    if settings.signals:
        yield from unread_streams(
            settings.estimator, settings.signals, f"{CONFIG_KEY}.process_signal"
        )
    if settings.format_reward is not None and not (reads.format or reads.gate):
        yield f"{CONFIG_KEY}.format_reward: {name} reads no format reward: it trains nothing"


def resumed_checkpoint(trainer: Any) -> str | None:
    """The checkpoint that verl would resume from; None for a run from the beginning.

    Args:
        trainer: verl's `trainer`, a part of its config.
    """
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    if trainer["resume_mode"] == "resume_path":
        return str(trainer["resume_from_path"])
    if trainer["resume_mode"] != "auto":
        return None
    found = find_latest_ckpt_path(str(Path(trainer["default_local_dir"]).absolute()))
    return None if found is None else str(found)


def begin_run(trainer: Any, record: Record) -> str:
    """Name a new run, or take the name of the one that is resumed; keep it in the run's folder.

    Args:
        trainer: verl's `trainer`, a part of its config.
        record: what credit is made of.

    Returns:
        The run's name.

    Raises:
        EngineError: the checkpoint is of another run than the folder's last, or was trained with
            other credit.
    """
    folder, checkpoint = trainer["default_local_dir"], resumed_checkpoint(trainer)
    run = new_run()
    if checkpoint is not None:
        name, before = read_run(checkpoint)
        last, _ = read_run(folder)
        if trainer["resume_mode"] == "auto" and name and last and name != last:
            reason = f"{checkpoint} is of an earlier run than the last one in {folder}: set"
            reason += " trainer.resume_mode=disable, or another trainer.default_local_dir"
            raise EngineError(reason, field=RESUME_MODE)
        check_same_credit(before, record, RESUME_MODE, checkpoint)
        run = name or run
    write_run(folder, run, record)
    return run
