"""Trajectories of several sequences are credited as one response, by every method."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import reference
from tests.credit.cases import CASES, Case
from tests.credit.strategies import SCORES, batches, build, examples, random_rows
from tests.credit.test_against_reference import CHUNKERS
from tests.credit.trajectory_parts import Split, split
from tests.device_waits import DeviceWaits, as_on_a_gpu

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics
from stepcredit.errors import RolloutError

few = examples(10)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
seeds = st.integers(0, 2**20)


def follows_the_signal(case: Case, rows: list[dict[str, object]]) -> bool:
    """Whether chunks are neither steps nor tokens: then a part's end is one more chunk end."""
    plain = case.method in ("pass", "mix", "sign-size", "reinforce-plus-plus")
    rule = case.params.get("chunks", "auto") if plain else "steps"
    led_by_tokens = any("token_scores" in row for row in rows)
    led_by_tokens |= case.params.get("chunks_from") == "teacher"
    return rule not in ("steps", "tokens", "auto") or (rule == "auto" and led_by_tokens)


def assert_close(got: list[list[float]], want: list[list[float]], by: float) -> None:
    scale = max(1e-3, *(abs(v) for row in want for v in row))
    for row, (mine, other) in enumerate(zip(got, want, strict=True)):
        assert len(mine) == len(other)
        gap = max(abs(a - b) for a, b in zip(mine, other, strict=True))
        assert gap <= by * scale, f"response {row}: {mine}, expected {other}"


def of_parts(case: Case, found: Split) -> list[list[float]]:
    rows = [row.tolist() for row in case.estimator()(build(found.parts)).ragged()]
    return found.together(rows)


@every_case
@few
@given(data=st.data(), seed=seeds)
def test_parts_are_credited_as_the_whole_with_a_chunk_end_at_each_parts_end(
    case: Case, data: st.DataObject, seed: int
) -> None:
    rows = data.draw(batches(signals=case.signals, kinds=SCORES, **case.options))
    found = split(rows, Random(seed))
    want = reference.advantages(case.method, case.params, found.whole)
    assert_close(of_parts(case, found), want, 1e-6)


@pytest.mark.parametrize("chunks", CHUNKERS.values(), ids=CHUNKERS.keys())
@few
@given(data=st.data(), seed=seeds)
def test_chunks_of_every_chunker_end_with_their_part(
    chunks: object, data: st.DataObject, seed: int
) -> None:
    rows = data.draw(batches(signals=("steps", "tokens"), kinds=("real", "tenths"), gaps=True))
    found = split(rows, Random(seed))
    case = Case("pass", {"chunks": chunks})
    assert_close(
        of_parts(case, found), reference.advantages("pass", case.params, found.whole), 1e-6
    )


@every_case
@few
@given(data=st.data(), seed=seeds)
def test_splitting_at_step_boundaries_changes_nothing(
    case: Case, data: st.DataObject, seed: int
) -> None:
    rows = data.draw(batches(signals=case.signals, kinds=SCORES, **case.options))
    if follows_the_signal(case, rows):
        return
    found = split(rows, Random(seed))
    want = [row.tolist() for row in case.estimator()(build(rows)).ragged()]
    assert_close(of_parts(case, found), want, 2.0**-22)


@every_case
@few
@given(data=st.data(), seed=seeds)
def test_explain_tells_each_parts_own_tokens(case: Case, data: st.DataObject, seed: int) -> None:
    rows = data.draw(batches(signals=case.signals, **case.options))
    found = split(rows, Random(seed))
    rollouts, method = build(found.parts), case.estimator()
    explanation = method.explain(rollouts)
    assert torch.equal(explanation.advantages.packed(), method(rollouts).packed())
    told: list[list[float]] = [[] for _ in found.parts]
    for chunk in explanation.rows:
        own = told[chunk["rollout"]]
        assert chunk["first"] == len(own)
        assert chunk["group"] == found.parts[chunk["rollout"]]["group"]
        own += [chunk["advantage"]] * (chunk["last"] + 1 - chunk["first"])
    assert [len(own) for own in told] == [part["length"] for part in found.parts]


@every_case
def test_metrics_are_those_of_the_whole(case: Case) -> None:
    rows = random_rows(Random(3), [3, 4], case.signals[0], "real", **case.options)
    if follows_the_signal(case, rows):
        return
    found, method = split(rows, Random(11)), case.estimator()
    whole = build(rows)
    parts = build(found.parts)
    want = training_metrics(whole, method, truncated=[True, *[False] * (len(rows) - 1)])
    truncated = [
        response == 0 and part["outcome"] is None
        for response, part in zip(found.of_part, found.parts, strict=True)
    ]
    truncated[found.of_part.index(0)] = True
    got = training_metrics(parts, method, advantages=method(parts), truncated=truncated)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=1e-6, rel=1e-6), name


