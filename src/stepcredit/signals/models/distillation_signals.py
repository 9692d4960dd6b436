"""On-policy distillation as a process signal: how much likelier a teacher finds each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcredit.settings.fields import number
from stepcredit.signals.models.ratios import LogRatio, side
from stepcredit.signals.signal_registry import register_signal


@register_signal("opd")
@dataclass(frozen=True, kw_only=True)
class Distillation(LogRatio):
    """On-policy distillation: the negative log-ratio at the sampled token (k1), without gradient.

        score_t = -(log p_student(y_t) - log p_teacher(y_t))

    Its sum over a step is the step's share of -KL(student || teacher). The other estimators of a
    KL, k2 and k3, are no signal: they lose or bend the sign.

    Args:
        teacher, student: where the log-probs come from (see `LogRatio`); None: the rows.
        tokenizer: the policy's; needed if a model is local and the student is not.
        temperature: of both, stated; a server answers at 1.
        clamp: each token's score within [-clamp, clamp].
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype: of local models.

    Raises:
        RolloutError: a row without the ids, or log-probs, that are needed.
        SettingError: two temperatures, or no tokenizer to check a teacher's vocabulary against.
        SignalError: a teacher of another vocabulary, named with the first token that differs; or
            a model that fails.

    Example:
        >>> from stepcredit.signals.responses import Response
        >>> facts = {"student_logprobs": [-1.0, -0.5], "teacher_logprobs": [-0.5, -4.5]}
        >>> response = Response("?", "ab", ((0, 1), (1, 2)), facts=facts)
        >>> Distillation(clamp=3.0).scores([response])
        [[0.5, -3.0]]

    Source: OPD (2306.13649), as PASS (2606.29296) uses it. Differs: nothing.
    """

    teacher: Any = side("the teacher")
    student: Any = side("the student, which wrote the responses")

    sides = ("student", "teacher")

    def combine(self, *logprobs: float) -> float:
        """-(student - teacher)."""
        student, teacher = logprobs
        return -(student - teacher)


@register_signal("g-opd")
@dataclass(frozen=True, kw_only=True)
class GeneralizedDistillation(LogRatio):
    """Generalized on-policy distillation: the teacher followed beyond, from a base model on.

        score_t = -[(log p_student - log p_base) - lam (log p_teacher - log p_base)]

    Args:
        teacher, student, base: where the log-probs come from (see `LogRatio`); None: the rows.
            The base is the student as it was before training.
        lam: lambda; 1 is `Distillation` for any base, above 1 goes beyond the teacher.
        tokenizer: the policy's; needed if a model is local and the student is not.
        temperature: of all three, stated; a server answers at 1.
        clamp: each token's score within [-clamp, clamp].
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype: of local models.

    Raises:
        RolloutError, SettingError, SignalError: as `Distillation`.

    Example:
        >>> from stepcredit.signals.responses import Response
        >>> facts = {"student_logprobs": [-1.0], "teacher_logprobs": [-0.5],
        ...          "base_logprobs": [-2.0]}
        >>> response = Response("?", "a", ((0, 1),), facts=facts)
        >>> GeneralizedDistillation(lam=1.25).scores([response])
        [[0.875]]

    Source: G-OPD (2602.12125). Differs: nothing.
    """

    teacher: Any = side("the teacher")
    student: Any = side("the student, which wrote the responses")
    base: Any = side("the student before training")
    lam: float = number(1.25, "how far beyond the base the teacher is followed")

    sides = ("student", "teacher", "base")

    @property
    def identity(self) -> dict[str, Any]:
        """Each side's identity and the settings of the score."""
        return {**super().identity, "lam": self.lam}

    def combine(self, *logprobs: float) -> float:
        """-[(student - base) - lam (teacher - base)]."""
        student, teacher, base = logprobs
        return -((student - base) - self.lam * (teacher - base))
