"""Which prompts of a run have a known outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab.grading import Problem


@dataclass(frozen=True)
class Answered:
    """Whether the outcome of a prompt's answers is known: a draw by the seed and the prompt alone.

    A prompt that is among the known at one share is among them at every larger share.

    Args:
        share: share of the prompts, 0 to 1.
        seed: seed of the draws.

    Raises:
        StepCreditError: the share is out of range.

    Example:
        >>> Answered(0.0)("3+4*2="), Answered(1.0)("3+4*2=")
        (False, True)
    """

    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            reason = f"expected a number from 0 to 1, got {self.share}"
            raise StepCreditError(reason, field="answered")

    def __call__(self, prompt: str) -> bool:
        drawn = self.share < 1 and keyed_generator(self.seed, "answered", prompt).random()
        return drawn < self.share

    def known(self, problems: Sequence[Problem]) -> list[Problem]:
        """As many problems, all of them with a known outcome: those, in order, again and again.

        Raises:
            StepCreditError: none of the problems has one.

        Example:
            >>> [problem.prompt for problem in Answered().known([Problem("3+4=", 7)])]
            ['3+4=']
        """
        found = [problem for problem in problems if self(problem.prompt)]
        if not found:
            reason = f"{self.share} leaves none of {len(problems)} problems with an outcome"
            raise StepCreditError(reason, field="answered")
        return list(islice(cycle(found), len(problems)))
