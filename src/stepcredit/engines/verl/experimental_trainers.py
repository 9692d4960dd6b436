"""verl's experimental asynchronous trainers refuse keys of credit that they do not read.

`verl.experimental.one_step_off_policy` and `fully_async_policy` have trainers of their own, which
no trainer mode names. They compute advantages of rewards alone. Without this check, keys under
`algorithm.stepcredit` would be ignored there without a word.
"""

from __future__ import annotations

from typing import Any

from stepcredit.engines.verl.other_trainers import check_other_trainer, guard

INSTEAD = "use trainer.v1.trainer_mode=stepcredit_separate_async of verl.trainer.main_ppo"


def check_experimental(config: Any, trainer: str) -> None:
    """Refuse keys of credit that a trainer without a hook for credit would ignore.

    Args:
        config: verl's.
        trainer: the trainer's name, for errors.

    Raises:
        EngineError: the keys would have no effect; it names what to use.

    Example:
        >>> check_experimental({"algorithm": {"adv_estimator": "grpo"}}, "OneStepOffRayTrainer")
        >>> given = {"adv_estimator": "grpo", "stepcredit": {"method": "pass"}}
        >>> check_experimental({"algorithm": given}, "OneStepOffRayTrainer")
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        stepcredit.errors.EngineError: algorithm.stepcredit: OneStepOffRayTrainer does not read ...
    """
    check_other_trainer(config, trainer, INSTEAD)


def guard_experimental_trainers() -> None:
    """Let these trainers check the keys before they start workers."""
    from verl.experimental.separation.ray_trainer import SeparateRayPPOTrainer

    guard(
        SeparateRayPPOTrainer,
        "_init_worker_groups",
        lambda trainer: check_experimental(trainer.config, type(trainer).__name__),
    )
