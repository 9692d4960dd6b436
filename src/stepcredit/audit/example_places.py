"""The responses or steps that a finding shows: those with the largest values."""

from __future__ import annotations

import numpy as np

from stepcredit.audit.finding import EvidencePlace
from stepcredit.credit.metrics.group_averages import Flags, Floats, Indices
from stepcredit.credit.metrics.step_kinds import StepKinds

MOST_PLACES = 10
"""Places that a finding shows: enough to see the pattern, few enough to read."""


def best_rows(values: Floats, flags: Flags) -> tuple[EvidencePlace, ...]:
    """The flagged responses with the largest values, the largest first.

    Example:
        >>> [place.row for place in best_rows(np.array([1.0, 3.0, 2.0]), np.array([1, 0, 1], bool))]
        [2, 0]
    """
    return tuple(EvidencePlace(int(row)) for row in _best(values, flags))


def best_steps(values: Floats, flags: Flags, kinds: StepKinds) -> tuple[EvidencePlace, ...]:
    """The flagged steps with the largest values, the largest first.

    Args:
        values: one number per step.
        flags: which steps may be shown.
        kinds: the steps.
    """
    best = _best(values, flags)
    return tuple(EvidencePlace(int(kinds.row[at]), int(kinds.place[at])) for at in best)


def _best(values: Floats, flags: Flags) -> Indices:
    chosen = np.flatnonzero(flags)
    return chosen[np.argsort(-values[chosen], kind="stable")][:MOST_PLACES]
