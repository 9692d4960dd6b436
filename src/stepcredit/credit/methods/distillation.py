"""OPD and G-OPD: distillation from a teacher, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.groups import Values
from stepcredit.credit.stages.process_streams import dense_stream, lacks_logprobs
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import every_token
from stepcredit.settings.fields import number


@dataclass(frozen=True)
class LogprobEstimator(Estimator):
    """Base class of the methods of log-probs, which they need of each model on every token."""

    models: ClassVar[tuple[str, ...]] = ()

    @property
    def reads(self) -> Reads:
        """The log-probs of the models, and nothing else."""
        return Reads(process=None, logprobs=self.models, outcome=None)

    def check(self, rollouts: Rollouts) -> None:
        """Every rollout must have every model's log-probs."""
        for name in self.models:
            self.refuse_missing(lacks_logprobs(rollouts, name), f"{name}_logprobs")

    def tables(self, rollouts: Rollouts) -> list[Values]:
        """Each model's log-probs as a (rollout, token) table."""
        return [dense_stream(rollouts.logprobs[name], rollouts).values for name in self.models]


@register("opd")
@dataclass(frozen=True)
class OPD(LogprobEstimator):
    """On-policy distillation: the negative log-ratio to a teacher, token by token.

        A_t = -c (log p_student - log p_teacher)

    Args:
        coefficient: c.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        RolloutError: a rollout lacks `student_logprobs` or `teacher_logprobs`.

    Example:
        >>> import stepcredit as sc
        >>> sc.OPD()(sc.Rollouts([0], logprobs={"student": [[-1.0]], "teacher": [[-0.5]]})).packed()
        tensor([0.5000])

    Source: OPD (2306.13649).
    """

    coefficient: float = number(1.0, "scale of the log-ratio")

    models = ("student", "teacher")
    paper = "2306.13649"
    equation = "A_t = -c (log p_student - log p_teacher)"

    def credit(self, rollouts: Rollouts) -> Credit:
        """The log-ratio at every token."""
        student, teacher = self.tables(rollouts)
        slots = every_token(rollouts.lengths)
        ratio = student - teacher
        return Credit(slots, -self.coefficient * ratio, lambda: {"student - teacher": ratio})


@register("g-opd")
@dataclass(frozen=True)
class GOPD(LogprobEstimator):
    """Generalized on-policy distillation, with a base model to extrapolate from.

        A_t = -c [(log p_student - log p_base) - lam (log p_teacher - log p_base)]

    Args:
        coefficient: c.
        lam: lambda; 1 is OPD for any base.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        RolloutError: a rollout lacks student, teacher or base log-probs.

    Example:
        >>> import stepcredit as sc
        >>> probs = {"student": [[-1.0]], "teacher": [[-0.5]], "base": [[-2.0]]}
        >>> sc.GOPD(lam=1.0)(sc.Rollouts([0], logprobs=probs)).packed()
        tensor([0.5000])

    Source: G-OPD (2602.12125).
    """

    coefficient: float = number(1.0, "scale of the log-ratio")
    lam: float = number(1.25, "how far beyond the base the teacher is followed")

    models = ("student", "teacher", "base")
    paper = "2602.12125"
    equation = "A_t = -c [(log p_student - log p_base) - lam (log p_teacher - log p_base)]"

    def credit(self, rollouts: Rollouts) -> Credit:
        """The generalized log-ratio at every token."""
        student, teacher, base = self.tables(rollouts)
        slots = every_token(rollouts.lengths)
        own, taught = student - base, teacher - base
        stages = {"student - base": own, "teacher - base": taught}
        return Credit(slots, -self.coefficient * (own - self.lam * taught), lambda: stages)
