"""Outcome-only methods as verl's own advantage estimators, for its other trainers.

`algorithm.adv_estimator=stepcredit-rloo` and the like: verl gives such an estimator the rewards and
the prompts' uids alone, so no method of steps, teachers or formats can be one. Those run in the
trainer `stepcredit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

import stepcredit as sc
from stepcredit.engines.verl.config_keys import PLACE, VerlSettings
from stepcredit.errors import EngineError

OUTCOME_METHODS = ("grpo", "dr-grpo", "rloo", "gdpo")
PREFIX = "stepcredit-"
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
    """Advantages of a method that reads the outcome alone, as verl asks an estimator for them.

    Args:
        token_level_rewards: the outcome is a row's total, whichever token carries it.
        response_mask: nonzero where a token is trained.
        index: the prompt of each row.
        config: verl's `algorithm`; the method's fields stand under `stepcredit.fields`.
        method: its name.

    Returns:
        advantages and returns, the same (verl reads the returns of a critic alone): 0 off the mask.
        A row without a trained token is no member of its group.

    Raises:
        EngineError: a key under `algorithm.stepcredit` refused.

    Example:
        >>> rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2)
        >>> outcome_advantages(rewards, mask, ["q", "q"], method="rloo")[0].tolist()
        [[1.0, 1.0], [-1.0, -1.0]]
    """
    given = (config or {}).get("stepcredit") or {}
    if given.get("method", method) != method:
        reason = f"is {given['method']!r}, but algorithm.adv_estimator is {PREFIX}{method}"
        raise EngineError(reason, field=f"{PLACE}.method")
    settings = VerlSettings.of({"algorithm": {"stepcredit": {**given, "method": method}}})
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


ESTIMATORS = {PREFIX + name: partial(outcome_advantages, method=name) for name in OUTCOME_METHODS}
"""The estimators by verl's names."""


def register_estimators() -> None:
    """Make them known to verl: `algorithm.adv_estimator` may name them."""
    from verl.trainer.ppo.core_algos import register_adv_est

    for name, estimator in ESTIMATORS.items():
        register_adv_est(name)(estimator)
