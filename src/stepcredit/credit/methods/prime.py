"""PRIME: implicit process rewards, the log-ratio of two language models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from sys import float_info

import torch

from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.distillation import LogprobEstimator
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.batch_norm import WHITENING, BatchNorm
from stepcredit.credit.stages.fusion import standardize_scalar
from stepcredit.credit.stages.groups import Group
from stepcredit.credit.stages.returns import return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import every_token
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, flag, number


@register("prime")
@dataclass(frozen=True)
class PRIME(LogprobEstimator):
    """Implicit process rewards of a language model trained on outcomes.

        r_t = beta (log p_prm - log p_ref), less the mean of the others' mean_t r
        A_t = sum over t' >= t of [w r_t' + (r_out - mean of others) at the last token], whitened

        norm="batch": beta = 1 / the batch's largest |sum over t' >= t of (log p_prm - log p_ref)|

    Args:
        beta: scale of the log-ratio; not read with norm="batch".
        process_weight: w, beside an outcome of weight 1.
        norm: "none", or "batch": the largest |return| of the log-ratios in the batch, taken before
            the baseline, becomes 1. `explain` shows the resulting beta.
        whiten_batch: (A - mean) / sqrt(variance + 1e-8) over the batch's trained tokens.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        A lone response's process part is 0; unknown outcomes add no term.

    Raises:
        RolloutError: a rollout lacks `prm_logprobs` or `ref_logprobs`.
        MethodError: with norm="batch", a part of a batch without a call of `for_batch` before.

    Example:
        >>> import stepcredit as sc
        >>> probs = {"prm": [[-1.0], [-2.0]], "ref": [[-2.0], [-2.0]]}
        >>> r = sc.Rollouts([0, 0], logprobs=probs, outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.PRIME()(r).packed().tolist()]
        [0.707, -0.707]

    Source: PRIME (2502.01456). Differs: the authors' code computes r_t n / (n - 1) minus the
        sum of all n means over n - 1; this is the paper's r_t minus the mean of the others' means.
    """

    beta: float = number(0.05, "scale of the log-ratio")
    process_weight: float = number(1.0, "weight of the implicit rewards")
    whiten_batch: bool = flag(True, "whiten over the batch's trained tokens")
    norm: str = choice(
        "none", ("none", "batch"), "batch: the batch's largest |return| of the log-ratios is 1"
    )

    models = ("prm", "ref")
    paper = "2502.01456"
    equation = "A_t = whiten(sum_{t' >= t} w (r_t' - mean of others) + outcome part)"

    @property
    def reads(self) -> Reads:
        """Log-probs of both models, and the outcome where it is known."""
        return replace(super().reads, outcome="optional")

    @property
    def batch_step(self) -> BatchNorm | None:
        """Whitening over tokens, unless switched off."""
        return WHITENING if self.whiten_batch else None

    @property
    def batch_scale(self) -> Callable[[Rollouts], float] | None:
        """The largest |return| of the log-ratios, with norm="batch"."""
        return self._largest_return if self.norm == "batch" else None

    def at_scale(self, scale: float) -> PRIME:
        """With a beta of 1 / `scale` in place of the norm; log-ratios of 0 keep theirs."""
        beta = min(1 / scale, float_info.max) if scale > 0 else self.beta
        return replace(self, beta=beta, norm="none")

    def _largest_return(self, rollouts: Rollouts) -> float:
        prm, ref = self.tables(rollouts)
        return float(return_to_go(prm - ref).abs().max())

    def credit(self, rollouts: Rollouts) -> Credit:
        """Log-ratio, leave-one-out baseline, suffix sum."""
        if self.norm == "batch":
            raise MethodError("a part of a batch needs `for_batch` of the whole", field="norm")
        group, slots = Group.of(rollouts), every_token(rollouts.lengths)
        prm, ref = self.tables(rollouts)
        reward = self.beta * (prm - ref)
        mean = reward.sum(1) / rollouts.lengths
        rivals = group.others(torch.ones_like(mean))
        baseline = group.others(mean) / rivals.clamp(min=1)
        others = standardize_scalar(rollouts.outcomes, group, "leave_one_out", ddof=1, eps=0.0)
        process = (reward - baseline[:, None]) * (slots.mask & (rivals > 0)[:, None])
        total = self.process_weight * process + others * slots.end_slots()
        scale = abs(self.process_weight) * group.largest(reward) + group.largest(others)
        stages = {"reward": reward, "baseline": baseline[:, None], "N(outcome)": others}
        return Credit(slots, return_to_go(total), lambda: stages, scale=scale)
