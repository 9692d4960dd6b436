"""GRPO, Dr. GRPO and RLOO: one advantage per response, computed from the outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.fusion import standardize_scalar
from stepcredit.credit.stages.groups import Group
from stepcredit.data.rollouts import Rollouts
from stepcredit.settings.fields import choice, number


@dataclass(frozen=True)
class OutcomeEstimator(Estimator):
    """Base class of the outcome methods: one operator, the same advantage on all tokens."""

    ddof: int = choice(1, (0, 1), "the std's divisor is n - ddof")
    eps: float = number(1e-6, "added to the std", at_least=0)

    operator: ClassVar[str] = "masked_norm"

    @property
    def reads(self) -> Reads:
        """The outcome of every response, and nothing else."""
        return Reads(process=None, outcome="required")

    @property
    def standardizes(self) -> bool:
        """Whether the operator divides by the std."""
        return self.operator == "masked_norm"

    def check(self, rollouts: Rollouts) -> None:
        """Every outcome must be known."""
        self.refuse_missing(~rollouts.has_outcome, "outcome")

    def credit(self, rollouts: Rollouts) -> Credit:
        """N of the outcome on every token."""
        group = Group.of(rollouts)
        value = standardize_scalar(
            rollouts.outcomes, group, self.operator, ddof=self.ddof, eps=self.eps
        )
        return Credit.flat(rollouts, value, outcome=rollouts.outcome[:, None])


@register("grpo")
@dataclass(frozen=True)
class GRPO(OutcomeEstimator):
    """Group-relative outcome: the same advantage on all tokens.

        A = (r_out - mean) / (std + eps)

    Args:
        ddof: the std's divisor is n - ddof.
        eps: added to the std.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        RolloutError: an outcome is unknown.

    Example:
        >>> import stepcredit as sc
        >>> sc.GRPO(eps=0)(sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])).packed()
        tensor([ 0.7071, -0.7071, -0.7071])

    Source: GRPO (2402.03300) section 4.1.2.
    """

    paper = "2402.03300"
    equation = "A = (r_out - mean) / (std + eps)"


@register("dr-grpo")
@dataclass(frozen=True)
class DrGRPO(OutcomeEstimator):
    """GRPO without the division by the std. The loss without 1/|o| is a setting of the trainer.

        A = r_out - mean

    Raises:
        RolloutError: an outcome is unknown.

    Example:
        >>> import stepcredit as sc
        >>> sc.DrGRPO()(sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])).packed()
        tensor([ 0.5000, -0.5000, -0.5000])

    Source: Dr.GRPO (2503.20783).
    """

    operator = "center"
    paper = "2503.20783"
    equation = "A = r_out - mean"


@register("rloo")
@dataclass(frozen=True)
class RLOO(OutcomeEstimator):
    """REINFORCE with the mean of the other responses as baseline.

        A = r_out - mean of the others

    Raises:
        RolloutError: an outcome is unknown.

    Example:
        >>> import stepcredit as sc
        >>> sc.RLOO()(sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])).packed()
        tensor([ 1., -1., -1.])

    Source: RLOO (2402.14740).
    """

    operator = "leave_one_out"
    paper = "2402.14740"
    equation = "A = r_out - mean of the others"
