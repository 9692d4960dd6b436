"""An outcome's advantage times a weight per token, such as its surprise or entropy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch

from stepcredit.credit.estimator import Estimator
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
from stepcredit.credit.stages.fusion import SCALARS
from stepcredit.credit.stages.groups import Values
from stepcredit.credit.stages.process_streams import (
    dense_stream,
    lacks_logprobs,
    process_signals,
)
from stepcredit.credit.stages.token_weights import mean_one
from stepcredit.data.forest import reduce_rows
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, every_token
from stepcredit.errors import MethodError, RolloutError
from stepcredit.settings.fields import declare

SURPRISE = "surprise"
"""The weight that the policy's own log-probs give."""


def _parse_by(value: object) -> str | None:
    named = isinstance(value, str) and value not in ("", *SCALARS)
    return None if named else f"{SURPRISE!r}, or the name of a process stream"


@register("reweight")
@dataclass(frozen=True)
class Reweight(Composition):
    """An outcome's advantage times a weight per token, whose mean over a response is 1.

        A_t = a w_t / mean of w
        surprise  w_t = -log p_student(t)
        a stream  w_t = its score, at least 0

    a is the advantage that `outcome` gives every token; the sum of A over a response's tokens is
    that of a.

    Args:
        outcome: the method of a, one of outcomes alone: a name, {name: fields} or a method.
        by: "surprise", or the name of a process stream, such as the policy's entropy per token.
            Each token of a step has the step's score.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        A response whose weights are all 0, or absent, has a on every token.

    Raises:
        RolloutError: a rollout lacks `student_logprobs`, or a score of the stream is below 0.
        MethodError: no group has the stream; an unknown method, or one that reads more than
            outcomes.

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts([0, 0], outcome=[1.0, 0.0],
        ...                        logprobs={"student": [[-0.5, -1.5], [-0.25]]})
        >>> sc.Reweight(outcome="rloo")(rollouts).packed()
        tensor([ 0.5000,  1.5000, -1.0000])

    Source: weights by entropy or surprise of the sampled token, with their mean set to 1.
    """

    outcome: Part = part("outcome", "grpo", "what is weighted", of_outcomes_alone)
    by: str = declare(SURPRISE, _parse_by, "surprise, or the stream that holds the weights")

    equation = "A_t = a w_t / mean of w over the response"
    part_fields = ("outcome",)

    @property
    def reads(self) -> Reads:
        """As the method of outcomes, and the student's log-probs or the stream."""
        if self.by == SURPRISE:
            return replace(super().reads, logprobs=("student",))
        return replace(super().reads, process="weighted", weights={self.by: 1.0})

    def with_weights(self, weights: Mapping[str, float]) -> Estimator:
        """The same method, for {the stream: 1}; any other weights are refused."""
        if self.by != SURPRISE and dict(weights) == {self.by: 1.0}:
            return self
        raise MethodError("it weighs no streams", field="weights")

    def check(self, rollouts: Rollouts) -> None:
        """Every rollout must have the student's log-probs; no score of the stream is below 0."""
        super().check(rollouts)
        if self.by == SURPRISE:
            self.refuse_missing(lacks_logprobs(rollouts, "student"), "student_logprobs")
            return
        stream = process_signals(rollouts).get(self.by)
        if stream is not None and bool((stream.values < 0).any()):
            lowest = reduce_rows(stream.values, stream.counts, "min")
            row = int((lowest < 0).nonzero()[0])
            reason = f"a weight is at least 0, got {float(lowest[row]):g}"
            raise RolloutError(reason, row=row, field=self.by)

    def check_streams(self, signals: Collection[str]) -> None:
        """Some group must have the stream."""
        if self.by != SURPRISE and self.by not in signals:
            raise MethodError(f"no group has the stream {self.by!r}", field="by")

    def credit(self, rollouts: Rollouts) -> Credit:
        """The outcome's advantage times the weights of the tokens."""
        credits = self.part_credits(rollouts)
        raw, slots = self._weights(rollouts)
        weights, flat = mean_one(raw, slots), credits["outcome"]
        advantage = slots.read(flat.advantage, flat.slots) * weights
        own = {self.by: raw, "weight": weights}
        return Credit(slots, advantage, lambda: stages_of_parts(credits, slots) | own)

    def _weights(self, rollouts: Rollouts) -> tuple[Values, Slots]:
        """The weights before they are divided by their mean, and where they lie."""
        if self.by == SURPRISE:
            table = dense_stream(rollouts.logprobs["student"], rollouts)
            return (-table.values).clamp_(min=0), table.slots
        stream = process_signals(rollouts).get(self.by)
        if stream is None:
            slots = every_token(rollouts.lengths)
            return torch.zeros_like(slots.mask, dtype=torch.float64), slots
        table = dense_stream(stream, rollouts)
        return table.values, table.slots
