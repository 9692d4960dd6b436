"""The states of steps in rollouts and files: numbered in each group, kept, and refused by row."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from tests.credit.strategies import build, random_rows

import stepcredit as sc
from stepcredit.errors import RolloutError, RowError

GROUPS = ["a", "b", "a"]
ENDS = [[0, 2], [1], [0, 1, 2]]
METHOD = sc.GiGPO(norm="center")


def same_states(rollouts: sc.Rollouts) -> list[set[tuple[int, int]]]:
    """The sets of steps, as (rollout, step), that share a state at the finest level."""
    states = rollouts.step_states
    assert states is not None
    places = [(row, at) for row, count in enumerate(states.counts.tolist()) for at in range(count)]
    found: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for place, number in zip(places, states.values[:, 0].tolist(), strict=True):
        found.setdefault((int(rollouts.group_index[place[0]]), number), set()).add(place)
    return sorted(found.values(), key=min)


def made(states: Any, **options: Any) -> sc.Rollouts:
    return sc.Rollouts(GROUPS, **{"step_ends": ENDS, **options}, step_states=states)


def test_equal_keys_of_a_group_are_one_state_and_1_is_the_same_as_its_text() -> None:
    rollouts = made([[1, "door"], ["1"], ["1", "hall", 1]])
    wanted = [{(0, 0), (2, 0), (2, 2)}, {(0, 1)}, {(1, 0)}, {(2, 1)}]
    assert same_states(rollouts) == wanted
    assert rollouts.step_states is not None
    assert rollouts.step_states.values.dtype == torch.int32
    assert "step states" in repr(rollouts)


@pytest.mark.parametrize(
    "states",
    [
        torch.tensor([7, 3, 7, 7, -5, 7]),
        np.array([7, 3, 7, 7, -5, 7], dtype=np.int16),
        torch.tensor([[7], [3], [7], [7], [-5], [7]]),
        [torch.tensor([7, 3]), [7], np.array([7, -5, 7])],
        [[[7], [3]], [["7"]], ([7], ("-5",), [7])],
    ],
)
def test_layouts_give_the_same_states(states: Any) -> None:
    assert same_states(made(states)) == same_states(made([[7, 3], [7], [7, -5, 7]]))


def test_the_steps_are_those_of_a_stream_where_no_step_ends_are_given() -> None:
    steps = sc.Steps(ENDS, [[0.0] * len(row) for row in ENDS])
    keys = [["s", "t"], ["s"], ["s", "t", "u"]]
    by_stream = sc.Rollouts(GROUPS, process=steps, step_states=keys)
    assert same_states(by_stream) == same_states(made(keys))
    judge = sc.Steps([[2], [1], [2]], [[0.0], [0.0], [0.0]])
    named = sc.Rollouts(GROUPS, process={"judge": judge, "process": steps}, step_states=keys)
    assert same_states(named) == same_states(made(keys))


@pytest.mark.parametrize(
    ("states", "options", "reason"),
    [
        ([["s"], ["s"], ["s"] * 3], {}, "row 0: step_states: 1 state, but 2 steps"),
        ([["s", "t"], ["s"]], {}, "step_states: 2 rows, but 3 rollouts"),
        ([["s", "t"], [True], ["s"] * 3], {}, "row 1: step_states: True is neither a string"),
        ([["s", 0.5], ["s"], ["s"] * 3], {}, "row 0: step_states: 0.5 is neither a string"),
        (["st", ["s"], ["s"] * 3], {}, "row 0: step_states: expected a list of states, got str"),
        (
            [["s", ["s", "t"]], ["s"], ["s"] * 3],
            {},
            "row 0: step_states: step 1 has 2 keys, but step 0 has 1 key",
        ),
        (
            [["s", "t"], [["s", "t"]], ["s"] * 3],
            {},
            "row 1: step_states: 2 keys per step, but 1 in a row before it",
        ),
        ([["s", []], ["s"], ["s"] * 3], {}, "row 0: step_states: a step has no key"),
        (
            [[["x", "a"], ["y", "a"]], [["x", "b"]], [["x", "b"], ["y", "a"], ["y", "a"]]],
            {},
            "row 0: step_states: two steps are in the same state at one level",
        ),
        (torch.ones(5), {}, "step_states: expected integers, got float32"),
        (torch.ones(5).long(), {}, "step_states: shape is (5,), expected (6,) or (6, levels)"),
        (
            [["s"], ["s"], ["s"]],
            {"step_ends": None, "lengths": [3, 2, 3]},
            "step_states: need step_ends, or one process stream of steps",
        ),
    ],
)
def test_states_that_do_not_fit_are_refused(
    states: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RolloutError) as caught:
        made(states, **options)
    assert str(caught.value).startswith(reason)


def test_states_of_some_responses_may_be_unknown_but_gigpo_needs_all() -> None:
    rollouts = made([["s", "t"], None, ["s", "t", "s"]])
    assert same_states(rollouts) == [{(0, 0), (2, 0), (2, 2)}, {(0, 1), (2, 1)}]
    with pytest.raises(RolloutError) as caught:
        METHOD(rollouts)
    assert str(caught.value) == "row 1: step_states: missing: gigpo needs it"
    with pytest.raises(RolloutError) as caught:
        METHOD(made(None))
    assert str(caught.value) == "row 0: step_states: missing: gigpo needs it"


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_taken_rows_and_blocks_keep_their_states(levels: int, seed: int) -> None:
    rng = Random(seed)
    rows = random_rows(rng, [3, 1, 4], states=levels)
    order = rng.sample(range(len(rows)), 5)
    taken, again = build(rows).take(order), build([rows[at] for at in order])
    assert same_states(taken) == same_states(again)
    together = build(sorted(rows, key=lambda row: row["group"]))
    found = [METHOD(block).packed() for block in together.blocks(1)]
    assert len(found) == 3
    assert torch.equal(torch.cat(found), METHOD(together).packed())


def test_a_step_without_a_trained_token_is_left_out_with_its_state() -> None:
    keys = [["s", "tool", "t"], ["s"]]
    mask = [[1, 1, 0, 1], [1, 1]]
    given = {"step_ends": [[1, 2, 3], [1]], "outcome": [1.0, 0.0]}
    masked = sc.Rollouts(["q", "q"], **given, mask=mask, step_states=keys)
    plain = sc.Rollouts(
        ["q", "q"], step_ends=[[1, 2], [1]], outcome=[1.0, 0.0], step_states=[["s", "t"], ["s"]]
    )
    assert masked.left_out == 1
    assert same_states(masked) == same_states(plain)
    assert torch.equal(METHOD(masked).packed(), METHOD(plain).packed())


def test_padded_tables_give_what_lists_give() -> None:
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]])
    ids = torch.tensor([[0, 0, 1, 2], [-1, 0, 0, 1]])
    keys = [["s", "tool", "t"], ["t", "s", "never"]]
    numbers = torch.tensor([[4, 8, 5], [5, 4, 0]])
    given: dict[str, Any] = {"mask": mask, "group": [0, 0], "step_id": ids, "outcome": [1.0, 0.0]}
    by_list = sc.Rollouts.from_padded(**given, step_states=keys)
    by_table = sc.Rollouts.from_padded(**given, step_states=numbers)
    assert same_states(by_list) == same_states(by_table) == [{(0, 0), (1, 1)}, {(0, 1), (1, 0)}]
    assert by_list.left_out == by_table.left_out == 1
    levels = torch.stack([numbers, numbers // 4], 2)
    assert sc.Rollouts.from_padded(**given, step_states=levels).step_states.levels == 2
    for states, reason in (
        (keys[:1], "step_states: 1 rows, but the mask has 2"),
        ([["s", "t"], ["s", "t"]], "row 0: step_states: no state for step 2: there are 2"),
        (numbers[:, :2], "row 0: step_states: no state for step 2: there are 2"),
        (numbers[0], "step_states: shape is (3,), expected (2, steps) or (2, steps, levels)"),
    ):
        with pytest.raises(RolloutError) as caught:
            sc.Rollouts.from_padded(**given, step_states=states)
        assert str(caught.value) == reason
    with pytest.raises(RolloutError) as caught:
        sc.Rollouts.from_padded(mask, [0, 0], step_states=keys)
    assert str(caught.value) == "step_states: step_states need step_id"


@pytest.mark.parametrize("container", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("levels", [1, 2])
def test_files_give_what_rollouts_give(container: str, levels: int, tmp_path: Path) -> None:
    rows = random_rows(Random(levels), [3, 2, 4], gaps=True, gate=False, states=levels)
    source, output = tmp_path / f"in.{container}", tmp_path / f"out.{container}"
    sc.write_rollouts(source, rows)
    want = METHOD(build(rows)).ragged()
    assert torch.equal(METHOD(sc.read_rollouts(source)).packed(), torch.cat(want))
    with sc.RolloutFile(source) as file:
        file.shape(output, lambda rollouts: METHOD(rollouts))
    for row, written, values in zip(rows, sc.read_rows(output), want, strict=True):
        assert np.array_equal(np.float32(written["advantages"]), values.numpy())
        as_text = [[str(k) for k in np.atleast_1d(keys)] for keys in row["step_states"]]
        again = [[str(k) for k in np.atleast_1d(keys)] for keys in written["step_states"]]
        assert again == as_text


def test_groups_of_a_file_may_have_states_of_other_levels_or_none(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    parts = [random_rows(Random(levels), [3], states=levels) for levels in (1, 0, 3, 1)]
    rows = [row | {"group": at} for at, part in enumerate(parts) for row in part]
    sc.write_rollouts(path, rows)
    with sc.RolloutFile(path) as file:
        levels = file.fold(
            list[int],
            lambda found, batch: [
                *found,
                batch.rollouts.step_states.levels if batch.rollouts.step_states else 0,
            ],
        )
    assert sorted(levels) == [0, 1, 3]
    with pytest.raises(RowError) as caught:
        sc.read_rollouts(path)
    assert "step_states: 3 keys per step, but line 1 of the file has 1" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step_states": ["s"]}, "2: step_states: 1 state, but 2 steps"),
        ({"step_states": ["s", None]}, "2: step_states: None is neither a string nor an integer"),
        ({"step_states": "s"}, "2: step_states: expected a list of strings, integers, or lists"),
        (
            {"step_states": [["s", "t"]] * 2},
            "2: step_states: 2 keys per step, but line 1 of its group",
        ),
    ],
)
def test_rows_of_a_file_are_refused_by_line(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    row = {"group": "q", "step_ends": [0, 2], "step_states": ["s", "t"]}
    path = tmp_path / "rollouts.jsonl"
    sc.write_rollouts(path, [row])
    path.write_text("".join(json.dumps(each) + "\n" for each in (row, row | change)))
    with pytest.raises(RowError) as caught:
        sc.read_rollouts(path)
    assert str(caught.value).startswith(f"{path}:{reason}")


def test_levels_of_a_file_that_are_not_nested_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    fields = {"group": "q", "step_ends": [0]}
    sc.write_rollouts(path, [fields | {"step_states": [["s", room]]} for room in ("x", "x", "y")])
    with pytest.raises(RowError) as caught:
        sc.read_rollouts(path)
    assert "step_states: two steps are in the same state at one level" in str(caught.value)


def test_states_need_step_ends_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(RolloutError) as caught:
        sc.write_rollouts(tmp_path / "x.jsonl", [{"group": 1, "length": 2, "step_states": ["s"]}])
    assert str(caught.value) == "row 0: step_ends: missing, and step_states need it"