@every_case
def test_waits_do_not_grow_with_trajectories(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)
    options = {name: value for name, value in case.options.items() if name != "gaps"}
    rows = random_rows(Random(7), [3, 2, 4, 3], case.signals[0], "real", **options)
    parts, waits = split(rows, Random(1)).parts, []
    for times in (1, 4):
        again = [row | {"group": f"{row['group']}-{n}"} for n in range(times) for row in parts]
        rollouts = build(again, torch.float64)
        with DeviceWaits() as device:
            case.estimator()(rollouts).packed()
        waits.append(device.waits)
    assert waits[0] == waits[1]
    assert sum(waits[1].values()) < 120


def three_parts(**given: object) -> sc.Rollouts:
    """A trajectory of two parts with a row between them, and another response."""
    steps = sc.Steps([[0, 2], [1], [1], [0]], [[0.5, 1.0], [0.25], [0.75], [0.0]])
    fields = {"outcome": [1.0, 0.0, 1.0, 0.0], "trajectory": ["a", None, "a", "b"]}
    return sc.Rollouts(["q"] * 4, **{"process": steps, **fields, **given})  # type: ignore[arg-type]


def test_the_outcome_counts_once_by_hand() -> None:
    """GRPO of outcomes 1, 0, 0: mean 1/3, sample std sqrt(1/3)."""
    got = [row.tolist() for row in sc.GRPO(eps=0.0)(three_parts()).ragged()]
    high, low = (2 / 3) * 3**0.5, (-1 / 3) * 3**0.5
    want = [[high] * 3, [low] * 2, [high] * 2, [low]]
    for mine, other in zip(got, want, strict=True):
        assert mine == pytest.approx(other, abs=1e-6)


def test_the_return_goes_on_in_the_next_part_by_hand() -> None:
    """Plain sums of raw scores, outcome at the last turn of the last part."""
    method = sc.TurnReturn(baseline="none")
    got = [row.tolist() for row in method(three_parts()).ragged()]
    assert got == [[3.25, 2.75, 2.75], [0.25, 0.25], [1.75, 1.75], [0.0]]


def test_the_mean_of_the_others_counts_a_trajectory_once_by_hand() -> None:
    """RLOO: 1 - (0 + 0) / 2, and 0 - (1 + 0) / 2."""
    got = [row.tolist() for row in sc.RLOO()(three_parts()).ragged()]
    assert got == [[1.0] * 3, [-0.5] * 2, [1.0] * 2, [-0.5]]


def test_divide_length_counts_the_chunks_of_all_parts_by_hand() -> None:
    """One response: values 1, 2 and 3 center to -1, 0, 1; k = 1 divides the sums by 3, 2, 1."""
    steps = sc.Steps([[0, 1], [0]], [[1.0, 2.0], [3.0]])
    rollouts = sc.Rollouts(["q", "q"], process=steps, trajectory=[7, 7])
    method = sc.PASS(weights=(1.0, 0.0, 0.0), operator="center", k=1.0)
    got = [row.tolist() for row in method(rollouts).ragged()]
    assert got == [pytest.approx([0.0, 0.5]), pytest.approx([1.0])]


def test_a_chunk_ends_with_its_part_by_hand() -> None:
    """Windows of 3 tokens over parts of 2 and 3 tokens end at tokens 2, 5 and, forced, at 1."""
    scores = sc.Tokens([[1.0, 2.0], [3.0, 4.0, 5.0]])
    rollouts = sc.Rollouts(["q", "q"], process=scores, trajectory=["t", "t"])
    method = sc.PASS(
        weights=(1.0, 0.0, 0.0), operator="center", k=0.0, chunks={"windows": {"size": 3}}
    )
    centred = {1: -1.0, 2: 0.0, 4: 2.0}  # 2, 3 and 5 less the mean 3, at the chunks' last tokens
    first = centred[1] + centred[2] + centred[4]
    got = [row.tolist() for row in method(rollouts).ragged()]
    assert got == [pytest.approx([first] * 2), pytest.approx([2.0, 2.0, 2.0])]


