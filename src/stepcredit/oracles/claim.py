"""A claim about how a method works, and the figure that decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["held", "held in part", "not held"]


@dataclass(frozen=True)
class Claim:
    """A claim with the figure that decides it.

    Args:
        text: what is claimed.
        source: who claims it.
        verdict: "held", "held in part" or "not held".
        figure: what was computed, with the numbers.
        values: the numbers in `figure`, in order.
    """

    text: str
    source: str
    verdict: Verdict
    figure: str
    values: tuple[float, ...]


def verdict_of(holds: bool, in_part: bool = False) -> Verdict:
    """The verdict's word.

    Args:
        holds: whether the claim is true as stated.
        in_part: where it is not: whether it is true under a condition that the figure names.

    Example:
        >>> verdict_of(True), verdict_of(False, in_part=True), verdict_of(False)
        ('held', 'held in part', 'not held')
    """
    return "held" if holds else "held in part" if in_part else "not held"
