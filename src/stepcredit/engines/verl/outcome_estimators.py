"""Outcome-only methods as advantage estimators of verl, for its other trainers.

They are named like `algorithm.adv_estimator=stepcredit-rloo`. verl passes only rewards and the
prompts' uids to an estimator, so methods that read steps or log-probs can't be used this way: they
need the trainer `stepcredit`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

import stepcredit as sc
from stepcredit.credit.method_registry import METHODS
from stepcredit.credit.reads import Reads
from stepcredit.engines.build import fields_of
from stepcredit.engines.verl.config_keys import CONFIG_KEY, DEFAULTS, VerlSettings
from stepcredit.errors import EngineError

logger = logging.getLogger(__name__)

PREFIX = "stepcredit-"
OUTCOME_KEYS = ("outcome_reward", "outcome_reward_fields")
"""Keys that the reward manager `stepcredit` reads under any trainer, where the config names it."""
READ_KEYS = ("import", "method", "fields", *OUTCOME_KEYS)
"""Keys that are read where verl passes rewards alone to an estimator."""
INSTEAD = "use a trainer of stepcredit (trainer.v1.trainer_mode) with algorithm.adv_estimator=grpo"
Both = tuple[Float[Tensor, "rollout token"], Float[Tensor, "rollout token"]]


def outcome_advantages(
    token_level_rewards: Float[Tensor, "rollout token"],
    response_mask: Shaped[Tensor, "rollout token"],
    index: Sequence[Any],
    config: Mapping[str, Any] | None = None,
    *,
    method: str,
    **_: Any,
) -> Both:
    """Advantages of an outcome-only method, in the signature of verl's estimators.

    Args:
        token_level_rewards: the outcome of a response is the sum of its row.
        response_mask: nonzero where a token is trained.
        index: the prompt of each row.
        config: verl's `algorithm`; the method's fields are under `stepcredit.fields`.
        method: the method's name.

    Returns:
        advantages and returns: both are the advantages (verl uses returns only to train a critic),
        and 0 off the mask. A row without a trained token does not count as a member of its group.

    Raises:
        EngineError: a bad key under `algorithm.stepcredit`, or one that is not read here.

    Example:
        >>> rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2)
        >>> outcome_advantages(rewards, mask, ["q", "q"], method="rloo")[0].tolist()
        [[1.0, 1.0], [-1.0, -1.0]]
    """
    settings = outcome_settings((config or {}).get("stepcredit") or {}, method)
    trained = response_mask.bool()
    members = trained.any(1).nonzero()[:, 0]
    advantages = torch.zeros_like(token_level_rewards)
    if len(members):
        rollouts = sc.Rollouts(
            group=[str(index[row]) for row in members.tolist()],
            lengths=trained[members].sum(1),
            outcome=token_level_rewards[members].double().sum(1),
        )
        padded = settings.estimator(rollouts).padded(trained[members])
        advantages[members] = padded.to(advantages.dtype)
    return advantages, advantages


def outcome_settings(given: Mapping[str, Any], method: str, instead: str = INSTEAD) -> VerlSettings:
    """The settings of a method that verl uses as an estimator.

    Args:
        given: the keys under `algorithm.stepcredit`.
        method: the method's name.
        instead: what to use for a key that has no effect here, for errors.

    Raises:
        EngineError: a bad key, another method, a key that has no effect here, or fields under which
            the method reads more than outcomes; it names the key.

    Example:
        >>> outcome_settings({"fields": {"clip": 1.0}}, "rloo").estimator.clip
        1.0
        >>> outcome_settings({"process_signal": "equations"}, "rloo")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        stepcredit.errors.EngineError: algorithm.stepcredit.process_signal: stepcredit-rloo gets ...
    """
    own = fields_of(given, CONFIG_KEY)
    if own.get("method", method) != method:
        reason = f"is {own['method']!r}, but algorithm.adv_estimator is {PREFIX}{method}"
        raise EngineError(reason, field=f"{CONFIG_KEY}.method")
    for key, value in own.items():
        if key in DEFAULTS and key not in READ_KEYS and value and value != DEFAULTS[key]:
            reason = f"{PREFIX}{method} gets rewards alone, so that this key has no effect"
            raise EngineError(f"{reason}: {instead}", field=f"{CONFIG_KEY}.{key}")
    settings = VerlSettings.of({"algorithm": {"stepcredit": {**own, "method": method}}})
    if not _reads_outcomes_alone(settings.estimator.reads):
        reason = f"{PREFIX}{method} gets rewards alone, but with these it reads steps or log-probs"
        raise EngineError(f"{reason}: {instead}", field=f"{CONFIG_KEY}.fields")
    return settings


def _reads_outcomes_alone(reads: Reads) -> bool:
    """Whether verl gives an estimator all that a method reads."""
    return reads.process is None and not reads.logprobs and reads.outcome is not None


def outcome_methods() -> list[str]:
    """The methods that verl can use as estimators: they read no process stream and no log-probs.

    A method that cannot be built without settings is not among them.
    """
    names = []
    for name in METHODS.names():
        try:
            reads = sc.estimator(name).reads
        except Exception as error:  # a method of an installed package may fail in its own way
            logger.info("%r is no estimator of verl: %s", name, error)
            continue
        if _reads_outcomes_alone(reads):
            names.append(name)
    return names


def register_estimators() -> None:
    """Register the outcome-only methods with verl, for `algorithm.adv_estimator`."""
    from verl.trainer.ppo.core_algos import register_adv_est

    for name in outcome_methods():
        register_adv_est(PREFIX + name)(partial(outcome_advantages, method=name))
