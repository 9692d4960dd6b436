"""verl's trainers without token credit refuse keys of credit that they do not read.

They compute advantages of rewards alone. Of the keys under `algorithm.stepcredit` they read those
of the method, with an estimator of stepcredit (`algorithm.adv_estimator=stepcredit-...`), and those
of the outcome, with the reward manager of stepcredit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

from stepcredit.engines.build import fields_of
from stepcredit.engines.verl.config_keys import CONFIG_KEY
from stepcredit.engines.verl.outcome_estimators import (
    OUTCOME_KEYS,
    PREFIX,
    outcome_advantages,
    outcome_settings,
)
from stepcredit.errors import EngineError

_GUARD = "_stepcredit_guard"


def check_other_trainer(config: Any, trainer: str, instead: str) -> None:
    """Refuse keys of credit that a trainer of verl without token credit would ignore.

    With an estimator of the user's own nothing is refused: it may read the keys.

    Args:
        config: verl's.
        trainer: what errors call the trainer.
        instead: what to use, for errors.

    Raises:
        EngineError: one line that begins with the key.

    Example:
        >>> given = {"adv_estimator": "stepcredit-rloo", "stepcredit": {"fields": {"clip": 1.0}}}
        >>> check_other_trainer({"algorithm": given}, "sync", "use stepcredit")
        >>> given["adv_estimator"] = "grpo"
        >>> check_other_trainer({"algorithm": given}, "sync", "use stepcredit")
        Traceback (most recent call last):
        stepcredit.errors.EngineError: algorithm.stepcredit: sync does not read these keys, and \
grpo would train instead: use stepcredit
    """
    algorithm: Mapping[str, Any] = config["algorithm"]
    estimator = str(algorithm.get("adv_estimator"))
    given = fields_of(algorithm.get("stepcredit"), CONFIG_KEY)
    of_manager: tuple[str, ...] = OUTCOME_KEYS
    if is_our_estimator(estimator):
        outcome_settings(given, estimator.removeprefix(PREFIX), instead)
    elif _is_verls_estimator(estimator):
        of_manager = ("import", *OUTCOME_KEYS)
        if any(value for key, value in given.items() if key not in of_manager):
            reason = f"{trainer} does not read these keys, and {estimator} would train instead"
            raise EngineError(f"{reason}: {instead}", field=CONFIG_KEY)
    else:
        return
    for key in of_manager:
        if given.get(key) and not _has_our_manager(config):
            reason = "only the reward manager stepcredit reads this key"
            reason += f", and {trainer} runs another: set reward.reward_manager.name=stepcredit"
            raise EngineError(reason, field=f"{CONFIG_KEY}.{key}")


def is_our_estimator(name: str) -> bool:
    """Whether verl knows an estimator as one of our methods.

    Args:
        name: the value of `algorithm.adv_estimator`.

    Example:
        >>> is_our_estimator("stepcredit-rloo"), is_our_estimator("rloo")
        (True, False)
    """
    found = _registered(name)
    return isinstance(found, partial) and found.func is outcome_advantages


def _is_verls_estimator(name: str) -> bool:
    """Whether an estimator is one of verl's own; one of the user's may read the keys."""
    return str(getattr(_registered(name), "__module__", "")).startswith("verl.")


def _registered(name: str) -> Any:
    """The function that verl knows by a name of an estimator, or None."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    return ADV_ESTIMATOR_REGISTRY.get(name)


def _has_our_manager(config: Any) -> bool:
    from stepcredit.engines.verl.config_checks import is_our_manager  # loads much of verl

    return "reward" in config and is_our_manager(config)


def guard(owner: type, name: str, check: Callable[[Any], None]) -> None:
    """Let a method of verl's run a check first. A second guard of the same method adds nothing.

    Args:
        owner: the class.
        name: the method's.
        check: gets the instance, and raises where there is a fault.

    Example:
        >>> class Trainer:
        ...     def init(self):
        ...         print("init")
        >>> guard(Trainer, "init", lambda trainer: print("check"))
        >>> guard(Trainer, "init", lambda trainer: print("check again"))
        >>> Trainer().init()
        check
        init
    """
    begin = getattr(owner, name)
    if hasattr(begin, _GUARD):
        return

    @wraps(begin)
    def checked(self: Any, *given: Any, **named: Any) -> Any:
        check(self)
        return begin(self, *given, **named)

    setattr(checked, _GUARD, True)
    setattr(owner, name, checked)
