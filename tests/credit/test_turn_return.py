"""Turn returns: by hand, and where turns lie."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import Rows, batches, build, examples
from tests.credit.test_identities import assert_same, one_step, run

import stepcredit as sc
from stepcredit.errors import MethodError

few = examples(40)


@few
@given(
    rows=batches(signals=("steps",), outcome="known").map(one_step),
    gamma=st.sampled_from((0.0, 0.5, 1.0)),
    baseline=st.sampled_from(("turns", "trajectories")),
)
def test_with_one_turn_it_is_rloo_of_score_and_outcome(
    rows: Rows, gamma: float, baseline: str
) -> None:
    got = run(sc.TurnReturn(gamma=gamma, baseline=baseline), rows)
    summed = [row | {"outcome": row["outcome"] + row["step_scores"][0]} for row in rows]
    assert_same(got, run(sc.RLOO(), summed))


@few
@given(rows=batches(signals=("steps", "tokens"), outcome="known"))
def test_the_outcome_alone_less_the_trajectories_is_rloo(rows: Rows) -> None:
    """Condition: gamma 1."""
    ours = sc.TurnReturn(process_weight=0.0, baseline="trajectories")
    assert_same(run(ours, rows), run(sc.RLOO(), rows))


@few
@given(rows=batches(signals=("steps",), outcome="known"))
def test_at_the_first_turn_both_baselines_are_one(rows: Rows) -> None:
    both = [
        sc.TurnReturn(gamma=0.9, baseline=baseline)(build(rows)).ragged()
        for baseline in ("turns", "trajectories")
    ]
    first = [torch.stack([row[0] for row in ragged]).double() for ragged in both]
    assert_same(first[0], first[1])


@few
@given(rows=batches(signals=("steps", "tokens"), outcome="known"), by=st.sampled_from((-3.0, 7.0)))
def test_a_constant_outcome_changes_nothing(rows: Rows, by: float) -> None:
    """Condition: gamma 1, more than one response."""
    moved = [row | {"outcome": row["outcome"] + by} for row in rows]
    for baseline in ("turns", "trajectories"):
        method = sc.TurnReturn(baseline=baseline)
        assert_same(run(method, moved), run(method, rows), 1e-5)


def advantages(rollouts: sc.Rollouts, **settings: object) -> list[list[float]]:
    found = sc.TurnReturn(**settings)(rollouts).ragged()  # type: ignore[arg-type]
    return [[round(x, 6) for x in row.tolist()] for row in found]


def test_a_lone_turn_is_compared_with_the_others_trajectories() -> None:
    steps = sc.Steps([[0, 1, 2], [0], [0]], [[0.0, 0.0, 0.0]] + [[0.0]] * 2)
    rollouts = sc.Rollouts([0, 0, 0], process=steps, outcome=[1.0, 0.0, 0.5])
    assert advantages(rollouts)[0] == [0.75, 0.75, 0.75]


def test_turns_of_a_token_signal_are_the_known_steps() -> None:
    """By hand: turn scores 3 and 3 against 1 and 4; outcomes 1 and 0."""
    tokens = sc.Tokens([[1.0, 2.0, 3.0], [1.0, 4.0]])
    rollouts = sc.Rollouts([0, 0], process=tokens, outcome=[1.0, 0.0], step_ends=[[1, 2], [0, 1]])
    assert advantages(rollouts) == [[2.0, 2.0, 0.0], [-2.0, 0.0]]
    assert advantages(rollouts, gamma=0.0) == [[2.0, 2.0, 0.0], [-2.0, 0.0]]
    assert sc.TurnReturn().reads.steps


def test_turns_without_a_signal_are_the_known_steps() -> None:
    rollouts = sc.Rollouts([0, 0], lengths=[3, 1], outcome=[1.0, 0.0], step_ends=[[0, 2], [0]])
    assert advantages(rollouts, gamma=0.5) == [[0.5, 1.0, 1.0], [-0.5]]
    flat = rollouts.replaced(step_ends=None)
    assert advantages(flat, gamma=0.5) == [[1.0, 1.0, 1.0], [-1.0]]


def test_tools_are_no_turns() -> None:
    """A step without a trained token is left out before discounting."""
    steps = sc.Steps([[0, 1, 2], [0]], [[0.0, 9.0, 0.0], [0.0]])
    rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0], mask=[[1, 0, 1], [1]])
    assert advantages(rollouts, gamma=0.5) == [[0.5, 1.0], [-0.5]]


def test_alone_in_its_group_a_response_gets_nothing_but_without_a_baseline() -> None:
    rollouts = sc.Rollouts([0], process=sc.Steps([[0, 1]], [[1.0, 2.0]]), outcome=[4.0])
    assert advantages(rollouts) == [[0.0, 0.0]]
    assert advantages(rollouts, baseline="trajectories") == [[0.0, 0.0]]
    assert advantages(rollouts, baseline="none") == [[7.0, 6.0]]


def test_an_unscored_response_does_not_hang_on_its_neighbours() -> None:
    """Its turn is the whole response, in a batch of token scores too."""
    alone = sc.Rollouts([0, 0], lengths=[3, 2], outcome=[1.0, 0.0])
    tokens = sc.Tokens([None, None, [1.0, 1.0], [0.0]])
    beside = sc.Rollouts(
        [0, 0, 1, 1], lengths=[3, 2, 2, 1], process=tokens, outcome=[1.0, 0.0, 1.0, 0.0]
    )
    wanted = advantages(alone, gamma=0.5)
    assert advantages(beside, gamma=0.5)[:2] == wanted == [[1.0, 1.0, 1.0], [-1.0, -1.0]]


def test_stages_lead_to_the_advantage() -> None:
    steps = sc.Steps([[0, 1], [0]], [[0.0, 1.0], [0.5]])
    rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
    explained = sc.TurnReturn(gamma=0.5).explain(rollouts)
    assert explained.stages["reward"].tolist() == [0.0, 2.0, 0.5]
    assert explained.stages["return"].tolist() == [1.0, 2.0, 0.5]
    assert explained.stages["baseline"].tolist() == [0.5, 0.5, 1.0]
    assert explained.advantage.tolist() == [0.5, 1.5, -0.5]


def test_two_streams_and_none_named_process_are_refused() -> None:
    both = {"prm": sc.Tokens([[1.0]]), "judge": sc.Tokens([[1.0]])}
    with pytest.raises(MethodError) as refused:
        sc.TurnReturn()(sc.Rollouts([0], process=both))
    assert str(refused.value) == "reads one process stream, named 'process'; there are prm, judge"
