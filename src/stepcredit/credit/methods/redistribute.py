"""An outcome's advantage, redistributed over the steps by a process signal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch

from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.composition import (
    Composition,
    Part,
    of_outcomes_alone,
    part,
    stages_of_parts,
)
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.process_streams import (
    check_one_process,
    dense_stream,
    find_process_stream,
)
from stepcredit.credit.stages.token_weights import softmax_weights
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import MethodError
from stepcredit.settings.fields import flag, number


@register("redistribute")
@dataclass(frozen=True)
class Redistribute(Composition):
    """An outcome's advantage, redistributed over a response's steps; its sum is kept.

        A_j = a w_j,  w_j = exp(s_j / T) / mean over the trained tokens of exp(s / T)

    a is the advantage that `outcome` gives every token. The mean of w over the tokens is 1, so the
    sum of A over them is that of a, whatever the scores are and however many steps there are.

    Args:
        outcome: the method of a, one of outcomes alone: a name, {name: fields} or a method.
        temperature: T, above 0, in the unit of the scores: the larger, the more even.
        by_sign: where a is below 0, the low scores get the large weights, w_j from exp(-s_j / T):
            a wrong response's blame falls on its worst steps. Otherwise on its best ones.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        A response without scores, or with equal ones, has a on every token.

    Raises:
        MethodError: no group has a process stream, or there are several, none named "process"; an
            unknown method, or one that reads more than outcomes.
        RolloutError: what the method of outcomes raises.

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps(ends=[[0, 1], [0]], scores=[[0.0, 0.0], [0.5]])
        >>> rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> sc.Redistribute(outcome="rloo")(rollouts).packed()
        tensor([ 1.,  1., -1.])

    Source: return redistribution (RUDDER, 1806.07857) with the softmax of a process signal.
    """

    outcome: Part = part("outcome", "grpo", "what is redistributed", of_outcomes_alone)
    temperature: float = number(1.0, "T of the softmax, in the scores' unit", above=0)
    by_sign: bool = flag(True, "a negative advantage falls on the low scores")

    equation = "A_j = a exp(s_j / T) / mean over tokens of exp(s / T)"
    part_fields = ("outcome",)

    @property
    def reads(self) -> Reads:
        """As the method of outcomes, and one process stream."""
        return replace(super().reads, process="one")

    def check_streams(self, signals: Collection[str]) -> None:
        """The batch must have the one process stream."""
        check_one_process(signals)
        if not signals:
            raise MethodError("redistribute needs a process stream")

    def credit(self, rollouts: Rollouts) -> Credit:
        """The outcome's advantage times the weights of the steps."""
        credits, stream = self.part_credits(rollouts), find_process_stream(rollouts)
        flat = credits["outcome"]
        if stream is None:
            return replace(flat, stages=lambda: stages_of_parts(credits, flat.slots))
        table = dense_stream(stream, rollouts)
        slots, advantage = table.slots, table.slots.read(flat.advantage, flat.slots)
        sign = torch.ones_like(advantage[:, :1])
        if self.by_sign:
            sign = torch.where(advantage[:, :1] < 0, -sign, sign)
        weights = softmax_weights(table.values, slots, self.temperature, sign)
        own = {"score": table.values, "weight": weights}
        return Credit(slots, advantage * weights, lambda: stages_of_parts(credits, slots) | own)
