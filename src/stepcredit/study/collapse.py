"""When a run has collapsed, as fixed before the runs."""

from __future__ import annotations

from stepcredit.study.study_data import Run

LOST_PASS_AT_1 = 0.05
"""A run has collapsed if its pass@1 ends more than this below its warm start's ..."""
LENGTH_RATIO = (0.67, 1.5)
"""... or its mean length ends outside these multiples of its warm start's."""


def has_collapsed(run: Run) -> bool:
    """Whether a run has collapsed, on the distribution that it was trained on.

        pass@1 < pass@1 of the warm start - 0.05,  or  length / its length outside 0.67 to 1.5

    Args:
        run: a finished run.
    """
    return has_lost_pass_at_1(run) or has_other_length(run)


def has_lost_pass_at_1(run: Run) -> bool:
    """Whether a finished run has collapsed by its pass@1."""
    before, after = run.figures("before"), run.figures("after")
    return after["pass_at_1"] < before["pass_at_1"] - LOST_PASS_AT_1


def has_other_length(run: Run) -> bool:
    """Whether a finished run has collapsed by its length."""
    before, after = run.figures("before"), run.figures("after")
    low, high = LENGTH_RATIO
    return not low <= after["length"] / before["length"] <= high
