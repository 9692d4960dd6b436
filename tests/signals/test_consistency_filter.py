"""PROF's filter: against every subset, and against the numbers of its paper."""

from __future__ import annotations

from itertools import combinations, product
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import examples

from stepcredit.data.files.rows import check_row
from stepcredit.errors import RolloutError, SettingError
from stepcredit.signals.consistency_filter import (
    ConsistencyFilter,
    FilterCounts,
    ScoredResponse,
)

responses = st.builds(
    ScoredResponse,
    st.booleans(),
    st.one_of(st.none(), st.floats(0, 1)),
    st.integers(1, 6),
)


def agreement(rule: ConsistencyFilter, each: ScoredResponse) -> float:
    """By hand: the mean score of a right response, and less it of a wrong one, less the penalty."""
    if each.score is None:
        return -1e9
    penalty = rule.step_penalty if each.steps == 1 or each.steps > rule.most_steps else 0.0
    return (each.score if each.right else -each.score) - penalty


@examples(60)
@given(
    group=st.lists(responses, min_size=1, max_size=7),
    keep=st.integers(1, 6),
    penalty=st.sampled_from((0.0, 0.5)),
)
def test_no_other_choice_is_better_balanced_or_more_consistent(
    group: list[ScoredResponse], keep: int, penalty: float
) -> None:
    rule = ConsistencyFilter(keep=keep, step_penalty=penalty, most_steps=4)
    kept = [at for at, stays in enumerate(rule.kept(group)) if stays]
    if len(group) <= keep:
        assert len(kept) == len(group)
        return
    assert len(kept) == keep

    def balance(rows: tuple[int, ...]) -> int:
        right = sum(bool(group[at].right) for at in rows)
        return right * (keep - right)

    every = list(combinations(range(len(group)), keep))
    best = max(map(balance, every))
    assert balance(tuple(kept)) == best
    of_right = sum(bool(group[at].right) for at in kept)
    rivals = [rows for rows in every if sum(bool(group[at].right) for at in rows) == of_right]
    most = max(sum(agreement(rule, group[at]) for at in rows) for rows in rivals)
    assert sum(agreement(rule, group[at]) for at in kept) == pytest.approx(most)


def test_so_many_are_removed_as_the_papers_formula_says() -> None:
    """k+ = min(n - m, ceil((n+ - n- + n - m) / 2)) right ones are removed, where it is above 0."""
    for right, wrong, keep in product(range(9), range(9), range(1, 9)):
        total = right + wrong
        if total <= keep:
            continue
        group = [ScoredResponse(True, 0.5)] * right + [ScoredResponse(False, 0.5)] * wrong
        kept = ConsistencyFilter(keep=keep).kept(group)
        remove = total - keep
        removed = max(0, min(remove, ceil((right - wrong + remove) / 2), right))
        assert right - sum(kept[:right]) == removed, (right, wrong, keep)
        assert sum(kept) == keep


def test_equal_scores_keep_the_first() -> None:
    group = [ScoredResponse(right, 0.5) for right in (True, False, True, False)]
    assert ConsistencyFilter(keep=2).kept(group) == [True, True, False, False]


def test_wrong_responses_may_be_drawn_by_chance() -> None:
    group = [ScoredResponse(True, s / 10) for s in range(5)]
    group += [ScoredResponse(False, s / 10) for s in range(5)]
    rule = ConsistencyFilter(keep=4, rank="right")
    drawn = {tuple(rule.kept(group, f"group {label}")[5:]) for label in range(40)}
    assert len(drawn) > 5
    assert all(sum(each) == 2 for each in drawn)
    assert rule.kept(group, "a")[:5] == [False, False, False, True, True]
    assert rule.kept(group, "a") == rule.kept(group, "a")
    others = [ConsistencyFilter(keep=4, rank="right", seed=seed) for seed in range(20)]
    assert len({tuple(other.kept(group, "a")) for other in others}) > 3


def test_a_group_without_known_outcomes_is_kept_whole() -> None:
    group = [ScoredResponse(None, s) for s in (0.1, 0.2, 0.3)]
    assert ConsistencyFilter(keep=1).kept(group) == [True] * 3


def test_rows_are_read_over_trained_tokens_and_by_stream() -> None:
    rule = ConsistencyFilter(right_above=0.5)
    steps = {"group": 1, "step_ends": [0, 1, 3], "step_scores": [1.0, 0.0, 0.5], "outcome": 0.5}
    assert rule.read(check_row(steps)) == ScoredResponse(False, 0.5, 3)
    masked = steps | {"loss_mask": [1, 0, 1, 1], "outcome": 1.0}
    assert rule.read(check_row(masked)) == ScoredResponse(True, 0.75, 2)
    tokens = {"group": 1, "token_scores": [0.25, 0.75], "step_ends": [1]}
    assert rule.read(check_row(tokens)) == ScoredResponse(None, 0.5, 1)
    named = {"group": 1, "length": 2, "signals": {"prm": {"scores": [1.0], "ends": [1]}}}
    assert rule.read(check_row(named)) == ScoredResponse(None, None)
    other = ConsistencyFilter(stream="prm")
    assert other.read(check_row(named)) == ScoredResponse(None, 1.0, 1)


def test_what_can_not_be_read_is_refused() -> None:
    ready = {"group": 1, "signals": {"prm": {"advantages": [1.0]}}}
    with pytest.raises(RolloutError) as refused:
        ConsistencyFilter(stream="prm").read(check_row(ready))
    assert str(refused.value) == "prm: is a ready-made advantage, not a score"
    tokens = {"group": 1, "token_scores": [0.25, 0.75]}
    assert ConsistencyFilter().read(check_row(tokens)).score == 0.5
    with pytest.raises(RolloutError) as refused:
        ConsistencyFilter(step_penalty=1.0).read(check_row(tokens))
    assert str(refused.value) == (
        "step_ends: missing: a penalty on the number of steps needs it beside token scores"
    )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"keep": 0}, "keep: expected a whole number of at least 1, got 0"),
        ({"rank": "wrong"}, "rank: expected one of both, right, got 'wrong'"),
        ({"step_penalty": -1}, "step_penalty: expected a number of at least 0, got -1"),
        ({"right_above": float("nan")}, "right_above: expected a number, got nan"),
        ({"stream": ""}, "stream: expected a string that is not empty, got ''"),
    ],
)
def test_bad_settings_are_named(fields: dict[str, object], line: str) -> None:
    with pytest.raises(SettingError) as refused:
        ConsistencyFilter(**fields)  # type: ignore[arg-type]
    assert str(refused.value) == line


def test_counts_add_up() -> None:
    counts = FilterCounts.none()
    counts.add([ScoredResponse(True, 1.0), ScoredResponse(False, 0.5)], [True, True])
    counts.add([ScoredResponse(True, 0.25), ScoredResponse(True, None)], [True, False])
    counts.add([ScoredResponse(None, 0.5)], [True])
    assert (counts.groups, counts.cut, counts.one_sided, counts.unknown) == (3, 1, 1, 1)
    assert counts.kept == {"right": 2, "wrong": 1, "unknown": 1}
    assert counts.dropped == {"right": 1, "wrong": 0, "unknown": 0}
    assert counts.unscored == 1
    assert counts.mean_score("right", kept=True) == 0.625
    assert counts.mean_score("right", kept=False) is None