def test_a_chunker_of_ones_own_is_cut_too() -> None:
    from stepcredit.credit.stages import Chunks, LeadStream

    def whole(lead: LeadStream) -> Chunks:
        return Chunks(lead.slots, lead.slots.end_slots())

    scores = sc.Tokens([[1.0, 2.0], [3.0]])
    rollouts = sc.Rollouts(["q", "q"], process=scores, trajectory=["t", "t"])
    method = sc.PASS(weights=(1.0, 0.0, 0.0), operator="center", k=0.0, chunks=whole)
    got = [row.tolist() for row in method(rollouts).ragged()]
    assert got == [pytest.approx([1.0, 1.0]), pytest.approx([1.0])]  # 0 + 1, and 1
    assert [r["last"] for r in method.explain(rollouts).rows] == [1, 0]


def test_padded_and_masked_layouts_go_back_to_the_parts() -> None:
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0]])
    rollouts = sc.Rollouts.from_padded(
        mask, ["q"] * 3, outcome=[1.0, 0.0, None], trajectory=torch.tensor([5, 6, 5])
    )
    got = sc.RLOO()(rollouts)
    want = [[1.0, 1.0, 0.0, 1.0], [0.0, -1.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert got.padded(mask).tolist() == want
    masked = sc.Rollouts(["q"] * 3, outcome=[1, 0, 1], mask=mask, trajectory=[5, 6, 5])
    on_response = [row.tolist() for row in sc.RLOO()(masked).on_response()]
    assert on_response == [[1, 1, 0, 1], [0, -1, -1], [1]]


def test_only_parts_of_one_group_are_one_trajectory() -> None:
    rollouts = sc.Rollouts([0, 0, 1, 1], [1] * 4, outcome=[1, 0, 1, 0], trajectory=["t", "u"] * 2)
    assert rollouts.trajectories is None
    named = sc.Rollouts([0, 1, 0, 0], [1] * 4, outcome=[1, 0, 1, 0], trajectory=[1, "1", "1", None])
    assert named.trajectories is not None
    assert named.trajectories.of_row.tolist() == [0, 1, 0, 2]
    assert repr(named) == "Rollouts(4 responses of 3 trajectories in 2 groups, 4 tokens; outcome)"


def test_rows_are_taken_with_their_trajectory() -> None:
    taken = three_parts().take([3, 2, 0])
    assert taken.trajectories is not None
    assert taken.joined().lengths.tolist() == [1, 5]
    assert three_parts().take([0, 1]).trajectories is None


def refused(**given: object) -> str:
    with pytest.raises(RolloutError) as caught:
        three_parts(**given)
    return str(caught.value)


def test_parts_that_disagree_are_refused_with_their_rows() -> None:
    row = "row 2: outcome: is 0.0, but row 0 of its trajectory has 1.0"
    assert refused(outcome=[1.0, 0.0, 0.0, 0.0]) == row
    row = "row 2: format: is 0.5, but row 0 of its trajectory has 1.0"
    assert refused(format=[1.0, 0.0, 0.5, 0.0]) == row
    row = "row 2: format_ok: is true, but row 0 of its trajectory has false"
    assert refused(format_ok=[False, True, True, True]) == row


def test_a_part_without_an_outcome_takes_the_trajectorys() -> None:
    told = three_parts(outcome=[None, 0.0, 1.0, 0.0])
    assert torch.equal(sc.RLOO()(told).packed(), sc.RLOO()(three_parts()).packed())
    assert told.outcome.tolist() == [1.0, 0.0, 1.0, 0.0]
    row = "row 1: outcome: unknown, but known for others of its group"
    assert refused(outcome=[None, None, 1.0, 0.0]) == row


def test_parts_with_other_streams_are_refused_with_their_rows() -> None:
    steps = sc.Steps([[0, 2], [1], [], [0]], [[0.5, 1.0], [0.25], [], [0.0]])
    row = "row 2: process: missing, but row 0 of its trajectory has it"
    assert refused(process=steps, lengths=[3, 2, 2, 1]) == row
    row = "row 0: student_logprobs: missing, but row 2 of its trajectory has it"
    assert refused(logprobs={"student": [[], [], [-1.0, -1.0], []]}) == row
    row = "row 2: tokens: missing, but row 0 of its trajectory has it"
    assert refused(tokens=[["a", "b", "c"], None, None, None]) == row
    assert refused(trajectory=["a", 1.5, "a", "b"]).startswith("row 1: trajectory: 1.5 is neither")
    assert refused(trajectory=["a"]) == "trajectory: 1 names, but 4 rollouts"
    assert refused(trajectory=torch.zeros(3).long()) == "trajectory: 3 names, but 4 rollouts"


def test_what_a_method_lacks_names_the_first_part() -> None:
    with pytest.raises(RolloutError, match=r"^row 0: outcome: missing: grpo needs it"):
        sc.GRPO()(three_parts(outcome=None))
