"""RLSD: the outcome gives the direction, a teacher's evidence the size of each token's credit."""

from __future__ import annotations

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
from stepcredit.credit.methods.distillation import LogprobEstimator
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import every_token
from stepcredit.settings.fields import number


@register("rlsd")
@dataclass(frozen=True)
class RLSD(Composition, LogprobEstimator):
    """An outcome's advantage times a bounded ratio of the teacher's to the student's probability.

        A_t = a (1 - share + share clip(w_t, 1 - eps, 1 + eps))
        w_t = exp(sign(a) (log p_teacher(t) - log p_student(t)))

    The teacher is the policy that sees more, such as the reference answer. What it supports gets
    more credit in a right response and less blame in a wrong one. The sign is always the outcome's,
    so the teacher never decides what is learned, only how much.

    Args:
        outcome: the method of a, one of outcomes alone: a name, {name: fields} or a method.
        eps: by how much a token's credit may differ from a, as a share of it, from 0 to 1.
        share: of the weighted credit beside the plain one, from 0 to 1.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        RolloutError: a rollout lacks `student_logprobs` or `teacher_logprobs`, or what the method
            of outcomes needs.
        MethodError: an unknown method, or one that reads more than outcomes.

    Example:
        >>> import stepcredit as sc
        >>> probs = {"student": [[-1.0, -1.0], [-1.0]], "teacher": [[-0.5, -1.1], [-3.0]]}
        >>> rollouts = sc.Rollouts([0, 0], outcome=[1.0, 0.0], logprobs=probs)
        >>> [round(x, 3) for x in sc.RLSD(outcome="rloo")(rollouts).packed().tolist()]
        [1.2, 0.905, -1.2]

    Source: RLSD (2604.03128) Eqs. 13-15. Differs: the paper's loss takes the minimum of w A and
        clip(w) A (Eq. 16), which for a negative A is not its own Eq. 15; this is Eq. 15. Its share
        falls over training (lambda); here it is a constant.
    """

    outcome: Part = part("outcome", "grpo", "the method that gives the sign", of_outcomes_alone)
    eps: float = number(0.2, "largest relative change of a token's credit", at_least=0, at_most=1)
    share: float = number(1.0, "share of the weighted credit", at_least=0, at_most=1)

    models = ("student", "teacher")
    paper = "2604.03128"
    equation = "A_t = a clip((p_teacher / p_student)^sign(a), 1 - eps, 1 + eps)"
    part_fields = ("outcome",)

    @property
    def reads(self) -> Reads:
        """As the method of outcomes, and the log-probs of both models."""
        return replace(super().reads, logprobs=self.models)

    def check(self, rollouts: Rollouts) -> None:
        """What the method of outcomes needs, and the log-probs of both models."""
        Composition.check(self, rollouts)
        LogprobEstimator.check(self, rollouts)

    def credit(self, rollouts: Rollouts) -> Credit:
        """The outcome's advantage times the bounded weights of the tokens."""
        credits, slots = self.part_credits(rollouts), every_token(rollouts.lengths)
        student, teacher = self.tables(rollouts)
        flat, evidence = credits["outcome"], teacher - student
        plain = slots.read(flat.advantage, flat.slots)
        bounded = (plain.sign() * evidence).exp_().clamp_(1 - self.eps, 1 + self.eps)
        weights = torch.where(slots.mask, 1 - self.share + self.share * bounded, 0.0)
        own = {"teacher - student": evidence, "weight": weights}
        return Credit(slots, plain * weights, lambda: stages_of_parts(credits, slots) | own)
