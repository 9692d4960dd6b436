"""Means over steps or responses with intervals, in which the group is the sampled unit."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from stepcredit.credit.metrics.group_averages import Flags, Floats, Indices, means_by_group
from stepcredit.evals.intervals import mean_interval

FEWEST_GROUPS = 8
"""With fewer groups nothing is inferred from them. Equal values of a few groups make an interval of
no width; eight groups on one side come by chance once in 128."""
FINDING_CONFIDENCE = 0.99
"""Level of the intervals that findings stand on: several kinds, patterns and methods are looked at,
and a 5 % chance of error for each of them would accuse too many files."""
SMALLEST_MEAN = 0.1
"""A mean below this share of the values' std is no finding: on many steps even differences that
training can't feel are certain."""


@dataclass(frozen=True)
class GroupMean:
    """A mean over groups, with its interval.

    Args:
        mean: mean of the groups' means; None where nothing was chosen.
        low, high: ends of the interval; None with fewer than two groups.
        count: values that were chosen.
        groups: groups that hold one.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int
    groups: int

    def as_figure(self) -> dict[str, Any]:
        """The fields `value`, `count`, `low` and `high` of an `AuditFigure`."""
        return {"value": self.mean, "count": self.count, "low": self.low, "high": self.high}

    def is_surely_above(self, limit: float = 0.0) -> bool:
        """Whether the whole interval is above a limit, and enough groups make it.

        Example:
            >>> GroupMean(0.5, 0.4, 0.6, 9, 9).is_surely_above(0.3)
            True
            >>> GroupMean(0.5, 0.5, 0.5, 2, 2).is_surely_above()
            False
        """
        return self.low is not None and self.low > limit and self.groups >= FEWEST_GROUPS

    def is_large(self, values: Floats) -> bool:
        """Whether it is surely above 0, and not negligible beside the spread of these values."""
        return self.is_surely_above() and (self.mean or 0.0) >= SMALLEST_MEAN * float(values.std())

    def is_surely_below(self, limit: float = 0.0) -> bool:
        """Whether the whole interval is below a limit, and enough groups make it."""
        return self.high is not None and self.high < limit and self.groups >= FEWEST_GROUPS


def group_mean(
    values: Floats, chosen: Flags, group: Indices, confidence: float = 0.95
) -> GroupMean:
    """Mean of the chosen values, in which each group counts once.

        m +- t s / sqrt(P),   m and s the mean and sample std of the P groups' means

    Args:
        values: one finite number per step or response.
        chosen: which of them count.
        group: the group of each, from 0.
        confidence: the level of the interval, in (0, 1).

    Returns:
        `GroupMean`, without a mean where nothing is chosen, and without an interval where the
        chosen ones are of one group.

    Example:
        >>> values, group = np.array([1.0, 3.0, 0.0, 9.0]), np.array([0, 0, 1, 1])
        >>> found = group_mean(values, np.array([True, True, True, False]), group)
        >>> found.mean, found.count, found.groups
        (1.0, 3, 2)
    """
    means = means_by_group(values, chosen, group)
    return _over_groups(means[np.isfinite(means)], int(chosen.sum()), confidence)


def group_gap(
    values: Floats, chosen: Flags, others: Flags, group: Indices, confidence: float = 0.95
) -> GroupMean:
    """How far the chosen values lie above others of their own group, on average over groups.

        d_g = mean of g's chosen values - mean of g's other values;  mean and interval of d_g

    Groups that lack one of the two say nothing and are left out.

    Args:
        values: one finite number per step or response.
        chosen: those that are compared.
        others: those that they are compared with.
        group: the group of each, from 0.
        confidence: the level of the interval, in (0, 1).

    Returns:
        `GroupMean`; its count is the chosen values of the groups that have both. No mean where no
        group has both, no interval where only one has.

    Example:
        >>> values, group = np.array([1.0, 3.0, 0.0, 9.0]), np.array([0, 0, 1, 1])
        >>> chosen = np.array([True, False, True, False])
        >>> group_gap(values, chosen, ~chosen, group).mean
        -5.5
    """
    gaps = means_by_group(values, chosen, group) - means_by_group(values, others, group)
    both = np.isfinite(gaps)
    count = int((chosen & both[group]).sum()) if group.size else 0
    return _over_groups(gaps[both], count, confidence)


def _over_groups(means: Floats, count: int, confidence: float) -> GroupMean:
    if not means.size:
        return GroupMean(None, None, None, 0, 0)
    found = mean_interval(means, confidence=confidence)
    low, high = (end if isfinite(end) else None for end in (found.low, found.high))
    return GroupMean(found.mean, low, high, count, means.size)
