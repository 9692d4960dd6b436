"""How well a response's scores, put into one number, tell right responses from wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from stepcredit.credit.metrics.agreement import average_ranks
from stepcredit.credit.metrics.group_averages import Flags, Floats
from stepcredit.data.forest import reduce_rows
from stepcredit.data.streams import Stream
from stepcredit.prm.judging.step_metrics import LabelledScores, question_intervals, weighted_auc

RESAMPLES = 200
"""Draws of groups for an interval: its ends then rest on five draws each, and a large log is done
in seconds."""


def score_aggregates(stream: Stream) -> dict[str, Floats]:
    """One number per response made of its scores: the smallest, the mean, and the product.

    Args:
        stream: scores of steps or tokens.

    Returns:
        {"minimum" | "mean" | "product": one number per response}, 0 for a response without scores.
        No product where a score lies outside [0, 1]; one below 1e-300 or so is 0.

    Example:
        >>> import stepcredit as sc
        >>> scores = score_aggregates(sc.Steps([[0, 1]], [[0.5, 0.5]]))
        >>> {name: values.tolist() for name, values in scores.items()}
        {'minimum': [0.5], 'mean': [0.5], 'product': [0.25]}
    """
    values, counts = stream.values.double(), stream.counts
    found = {
        "minimum": reduce_rows(values, counts, "min").numpy(),
        "mean": (reduce_rows(values, counts, "sum") / counts.clamp(min=1)).numpy(),
    }
    if values.numel() and float(values.min()) >= 0 and float(values.max()) <= 1:
        logs = reduce_rows(values.clamp(min=1e-30).log(), counts, "sum")
        found["product"] = (logs.exp() * (counts > 0)).numpy()
    return found


Area = Callable[[Floats], float | None]
"""An AUC as a function of the groups' weights; None where it has none."""


def auc_with_interval(
    cases: Mapping[str, LabelledScores], *, within_groups: bool = False
) -> dict[str, tuple[float | None, tuple[float, float] | None]]:
    """The chance that a right case scores above a wrong one, with its 95 % interval.

        AUC = share of pairs (right, wrong) in which the right one scores higher; equal: 1/2

    The interval is the percentile bootstrap's over groups.

    Args:
        cases: scores of responses or steps by name, all of the same cases, with at least one case;
            `question` is the group.
        within_groups: compare the cases of one group alone. Credit does so too, and a signal that
            scores hard questions higher than easy ones is then not taken for a reversed one.

    Returns:
        {name: (AUC, interval)}; None where there is no pair, no interval with fewer than two groups
        or where a draw of groups has no pair.

    Example:
        >>> both = np.array([True, False])
        >>> cases = {"mean": LabelledScores(np.array([0.9, 0.2]), both, np.array([0, 1]))}
        >>> auc_with_interval(cases)["mean"]
        (1.0, None)
    """
    first = next(iter(cases.values()))
    if not first.both:
        return dict.fromkeys(cases, (None, None))
    area_of = auc_within_groups if within_groups else _auc_of_all
    areas = {name: area_of(case) for name, case in cases.items()}

    def figures(weights: Floats) -> dict[str, float | None]:
        return {name: area(weights) for name, area in areas.items()}

    groups = int(first.question.max()) + 1
    whole, rng = figures(np.ones(groups)), np.random.default_rng(0)
    intervals = question_intervals(figures, groups, RESAMPLES, rng)
    return {name: (whole[name], intervals[name]) for name in cases}


def _auc_of_all(cases: LabelledScores) -> Area:
    area = weighted_auc(cases)
    return lambda weights: area(weights[cases.question])


def compared_groups(cases: LabelledScores) -> int:
    """How many groups hold both right and wrong cases.

    Example:
        >>> right, group = np.array([True, False, True]), np.array([0, 0, 1])
        >>> compared_groups(LabelledScores(np.zeros(3), right, group))
        1
    """
    rights = np.bincount(cases.question, cases.right)
    return int(((rights > 0) & (rights < np.bincount(cases.question))).sum())


def auc_within_groups(cases: LabelledScores) -> Area:
    """The AUC among pairs of one group, as a function of the groups' weights.

        AUC = sum_g w_g U_g / sum_g w_g n_g m_g
        U_g = sum of the right cases' ranks in the group, from 0, - n_g (n_g - 1) / 2

    Args:
        cases: `question` is the group, from 0 without a gap; n_g of a group are right, m_g wrong.

    Example:
        >>> right, group = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
        >>> cases = LabelledScores(np.array([0.2, 0.1, 0.9, 0.8]), right, group)
        >>> auc_within_groups(cases)(np.ones(2))
        1.0

    Source: Mann & Whitney 1947.
    """
    group, right = cases.question, cases.right
    _, place = np.unique(cases.scores, return_inverse=True)
    ranks = average_ranks((group * (place.max() + 1) + place).astype(np.float64))
    sizes, rights = np.bincount(group), np.bincount(group, right)
    starts = sizes.cumsum() - sizes
    sums = np.bincount(group, ranks * right) - rights * starts
    won, pairs = sums - rights * (rights - 1) / 2, rights * (sizes - rights)

    def area(weights: Floats) -> float | None:
        total = float(weights @ pairs)
        return float(weights @ won) / total if total else None

    return area


def labelled_cases(
    scores: Mapping[str, Floats], right: Flags, wrong: Flags, group: np.ndarray
) -> dict[str, LabelledScores]:
    """The cases that are known to be right or wrong, with groups numbered from 0 without a gap.

    Example:
        >>> flags = np.array([False, True])
        >>> cases = labelled_cases({"s": np.array([0.1, 0.9])}, flags, ~flags, np.array([4, 7]))
        >>> cases["s"].question.tolist()
        [0, 1]
    """
    known = right | wrong
    _, question = np.unique(group[known], return_inverse=True)
    return {
        name: LabelledScores(values[known], right[known], question)
        for name, values in scores.items()
    }
