"""Claims about methods that compare the steps taken in one state, decided in the world `REPAIR`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stepcredit.oracles.claim import Claim, verdict_of
from stepcredit.oracles.contestants import Contestant, credit_of
from stepcredit.oracles.every_group import SignalledGroups, WorldGroups
from stepcredit.oracles.step_scores import SIGNALS, StepSignal
from stepcredit.oracles.worlds import REPAIR

WRONG, FIXED = 1, 2
"""Numbers of the wrong move at the start, and of the move that repairs it."""


def credit_of_a_repair(contestant: Contestant, signal: StepSignal | None) -> tuple[float, float]:
    """Mean credit of the wrong step and of its repair in the responses that hold both.

    The mean is over every group, by its probability.

    Args:
        contestant: the method.
        signal: that scores the steps; None: they have no scores.

    Example:
        >>> credit_of_a_repair(Contestant("dr-grpo"), None)
        (0.1875, 0.1875)
    """
    groups = WorldGroups(REPAIR)
    batch = SignalledGroups((groups,), signal)
    credit = credit_of(contestant.estimator(), batch)
    first = np.flatnonzero((groups.steps[:-1] == WRONG) & (groups.steps[1:] == FIXED))
    weight = batch.chance[first] / batch.chance[first].sum()
    return float(weight @ credit[first]), float(weight @ credit[first + 1])


def _repair_told_apart() -> Claim:
    exact = float(REPAIR.advantage[WRONG]), float(REPAIR.advantage[FIXED])
    grpo = credit_of_a_repair(Contestant("grpo"), None)
    alone = credit_of_a_repair(Contestant("gigpo"), None)
    undiscounted = credit_of_a_repair(Contestant("gigpo", {"gamma": 1}), None)
    scored = credit_of_a_repair(Contestant("gigpo"), SIGNALS["right"])
    found = (*exact, *grpo, *alone, *undiscounted, *scored)
    return Claim(
        "Comparing steps of one state tells a wrong step from its repair",
        "GiGPO",
        verdict_of(alone[0] < 0 < alone[1], in_part=alone[0] < alone[1]),
        "credit of the wrong step and of its repair, in the responses that hold both: exact "
        "{:+.3f}, {:+.3f}; grpo {:+.3f}, {:+.3f}; gigpo {:+.3f}, {:+.3f}, with gamma = 1 "
        "{:+.3f}, {:+.3f}, with the right signal {:+.3f}, {:+.3f}".format(*found),
        found,
    )


STATE_CLAIMS: tuple[Callable[[], Claim], ...] = (_repair_told_apart,)
"""The claims, in the order of the table."""
