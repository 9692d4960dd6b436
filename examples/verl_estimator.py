"""verl: a method with step scores as an advantage estimator, for verl's other trainers.

Put this file on Python's path, set `VERL_USE_EXTERNAL_MODULES=verl_estimator` in the environment of
verl's processes and `algorithm.adv_estimator=stepcredit-steps`; the method is under
`algorithm.stepcredit`. verl 0.9.1 hands an estimator rewards and prompts alone; pull request 7473
of verl adds `non_tensor_batch` to every estimator that accepts it, and this one reads it. What an
agent loop puts into `extra_fields`, or a reward function returns, stands there: `step_ends` and
`step_scores` (ends count all tokens of the response), and `trajectory`. Without the pull request
use verl's trainer `stepcredit`, which reads all of this from verl's queue. Written for verl 0.9.1
and pull request 7473, which was open.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

import stepcredit as sc
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.errors import EngineError


@register_adv_est("stepcredit-steps")
def step_advantages(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: Sequence[Any],
    config: Mapping[str, Any] | None = None,
    non_tensor_batch: Mapping[str, Any] | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, which are equal; 0 off the mask and on rows without trained tokens.

    Args:
        token_level_rewards: (response, token); the outcome of a response is the sum of its row.
        response_mask: (response, token), nonzero where a token is trained.
        index: the prompt of each row.
        config: verl's `algorithm`.
        non_tensor_batch: the columns of the batch that are no tensors.
    """
    if non_tensor_batch is None:
        reason = "this verl hands it no non_tensor_batch: use trainer.v1.trainer_mode=stepcredit"
        raise EngineError(reason, field="algorithm.adv_estimator")
    given = (config or {}).get("stepcredit") or {}
    settings = VerlSettings.of({"algorithm": {"stepcredit": given}})
    trained = response_mask.bool()
    rows = trained.any(1).nonzero()[:, 0].tolist()
    advantages = torch.zeros_like(token_level_rewards)
    if rows:
        column = {name: [values[row] for row in rows] for name, values in non_tensor_batch.items()}
        ends, scores = column.get("step_ends"), column.get("step_scores")
        rollouts = sc.Rollouts(
            group=[str(index[row]) for row in rows],
            mask=trained[rows],
            process=None if scores is None else sc.Steps(lists(ends), lists(scores)),
            outcome=token_level_rewards[rows].double().sum(1),
            trajectory=column.get("trajectory"),
        )
        values = settings.estimator(rollouts).padded(trained[rows])
        advantages[rows] = values.to(advantages.dtype)
    return advantages, advantages


def lists(rows: Sequence[Any]) -> list[list[Any]]:
    """One list per response, which may be an array or None."""
    return [[] if row is None else [*row] for row in rows]
