"""Averages over steps or responses in which every group counts once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


def means_by_group(
    values: Floats, chosen: Flags, group: Indices, groups: int | None = None
) -> Floats:
    """The chosen values' mean in each group.

    Args:
        values: one finite number per step or response.
        chosen: which of them count.
        group: the group of each, from 0; it is not read where a value does not count.
        groups: how many there are; None: up to the largest number.

    Returns:
        One mean per group; NaN where a group has none.

    Example:
        >>> group = np.array([0, 0, 2])
        >>> means_by_group(np.array([1.0, 3.0, 5.0]), np.ones(3, bool), group).tolist()
        [2.0, nan, 5.0]
    """
    if groups is None:
        groups = int(group.max()) + 1 if group.size else 0
    counts = np.bincount(group[chosen], minlength=groups)
    totals = np.bincount(group[chosen], weights=values[chosen], minlength=groups)
    means: Floats = np.divide(totals, counts, out=np.full(groups, np.nan), where=counts > 0)
    return means


def average_of_groups(values: Floats, chosen: Flags, group: Indices) -> float | None:
    """Mean of the groups' means of the chosen values; None where nothing is chosen.

    Example:
        >>> values, group = np.array([1.0, 3.0, 0.0]), np.array([0, 0, 1])
        >>> average_of_groups(values, np.ones(3, bool), group)
        1.0
    """
    return _mean_of_known(means_by_group(values, chosen, group))


def average_gap(values: Floats, chosen: Flags, others: Flags, group: Indices) -> float | None:
    """How far the chosen values lie above others of their own group, on average over groups.

    Groups that lack one of the two say nothing and are left out; None where all do.

    Example:
        >>> values, group = np.array([1.0, 3.0, 0.0, 9.0]), np.array([0, 0, 1, 1])
        >>> chosen = np.array([True, False, True, False])
        >>> average_gap(values, chosen, ~chosen, group)
        -5.5
    """
    first, second = (means_by_group(values, of, group) for of in (chosen, others))
    return _mean_of_known(first - second)


def _mean_of_known(means: Floats) -> float | None:
    known = means[np.isfinite(means)]
    return float(known.mean()) if known.size else None
