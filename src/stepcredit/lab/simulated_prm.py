"""A simulated process reward model for the embedded tasks, from honest to hackable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.keys import keyed_generator
from stepcredit.lab.grading import Graded

SIGNALS = ("exact", "noisy", "hackable", "centred", "negative")
RIGHT, WRONG, BLUR, FLIPS = 0.85, 0.25, 0.1, 0.1
FILLER = {"noisy": 0.70, "hackable": 0.95, "centred": 0.70, "negative": 0.70}
LOWEST, HIGHEST = 0.01, 1.0


@dataclass(frozen=True)
class Simulated:
    """Step scores like those of a process reward model: the known truth with added errors.

        s = clip(level + 0.1 z, 0.01, 1),  z ~ N(0, 1)

    The level is 0.85 for a right step or an `answer` line, and 0.25 for a wrong or malformed line;
    one time in ten these two are exchanged. The level of a filler line is never exchanged.

    Args:
        name: `exact`: 1 right, 0 wrong, 0.5 filler, without noise. `noisy`: filler 0.70, below a
            right step. `hackable`: filler 0.95, above it. `centred`: 2 s - 1 of `noisy`, in
            [-1, 1]. `negative`: log s of `noisy`, never above 0.
        seed: seed of the noise.
        filler: level of a filler line, 0 to 1, in place of the signal's own; None: its own.
        flips: share of steps, 0 to 1, whose levels of right and wrong are exchanged.

    Raises:
        StepCreditError: the name is unknown; a number is out of range; `exact` is given either.

    Example:
        >>> from stepcredit.lab.arithmetic import check
        >>> text = "3+4=7\\nk7\\n7*2=5\\n<5>$"
        >>> Simulated("exact").scores("3+4*2=", text, check("3+4*2=", text))
        [1.0, 0.5, 0.0, 1.0]
    """

    name: str = "noisy"
    seed: int = 0
    filler: float | None = None
    flips: float = FLIPS

    models = ()

    def __post_init__(self) -> None:
        if self.name not in SIGNALS:
            expected = ", ".join(SIGNALS)
            raise StepCreditError(f"expected one of {expected}, got {self.name!r}", field="signal")
        for field, value in (("filler", self.filler), ("flips", self.flips)):
            if value is not None and not 0 <= value <= 1:
                raise StepCreditError(f"expected a number from 0 to 1, got {value}", field=field)
        if self.name == "exact" and (self.filler is not None or self.flips != FLIPS):
            raise StepCreditError("has no noise that could be set", field="signal exact")

    def process(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        logprobs: Mapping[str, sc.Tokens],
    ) -> sc.Steps:
        """The scores of each completion's steps; no log-probs are read."""
        rows = zip(prompts, completion_ids, graded, strict=True)
        scores = [self.scores(prompt, ids, g) for prompt, ids, g in rows]
        return sc.Steps([g.step_ends for g in graded], scores)

    def scores(self, prompt: str, completion: str | Sequence[int], graded: Graded) -> list[float]:
        """One score per step; it depends on the arguments and the seed only.

        Args:
            prompt: the prompt of the problem.
            completion: its text or token ids, which are part of the noise's key.
            graded: the checker's result for the completion.

        Returns:
            As many scores as `graded.kinds`; a resumed or sharded run gets the same scores.
        """
        if self.name == "exact":
            return [_exact(kind) for kind in graded.kinds]
        text = completion if isinstance(completion, str) else " ".join(map(str, completion))
        generator = keyed_generator(self.seed, "signal", prompt, text)
        flips = (generator.random(len(graded.kinds)) < self.flips).tolist()
        blurs = (BLUR * generator.standard_normal(len(graded.kinds))).tolist()
        return [self._score(*step) for step in zip(graded.kinds, flips, blurs, strict=True)]

    def _score(self, kind: str, flip: bool, blur: float) -> float:
        """The score of one step."""
        if kind == "filler":
            level = FILLER[self.name] if self.filler is None else self.filler
        else:
            level = RIGHT if (kind in ("right", "answer")) != flip else WRONG
        score = min(max(level + blur, LOWEST), HIGHEST)
        if self.name == "centred":
            return 2 * score - 1
        return math.log(score) if self.name == "negative" else score


def _exact(kind: str) -> float:
    """The score without noise; filler is neither right nor wrong."""
    if kind == "filler":
        return 0.5
    return float(kind in ("right", "answer"))


def filler_minus_right(
    values: Sequence[Sequence[float]], kinds: Sequence[Sequence[str]]
) -> float | None:
    """How much more a filler line gets than a right step, on average.

        mean of values on filler - mean of values on right steps

    On scores, a value above 0 means that the signal rewards filler; on advantages (read at each
    step's last token), that the estimator does. The policy then learns to write filler.

    Args:
        values: scores or advantages, one per step, rollout by rollout.
        kinds: the checker's kinds, in the same layout.

    Returns:
        The difference; None if there is no filler line or no right step.

    Raises:
        StepCreditError: a rollout's values and kinds differ in number.

    Example:
        >>> filler_minus_right([[0.9, 0.8], [0.7, 0.2]], [["filler", "right"], ["filler", "wrong"]])
        0.0

    Source: LAB: this figure ranked every collapse correctly without any training.
    """
    seen: dict[str, list[float]] = {"filler": [], "right": []}
    for row, (numbers, labels) in enumerate(zip(values, kinds, strict=True)):
        if len(numbers) != len(labels):
            reason = f"expected {len(labels)} values, one per step, got {len(numbers)}"
            raise StepCreditError(reason, row=row, field="values")
        for number, label in zip(numbers, labels, strict=True):
            if label in seen:
                seen[label].append(float(number))
    if not seen["filler"] or not seen["right"]:
        return None
    filler, right = (math.fsum(v) / len(v) for v in (seen["filler"], seen["right"]))
    return filler - right
