"""slime: one advantage per token of each sample, computed by stepcredit.

    --custom-reward-post-process-path slime_advantages.credit
    --custom-advantage-function-path slime_advantages.set_advantages

slime calls the second function on every data-parallel rank with that rank's share of the batch, in
which groups are not whole. So the advantages are computed by the first, which gets all samples
before slime splits them, and travel to the ranks in the place of the rewards. Without the first,
the second refuses to run.

The step scores are `step_ends` and `step_scores` of a sample's `metadata`; ends count all tokens of
the response. The outcome is slime's reward, `group_index` the group. Samples with one `rollout_id`
are the parts of one trajectory. The method is `stepcredit` of `--custom-config-path`, such as
`stepcredit: {method: pass, fields: {k: 0.7}}`. Written for slime 0.3.1 (commit 624b824a).
"""

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

import stepcredit as sc
from stepcredit.errors import EngineError


def credit(args: Namespace, samples: list[Any]) -> tuple[list[float], list[Tensor]]:
    """The rewards of all samples, and the advantages of each sample's response tokens."""
    if args.context_parallel_size > 1:
        reason = "advantages are not cut for context parallelism: set it to 1"
        raise EngineError(reason, field="context_parallel_size")
    for name in ("normalize_advantages", "use_opd"):
        if getattr(args, name, False):
            raise EngineError("would change the method's advantages: leave it off", field=name)
    rewards = [sample.get_reward_value(args) for sample in samples]
    masks = [mask_of(sample) for sample in samples]
    advantages = [torch.zeros(len(mask)) for mask in masks]
    rows = [row for row, mask in enumerate(masks) if any(mask)]
    if rows:
        trained = [samples[row] for row in rows]
        rollouts = sc.Rollouts(
            group=[sample.group_index for sample in trained],
            mask=[masks[row] for row in rows],
            process=steps_of(trained),
            outcome=[rewards[row] for row in rows],
            trajectory=[sample.rollout_id for sample in trained],
        )
        settings = getattr(args, "stepcredit", None) or {}
        method = sc.estimator(settings.get("method", "pass"), **settings.get("fields", {}))
        for row, values in zip(rows, method(rollouts).ragged(), strict=True):
            advantages[row][torch.tensor(masks[row]).bool()] = values.float()
    return rewards, advantages


def mask_of(sample: Any) -> list[int]:
    """Which tokens of a response slime trains."""
    if sample.remove_sample:
        return [0] * sample.response_length
    return [1] * sample.response_length if sample.loss_mask is None else sample.loss_mask


def steps_of(samples: list[Any]) -> sc.Steps | None:
    """The step scores in the samples' metadata; None where no sample has any."""
    if not any("step_scores" in sample.metadata for sample in samples):
        return None
    ends = [sample.metadata.get("step_ends", []) for sample in samples]
    return sc.Steps(ends, [sample.metadata.get("step_scores", []) for sample in samples])


def set_advantages(args: Namespace, rollout_data: dict[str, Any]) -> None:
    """Put a rank's advantages where slime's loss reads them."""
    found = rollout_data["rewards"]
    if not all(isinstance(each, Tensor) and each.dim() == 1 for each in found):
        reason = "a rank's groups are not whole: expected slime_advantages.credit, which has all"
        raise EngineError(reason, field="custom_reward_post_process_path")
    likes = rollout_data.get("log_probs") or rollout_data["rollout_log_probs"]
    for row, (values, like) in enumerate(zip(found, likes, strict=True)):
        if values.shape != like.shape:
            reason = f"{len(values)} advantages, but {len(like)} log-probs"
            raise EngineError(reason, row=row, field="rewards")
    rollout_data["advantages"] = [v.to(like) for v, like in zip(found, likes, strict=True)]
    rollout_data["returns"] = list(rollout_data["advantages"])
