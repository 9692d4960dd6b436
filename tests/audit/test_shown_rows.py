"""Which responses the audit's page shows, and where methods rank them differently."""

from __future__ import annotations

import random

import numpy as np
import pytest

from stepcredit.audit.shown_rows import group_places, rank_flips, rows_by_interest


def test_places_are_counted_within_groups() -> None:
    source = random.Random(3)
    group = [source.randrange(6) for _ in range(60)]
    means = [source.choice([-1.0, 0.0, 0.5, 2.0]) for _ in range(60)]
    expected = []
    for i in range(60):
        others = [means[j] for j in range(60) if group[j] == group[i]]
        better = sum(x > means[i] for x in others)
        expected.append(1 + better + (sum(x == means[i] for x in others) - 1) / 2)
    assert group_places(np.array(means), np.array(group)).tolist() == expected


def test_flips_are_the_largest_difference_of_places() -> None:
    places = {
        "a": np.array([1.0, 2.0, 3.0]),
        "b": np.array([1.0, 3.0, 2.0]),
        "c": np.array([3.0, 2.0, 1.0]),
    }
    assert rank_flips(places, 3).tolist() == [2.0, 1.0, 2.0]
    assert rank_flips({"a": places["a"]}, 3).tolist() == [0.0, 0.0, 0.0]
    assert rank_flips({}, 3).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("groups", [1, 2, 7, 64, 100])
def test_each_row_comes_once_and_cited_rows_first(groups: int) -> None:
    group = np.repeat(np.arange(groups), 4)
    means = {"pass": np.linspace(-1, 1, len(group))}
    rows = rows_by_interest([2, 0, 2], means, np.zeros(len(group)), group)
    assert sorted(rows) == list(range(len(group)))
    assert rows[:2] == [2, 0]
    assert {len(group) - 1, 0} <= set(rows[:12])  # the best and the worst paid


def test_the_rest_is_spread_over_the_file() -> None:
    group = np.arange(1000)
    rows = rows_by_interest([], {}, np.zeros(1000), group)[:100]
    assert max(np.diff(sorted(rows))) <= 20
