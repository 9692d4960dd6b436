"""On-policy distillation as a process signal: log-ratios of tokens, or their sums over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

import stepcredit as sc
from stepcredit.lab.grading import Graded

LAMBDA = 1.25
"""How far beyond the base model G-OPD follows the teacher: the default of the method `g-opd`."""
LOG_RATIOS = tuple(
    f"{name}{grain}{teacher}"
    for teacher in ("", "-mismatched")
    for name in ("opd", "g-opd")
    for grain in ("", "-steps")
)


@dataclass(frozen=True)
class TeacherRatio:
    """How much more probable a teacher finds each token than the policy does.

        opd:    s_t = log p_teacher - log p_student
        g-opd:  s_t = lambda (log p_teacher - log p_base) - (log p_student - log p_base)

    Args:
        name: one of `LOG_RATIOS`: `opd` or `g-opd`; with `-steps` the sum over each step's tokens;
            with `-mismatched` the teacher is the one that was shown padded demonstrations.

    Example:
        >>> probs = {"student": sc.Tokens([[-1.0, -2.0]]), "teacher": sc.Tokens([[-0.5, -2.5]])}
        >>> TeacherRatio("opd").process([""], [[0, 1]], [], probs).values.tolist()
        [0.5, -0.5]

    Source: OPD (2306.13649), G-OPD (2602.12125).
    """

    name: str = "opd"

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose log-probs it reads."""
        base = ("base",) if self.name.startswith("g-opd") else ()
        return ("student", "teacher", *base)

    def process(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        logprobs: Mapping[str, sc.Tokens],
    ) -> sc.Steps | sc.Tokens:
        """The log-ratios of completions, from the models' log-probs."""
        student, teacher = logprobs["student"], logprobs["teacher"]
        ratio = teacher.values - student.values
        if "base" in self.models:
            ratio = ratio + (LAMBDA - 1) * (teacher.values - logprobs["base"].values)
        if "-steps" not in self.name:
            return sc.Tokens(ratio, counts=student.counts)
        return summed_over_steps(ratio, student.counts, [g.step_ends for g in graded])


def summed_over_steps(
    values: torch.Tensor, counts: torch.Tensor, ends: Sequence[Sequence[int]]
) -> sc.Steps:
    """The sum of each step's token values.

    Args:
        values: packed, one per token.
        counts: tokens of each completion.
        ends: index of each step's last token, by completion.

    Example:
        >>> values, counts = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3])
        >>> summed_over_steps(values, counts, [[1, 2]]).values.tolist()
        [3.0, 4.0]
    """
    rows = zip(torch.split(values, counts.tolist()), ends, strict=True)
    sums = [
        [float(part.sum()) for part in torch.split(row, _lengths(row_ends))]
        for row, row_ends in rows
    ]
    return sc.Steps(ends, sums)


def _lengths(ends: Sequence[int]) -> list[int]:
    return [end - before for before, end in zip([-1, *ends], ends, strict=False)]
