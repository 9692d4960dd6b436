"""ADCA-GRPO: step scores centred over responses of equal weight, plus the outcome at the end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.fusion import standardize_scalar
from stepcredit.credit.stages.groups import TOLERANCE, Group, Values
from stepcredit.credit.stages.pooling import no_scores
from stepcredit.credit.stages.process_streams import (
    DenseStream,
    check_one_process,
    dense_stream,
    find_process_stream,
)
from stepcredit.credit.stages.returns import return_to_go
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import MethodError
from stepcredit.settings.fields import number


@register("adca")
@dataclass(frozen=True)
class ADCA(Estimator):
    """Step rewards centred with one weight per response; the outcome is added at the last step.

        A_j = sum over j' >= j of alpha (s - m) / sqrt(v + 1e-8), + z(r_out) at the last step
        m = mean_i mean_j s_ij,  v = mean_i mean_j (s_ij - m)^2,  z the population z-score

    Args:
        alpha: weight of the step rewards.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        Unknown outcomes add no term; a group without a process stream gets only the outcome's
        term.

    Raises:
        MethodError: no group has a process stream, or there are several, none named "process".

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps([[0], [0]], [[1.0], [0.0]])
        >>> r = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.ADCA(alpha=1.0)(r).packed().tolist()]
        [2.0, -2.0]

    Source: ADCA-GRPO (AgentEvolver); alpha is 0.1 in its configuration, 1 in its code.
    """

    alpha: float = number(0.1, "weight of the step rewards")

    equation = "A_j = sum_{j' >= j} alpha (s - m)/sqrt(v + 1e-8) + z(r_out) at the last step"

    @property
    def reads(self) -> Reads:
        """One process stream, and the outcome where it is known."""
        return Reads(process="one")

    def check_streams(self, signals: Collection[str]) -> None:
        """The batch must have the one process stream."""
        check_one_process(signals)
        if not signals:
            raise MethodError("adca needs a process stream")

    def credit(self, rollouts: Rollouts) -> Credit:
        """Centre, scale, add the outcome, suffix sum."""
        group, stream = Group.of(rollouts), find_process_stream(rollouts)
        table = no_scores(rollouts) if stream is None else dense_stream(stream, rollouts)
        reward = self.alpha * _balanced_norm(table, group)
        outcome = standardize_scalar(rollouts.outcomes, group, "masked_norm", ddof=0, eps=1e-8)
        total = reward + outcome * table.slots.end_slots()
        stages = {"reward": reward, "N(outcome)": outcome}
        scale = group.largest(reward) + group.largest(outcome)
        return Credit(table.slots, return_to_go(total), lambda: stages, scale=scale)


def _balanced_norm(table: DenseStream, group: Group) -> Values:
    """(s - m) / sqrt(v + 1e-8), where every response of a group has the same weight."""
    each = table.mask.sum(1, keepdim=True, dtype=torch.float64)
    weight = table.mask / each.clamp(min=1)
    rows = group.sum((each > 0).to(torch.float64)).clamp(min=1)
    mean = group.sum(table.values * weight) / rows
    deviation = (table.values - group.to_rows(mean)) * table.mask
    variance = group.sum(deviation.square() * weight) / rows
    constant = group.largest(deviation) <= TOLERANCE * group.largest(table.values)
    scale = torch.where(constant, 0.0, (variance + 1e-8).rsqrt())
    return deviation * group.to_rows(scale)
