"""Which responses the page shows: those of findings, the best and worst paid, and whole groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from stepcredit.credit.metrics.advantage_statistics import response_means
from stepcredit.credit.metrics.agreement import average_ranks
from stepcredit.data.advantages import Advantages

PAID_SHOWN = 5
"""Responses with the highest, and with the lowest, mean advantage that are shown per method."""
FLIPS_SHOWN = 10
"""Responses whose place in their group differs most between two methods that are shown."""

Means = Mapping[str, np.ndarray]


def mean_advantages(advantages: Mapping[str, Advantages]) -> dict[str, np.ndarray]:
    """Mean advantage of each response's tokens, by method.

    Returns:
        {method: (responses,)}.

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts(group=[0, 0], lengths=[1, 2], outcome=[1.0, 0.0])
        >>> mean_advantages({"grpo": sc.GRPO()(rollouts)})["grpo"].round(3).tolist()
        [0.707, -0.707]
    """
    return {name: response_means(values).numpy() for name, values in advantages.items()}


def group_places(means: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Each response's place in its group by mean advantage: 1 is the best paid.

        place_i = 1 + #{j: mean_j > mean_i} + (#{j: mean_j = mean_i} - 1) / 2, j in i's group

    Args:
        means: mean advantages, (responses,).
        group: each response's group, (responses,).

    Returns:
        Places, (responses,); ties share the average of their places.

    Example:
        >>> group_places(np.array([0.5, 2.0, 0.5, 1.0]), np.array([0, 0, 0, 1])).tolist()
        [2.5, 1.0, 2.5, 1.0]
    """
    values, which = np.unique(-means, return_inverse=True)
    ranks = average_ranks(group * float(len(values) + 1) + which)
    _, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return ranks - before[index] + 1


def rank_flips(places: Mapping[str, np.ndarray], responses: int) -> np.ndarray:
    """How far each response's place in its group moves between two methods, at most.

        flip_i = max over methods a, b of |place_i(a) - place_i(b)|

    Args:
        places: by method, as `group_places` gives them.
        responses: how many there are.

    Returns:
        (responses,); 0 where fewer than two methods are compared.

    Example:
        >>> rank_flips({"a": np.array([1.0, 2.0]), "b": np.array([2.0, 1.0])}, 2).tolist()
        [1.0, 1.0]
    """
    flips = [np.abs(places[a] - places[b]) for a, b in combinations(places, 2)]
    return np.max(flips, axis=0) if flips else np.zeros(responses)


def rows_by_interest(
    cited: Iterable[int], means: Means, flips: np.ndarray, group: np.ndarray
) -> list[int]:
    """All rows, those first that a reader wants to see.

    First the rows that findings point to; then the best and the worst paid of each method, and the
    largest rank flips; then the rest of those rows' groups; then whole groups spread evenly over
    the file.

    Args:
        cited: rows that findings point to.
        means: mean advantages by method.
        flips: as `rank_flips` gives them.
        group: each response's group, (responses,).

    Returns:
        Every row once.

    Example:
        >>> group = np.array([0, 0, 1, 1, 2, 2])
        >>> rows_by_interest([3], {}, np.zeros(6), group)
        [3, 2, 0, 1, 4, 5]
    """
    first = list(dict.fromkeys([*cited, *_extremes(means), *_largest(flips)]))
    wanted = dict.fromkeys(group[first].tolist())
    ordered, count = np.argsort(group, kind="stable"), int(group.max()) + 1
    sizes = np.bincount(group, minlength=count)
    members = np.split(ordered, np.cumsum(sizes)[:-1])
    spread = [*wanted, *(index for index in _spread(count) if index not in wanted)]
    rest = [int(row) for index in spread for row in members[index]]
    return list(dict.fromkeys([*first, *rest]))


def _extremes(means: Means) -> Iterable[int]:
    for values in means.values():
        order = np.argsort(values, kind="stable")
        yield from order[::-1][:PAID_SHOWN].tolist()
        yield from order[:PAID_SHOWN].tolist()


def _largest(flips: np.ndarray) -> list[int]:
    order = np.argsort(-flips, kind="stable")[:FLIPS_SHOWN]
    return [int(row) for row in order if flips[row] > 0]


def _spread(count: int) -> list[int]:
    """0 to count - 1, so that every beginning of the list is spread over the range."""
    bits = max(count - 1, 1).bit_length()
    turned = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return [i for i in turned if i < count]
