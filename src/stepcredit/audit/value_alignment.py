"""Q-alignment: whether step scores or credit order steps as the changes of value do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from stepcredit.audit.group_means import GroupMean, group_mean
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.metrics.agreement import average_ranks
from stepcredit.credit.metrics.group_averages import Flags, Floats, Indices
from stepcredit.credit.metrics.step_kinds import FILLER, RIGHT, WRONG

SMALLEST_CHANGE = 0.02
"""A change of the value of at most this size counts as none."""
_TRUTH = {RIGHT: 1.0, WRONG: -1.0, FILLER: 0.0}


@dataclass(frozen=True)
class ValueChanges:
    """How much each step changes the chance of a right outcome.

    Args:
        values: one per step of the batch; NaN: unknown.
        field: the field that tells it.
    """

    values: Floats
    field: str

    @classmethod
    def of(cls, batch: LoggedBatch) -> ValueChanges | None:
        """The changes of Monte-Carlo values, or else what step truth tells of them.

            d_j = V_j - V_{j-1};  without values 1 for right steps, -1 for wrong ones, 0 for filler

        Returns:
            None where the batch has neither.

        Example:
            >>> row = {"group": 1, "tokens": ["a", "b"], "step_ends": [0, 1]}
            >>> batch = LoggedBatch.of([row | {"step_values": [0.5, 0.75, 0.25]}])
            >>> ValueChanges.of(batch).values.tolist()
            [0.25, -0.5]
        """
        if batch.step_values is not None:
            rows = [np.diff(np.array(row, np.float64)) for row in batch.step_values]
            return cls(np.concatenate(rows), "step_values")
        if batch.step_labels is not None:
            labels = chain.from_iterable(batch.step_labels)
            known = [np.nan if label is None else _TRUTH.get(label, np.nan) for label in labels]
            return cls(np.array(known, np.float64), "step_labels")
        return None


@dataclass(frozen=True)
class Alignment:
    """How far numbers on steps agree with the changes of value; each group counts once.

    Args:
        spearman: rank correlation within a group.
        sign_accuracy: share of the steps that change the value on which the number has the sign of
            the change; 0 counts half.
        leakage: mean size of the numbers on steps that change nothing, divided by their mean size
            on all steps of the group: 0 is best, 1 tells the two kinds not apart.
    """

    spearman: GroupMean
    sign_accuracy: GroupMean
    leakage: GroupMean


def alignment(
    numbers: Floats, changes: Floats, group: Indices, *, centred: bool, confidence: float = 0.95
) -> Alignment:
    """The agreement of numbers on steps with the changes of value.

    Args:
        numbers: scores or advantages, one per step; NaN: unknown, left out.
        changes: the change of value of each step; NaN: unknown, left out.
        group: the group of each step, from 0.
        centred: whether 0 of the numbers means no change, as for advantages; for scores, the mean
            over the group's steps stands for it.
        confidence: the level of the intervals.

    Returns:
        `Alignment`. A group in which the numbers or the changes are all equal has no rank
        correlation; where no group has a figure, its mean is None.

    Example:
        >>> numbers, group = np.array([3.0, -2.0, 0.5]), np.zeros(3, int)
        >>> found = alignment(numbers, np.array([0.5, -0.25, 0.0]), group, centred=True)
        >>> found.spearman.mean, found.sign_accuracy.mean, round(found.leakage.mean, 4)
        (1.0, 1.0, 0.2727)
    """
    known = np.isfinite(numbers) & np.isfinite(changes)
    numbers, changes, group = numbers[known], changes[known], group[known]
    offsets = numbers if centred else _deviations(numbers, group)
    moved = np.abs(changes) > SMALLEST_CHANGE
    hits = 0.5 + 0.5 * np.sign(offsets) * np.sign(changes)
    return Alignment(
        _rank_correlation(numbers, changes, group, confidence),
        group_mean(hits, moved, group, confidence),
        _leakage(np.abs(offsets), ~moved, group, confidence),
    )


def _rank_correlation(one: Floats, other: Floats, group: Indices, confidence: float) -> GroupMean:
    """Mean over groups of Spearman's correlation, computed for all groups at once."""
    a = _deviations(_group_ranks(one, group), group)
    b = _deviations(_group_ranks(other, group), group)
    products, squares = (np.bincount(group, weights=x) for x in (a * b, a * a))
    norms = np.sqrt(squares * np.bincount(group, weights=b * b))
    found = np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)
    return _of_groups(found, norms > 0, group, confidence)


def _leakage(sizes: Floats, still: Flags, group: Indices, confidence: float) -> GroupMean:
    groups = int(group.max()) + 1 if group.size else 0
    counts = np.bincount(group, minlength=groups)
    still_counts = np.bincount(group[still], minlength=groups)
    totals = np.bincount(group, weights=sizes, minlength=groups)
    still_totals = np.bincount(group[still], weights=sizes[still], minlength=groups)
    known = (still_counts > 0) & (totals > 0)
    found = np.zeros(groups)
    np.divide(still_totals * counts, totals * still_counts, out=found, where=known)
    return _of_groups(found, known, group, confidence)


def _of_groups(found: Floats, known: Flags, group: Indices, confidence: float) -> GroupMean:
    """The mean of one figure per group; it counts the steps of the groups that have one."""
    mean = group_mean(found, known, np.arange(found.size), confidence)
    steps = int(known[group].sum()) if group.size else 0
    return GroupMean(mean.mean, mean.low, mean.high, steps, mean.groups)


def _group_ranks(values: Floats, group: Indices) -> Floats:
    """Average ranks within groups, up to a constant of each group."""
    distinct, place = np.unique(values, return_inverse=True)
    return average_ranks((group * distinct.size + place).astype(np.float64))


def _deviations(values: Floats, group: Indices) -> Floats:
    """Values minus their group's mean; exactly 0 in a group of equal values."""
    if not values.size:
        return values
    counts = np.maximum(np.bincount(group), 1)
    first = np.zeros(counts.size)
    first[group[::-1]] = values[::-1]
    shifted = values - first[group]
    return shifted - (np.bincount(group, weights=shifted) / counts)[group]
