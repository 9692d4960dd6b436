"""What goes into `Rollouts`: each fault is refused by row and field, nothing is truncated."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stepcredit as sc
from stepcredit.errors import RolloutError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MASK = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 0, 1, 1]])
GROUP = ["q", "q"]
STEP_ID = torch.tensor([[-1, 0, 0, 1, -1], [0, 1, 1, 1, 2]])
SCORES = torch.tensor([[0.9, 0.2, 0.0], [0.5, 0.1, 0.4]])
TOKEN_SCORES = torch.linspace(-1, 1, 10).reshape(2, 5)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(RolloutError) as caught:
        call()
    return str(caught.value)


def padded(**signals: Any) -> sc.Rollouts:
    return sc.Rollouts.from_padded(MASK, GROUP, **signals)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_is_not_finite_is_refused_in_every_dtype(value: float, dtype: torch.dtype) -> None:
    bad = torch.tensor([[1.0, 2.0], [3.0, value]], dtype=dtype)
    reason = f"row 1: scores: {value} is not a finite number"
    assert message(lambda: sc.Tokens(bad)) == reason
    assert message(lambda: sc.Steps(torch.tensor([[0, 1], [0, 1]]), bad)) == reason
    logprobs = f"row 1: student_logprobs: {value} is not a finite number"
    assert message(lambda: sc.Rollouts(GROUP, logprobs={"student": bad})) == logprobs
    outcome = f"row 1: outcome: {value} is not a finite number"
    assert message(lambda: sc.Rollouts(GROUP, [1, 1], outcome=bad[:, 1])) == outcome


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_number_of_a_dtype_is_kept(dtype: torch.dtype) -> None:
    largest = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    values = torch.tensor([[largest, -largest]], dtype=dtype)
    assert torch.equal(sc.Tokens(values).values, values[0])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: sc.Tokens(torch.ones(2), torch.tensor([3, -1])), "row 1: counts of scores: -1"),
        (lambda: sc.Tokens(torch.ones(1, 2), [-1]), "row 0: counts of scores: -1"),
    ],
)
def test_counts_below_zero_are_refused(call: Callable[[], object], reason: str) -> None:
    assert message(call) == f"{reason} is below 0"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda: sc.Tokens(torch.ones(2), torch.tensor([1.5, 0.5])),
            "counts of scores: expected integers, got float32",
        ),
        (
            lambda: sc.Tokens(torch.ones(2), [1.5, 0.5]),
            "row 0: counts of scores: 1.5 is not an integer",
        ),
        (
            lambda: sc.Tokens(torch.ones(2), torch.tensor([[2]])),
            "counts of scores: shape is (1, 1), expected (rollouts,)",
        ),
        (
            lambda: sc.Tokens(torch.ones(2), torch.tensor([3])),
            "scores: counts sum to 3, but there are 2 values",
        ),
        (
            lambda: sc.Tokens(torch.ones(1, 2), torch.tensor([3])),
            "scores: counts must be in 0..2, the width",
        ),
        (lambda: sc.Tokens(torch.ones(2)), "scores: a packed 1-D tensor needs counts"),
        (
            lambda: sc.Tokens([[1.0]], [1]),
            "scores: counts go with tensors, not with a list of rows",
        ),
        (lambda: sc.Tokens([[1.0], [[1.0, 2.0]]]), "row 1: scores: [1.0, 2.0] is not a number"),
        (lambda: sc.Tokens([1.0]), "row 0: scores: expected a list of values, got float"),
        (lambda: sc.Tokens(["ab"]), "row 0: scores: expected a list of values, got str"),
        (lambda: sc.Tokens(None), "scores: expected a list of rows or a tensor, got NoneType"),
        (lambda: sc.Tokens([[1], [True]]), "row 1: scores: True is not a number"),
        (lambda: sc.Tokens([[1], [0, "a"]]), "row 1: scores: 'a' is not a number"),
        (
            lambda: sc.Tokens([[1], [10**400]]),
            "row 1: scores: an integer of 1329 bits is too large for float32",
        ),
        (lambda: sc.Tokens([[1], [1e39]]), "row 1: scores: 1e+39 is too large for float32"),
        (lambda: sc.Tokens(np.array([["a"]])), "scores: expected numbers, got <U1"),
        (
            lambda: sc.Tokens(torch.ones(1, 1, dtype=torch.complex64)),
            "scores: expected numbers, got complex64",
        ),
        (
            lambda: sc.Tokens([torch.ones(1), torch.ones(1, 1)]),
            "row 1: scores: shape is (1, 1), expected (values,)",
        ),
        (lambda: sc.Steps([[inf]], [[1]]), "row 0: ends: inf is not an integer"),
        (lambda: sc.Steps([[nan]], [[1]]), "row 0: ends: nan is not an integer"),
        (lambda: sc.Steps([[1.7]], [[1]]), "row 0: ends: 1.7 is not an integer"),
        (
            lambda: sc.Steps([[2**70]], [[1]]),
            "row 0: ends: 1180591620717411303424 is too large for int64",
        ),
        (
            lambda: sc.Steps(torch.tensor([[1.7, 4.2]]), torch.ones(1, 2)),
            "ends: expected integers, got float32",
        ),
        (
            lambda: sc.Steps([torch.tensor([1.7])], [torch.ones(1)]),
            "ends: expected integers, got float32",
        ),
    ],
)
def test_a_stream_says_what_it_cannot_take(call: Callable[[], object], reason: str) -> None:
    assert message(call) == reason


def test_one_tensor_a_rollout_is_a_layout() -> None:
    advantages = sc.GRPO()(sc.Rollouts(GROUP, [2, 1], outcome=[1.0, 0.0]))
    stream = sc.TokenAdvantages(advantages.ragged())
    assert torch.equal(stream.values, advantages.packed())
    assert stream.counts.tolist() == [2, 1]
    ends, scores = [torch.tensor([1, 4]), None, np.array([2])], [np.ones(2), None, torch.ones(1)]
    assert sc.Steps(ends, scores).ends.tolist() == [1, 4, 2]
    mixed = sc.Tokens([torch.tensor([0.5]), [0.25, np.float32(2)], [torch.tensor(1.0)]])
    assert (mixed.values.tolist(), mixed.counts.tolist()) == ([0.5, 0.25, 2.0, 1.0], [1, 2, 1])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"lengths": torch.tensor([2.7, 1.0])}, "lengths: expected integers, got float32"),
        ({"lengths": torch.tensor([True, True])}, "lengths: expected integers, got bool"),
        ({"lengths": [2, 1.5]}, "row 1: lengths: 1.5 is not an integer"),
        ({"lengths": 3}, "lengths: expected one integer per rollout, got int"),
        ({"outcome": 1.0}, "outcome: expected one number per rollout, got float"),
        ({"outcome": [1.0, True]}, "row 1: outcome: True is not a number"),
        ({"format_ok": True}, "format_ok: expected true or false per rollout, got bool"),
        ({"format_ok": [True, None]}, "row 1: format_ok: None is not true or false"),
        ({"format_ok": torch.tensor([1, 2])}, "row 1: format_ok: 2 is not true or false"),
        ({"format_ok": torch.ones(2)}, "format_ok: expected true or false, got float32"),
        (
            {"format_ok": np.array([True, None], dtype=object)},
            "row 1: format_ok: None is not true or false",
        ),
        ({"group": 1}, "group: expected one label per rollout, got int"),
        ({"group": "qq"}, "group: expected one label per rollout, got str"),
        ({"group": None}, "group: expected one label per rollout, got NoneType"),
        ({"group": torch.ones(2)}, "group: expected integers, got float32"),
        ({"group": torch.ones(1, 2).long()}, "group: shape is (1, 2), expected (rollouts,)"),
        ({"group": ["q", 1.5]}, "row 1: group: 1.5 is neither a string nor an integer"),
        ({"tokens": [["a"], [2]]}, "row 1: tokens: 2 is not a string"),
        ({"tokens": [["a"], "b"]}, "row 1: tokens: expected a list of texts, got str"),
        (
            {"process": [[1.0, 2.0]]},
            "process: expected Steps, Tokens or TokenAdvantages, or streams by name, got list",
        ),
        (
            {"process": {"judge": [[1.0]]}},
            "judge: expected Steps, Tokens or TokenAdvantages, got list",
        ),
        (
            {"process": {1: sc.Tokens([[1.0], [1.0]])}},
            "process: expected a name for each stream, got 1",
        ),
        (
            {"logprobs": {"pupil": [[1.0], [1.0]]}},
            "pupil: unknown log-probs: expected one of student, teacher, base, prm, ref",
        ),
        ({"logprobs": [[1.0], [1.0]]}, "logprobs: expected log-probs by model, got list"),
    ],
)
def test_rollouts_say_what_they_cannot_take(arguments: dict[str, Any], reason: str) -> None:
    assert (
        message(lambda: sc.Rollouts(**{"group": GROUP, "lengths": [1, 1], **arguments})) == reason
    )


def test_unknown_is_none_in_lists_arrays_of_objects_and_texts() -> None:
    rollouts = sc.Rollouts(
        ["a", "b"],
        np.array([1, 2], dtype=object),
        outcome=np.array([1.0, None], dtype=object),
        format_ok=np.array([True, False], dtype=object),
        tokens=[None, ["x", "y"]],
    )
    assert rollouts.has_outcome.tolist() == [True, False]
    assert rollouts.format_ok.tolist() == [True, False]
    assert rollouts.tokens == [[], ["x", "y"]]
    flags = sc.Rollouts(GROUP, [1, 1], format_ok=torch.tensor([1, 0])).format_ok
    assert flags.tolist() == [True, False]


def test_lists_are_copied() -> None:
    scores, texts = [[0.5], [0.25]], [["a"], ["b"]]
    rollouts = sc.Rollouts(GROUP, process=sc.Tokens(scores), tokens=texts)
    scores[0][0], texts[0][0] = nan, "z"
    assert rollouts.streams["process"].values.tolist() == [0.5, 0.25]
    assert rollouts.tokens == [["a"], ["b"]]


class TestFromPadded:
    """Rollouts from padded tensors."""

    def test_step_ids_alone_tell_where_steps_end(self) -> None:
        rollouts = padded(step_id=STEP_ID, token_scores=TOKEN_SCORES, outcome=[1.0, 0.0])
        ends = [[1, 2], [0, 2, 3]]
        assert rollouts.step_ends is not None
        assert rollouts.step_ends.values.tolist() == ends[0] + ends[1]
        assert rollouts.step_ends.counts.tolist() == [2, 3]
        scores = [row[kept].tolist() for row, kept in zip(TOKEN_SCORES, MASK.bool(), strict=True)]
        same = sc.Rollouts(GROUP, process=sc.Tokens(scores), outcome=[1.0, 0.0], step_ends=ends)
        by_step = sc.PASS(chunks="steps")
        assert by_step(rollouts).packed().tolist() == by_step(same).packed().tolist()
        assert padded(step_id=STEP_ID, logprobs={"student": TOKEN_SCORES}).step_ends is not None
        assert padded(step_id=STEP_ID, step_scores=SCORES).step_ends is None

    def test_texts_are_read_where_the_mask_is_set(self) -> None:
        assert padded(tokens=[list("abcde"), None]).tokens == [["b", "c", "d"], []]

    def test_process_may_be_one_stream(self) -> None:
        stream = sc.Tokens([[0.0] * 3, [1.0] * 4])
        assert padded(process=stream).streams == {"process": stream}

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
    def test_steps_left_out_are_counted(self, dtype: torch.dtype) -> None:
        mask = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]])
        ids = torch.tensor([[0, 1, 2, 2, 3], [0, 0, 0, 5, 1]], dtype=dtype)
        rollouts = sc.Rollouts.from_padded(mask, GROUP, step_id=ids, step_scores=torch.rand(2, 4))
        assert rollouts.left_out == 2
        assert rollouts.take([0]).left_out == 2
        assert [block.left_out for block in rollouts.blocks(1.0)] == [2]
        assert padded(step_id=STEP_ID, step_scores=SCORES).left_out == 0

    @pytest.mark.parametrize(
        ("signals", "reason"),
        [
            (
                {"step_id": STEP_ID, "step_scores": SCORES, "process": sc.Tokens([[1.0]])},
                "process: a stream of this name comes from step_scores",
            ),
            (
                {"token_scores": TOKEN_SCORES, "process": {"process": sc.Tokens([[1.0]])}},
                "process: a stream of this name comes from token_scores",
            ),
            (
                {"step_scores": SCORES},
                "step_scores: step_scores need step_id, and exclude token_scores",
            ),
            ({"step_id": STEP_ID.float()}, "step_id: expected integers, got float32"),
            ({"step_id": STEP_ID.flip(1)}, "row 0: step_id: step ids must not decrease"),
            ({"step_id": STEP_ID + 2**31}, "row 0: step_id: 2147483648 is outside -1..2147483647"),
            (
                {"step_id": STEP_ID, "step_scores": SCORES[:, :2]},
                "row 1: step_id: 2 is outside -1..1",
            ),
            ({"step_id": STEP_ID[:, 1:]}, "step_id: shape is (2, 4), the mask's is (2, 5)"),
            (
                {"step_id": STEP_ID, "step_scores": SCORES / 0},
                "row 0: step_scores: inf is not a finite number",
            ),
            (
                {"token_scores": TOKEN_SCORES - inf},
                "row 0: token_scores: -inf is not a finite number",
            ),
            (
                {"logprobs": {"student": TOKEN_SCORES - inf}},
                "row 0: student_logprobs: -inf is not a finite number",
            ),
            (
                {"logprobs": {"pupil": TOKEN_SCORES}},
                "pupil: unknown log-probs: expected one of student, teacher, base, prm, ref",
            ),
            ({"tokens": [["a"]]}, "tokens: 1 rows, but the mask has 2"),
            ({"tokens": [None, ["a"]]}, "row 1: tokens: 1 texts, but the mask has 5 tokens"),
        ],
    )
    def test_faults(self, signals: dict[str, Any], reason: str) -> None:
        assert message(lambda: padded(**signals)) == reason

    @pytest.mark.parametrize("group", [["q"] * 3, torch.arange(3), np.arange(3)])
    def test_a_label_a_row(self, group: Any) -> None:
        reason = "group: 3 labels, but the mask has 2 rows"
        assert message(lambda: sc.Rollouts.from_padded(MASK, group)) == reason


def test_rollouts_of_a_file_know_the_steps_left_out(tmp_path: Path) -> None:
    row = {"group": 1, "loss_mask": [1, 0, 0, 1], "step_ends": [0, 1, 3], "step_scores": [1, 2, 3]}
    file = tmp_path / "rollouts.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    with pytest.warns(UserWarning, match="2 steps without a trained token are left out"):
        rollouts = sc.read_rollouts(file)
    assert rollouts.left_out == 2
    assert rollouts.streams["process"].values.tolist() == [1, 3, 1, 3]


def test_explain_counts_the_steps_left_out() -> None:
    rollouts = sc.Rollouts.from_padded(
        mask=torch.tensor([[1, 0, 1]]),
        group=[0],
        step_id=torch.tensor([[0, 1, 2]]),
        step_scores=torch.tensor([[0.9, 0.5, 0.1]]),
    )
    told = "steps without a trained token, left out: 1"
    assert told in str(sc.PASS().explain(rollouts)).splitlines()


FOUR = sc.Rollouts(["a", "b", "a", "c"], [1, 2, 3, 4], outcome=[0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([True, False, False, True], [1, 4]),
        (torch.tensor([False, True, True, False]), [2, 3]),
        (np.array([False, False, False, True]), [4]),
        ([np.True_, False, False, False], [1]),
        (range(2, 4), [3, 4]),
        (np.array([3, 0], dtype=np.uint8), [4, 1]),
        ([np.int64(1), torch.tensor(1)], [2, 2]),
        (torch.tensor([3, 2], dtype=torch.int8), [4, 3]),
        ((2, 2, 0), [3, 3, 1]),
    ],
)
def test_take_reads_row_numbers_and_flags(rows: Any, lengths: list[int]) -> None:
    assert FOUR.take(rows).lengths.tolist() == lengths


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([True, False], "rows: 2 flags, but 4 rollouts"),
        (torch.ones(5, dtype=torch.bool), "rows: 5 flags, but 4 rollouts"),
        ([1.0], "rows: 1.0 is not a row number"),
        ([1.5], "rows: 1.5 is not a row number"),
        (torch.tensor([1.0]), "rows: expected integers, got float32"),
        (np.array([0.9]), "rows: expected integers, got float64"),
        ([-1], "rows: -1 is outside 0..3"),
        ([0, 4], "rows: 4 is outside 0..3"),
        ([True, 2], "rows: True is not a row number"),
        (["1"], "rows: '1' is not a row number"),
        (1, "rows: expected row numbers, or one flag per rollout, got int"),
        (None, "rows: expected row numbers, or one flag per rollout, got NoneType"),
        (torch.tensor([[0, 1]]), "rows: shape is (1, 2), expected (rows,)"),
        ([], "rows: expected at least one rollout, got none"),
        ([False] * 4, "rows: expected at least one rollout, got none"),
    ],
)
def test_take_says_what_it_cannot_take(rows: Any, reason: str) -> None:
    assert message(lambda: FOUR.take(rows)) == reason


def test_streams_take_as_rollouts_do() -> None:
    stream = sc.Tokens([[1.0], [2.0, 3.0]])
    assert stream.take([False, True]).values.tolist() == [2.0, 3.0]
    assert stream.take([False, False]).counts.tolist() == []
    assert message(lambda: stream.take([2])) == "rows: 2 is outside 0..1"


@pytest.mark.parametrize("count", [-1, 1.5, True, "1", None])
def test_a_count_is_a_whole_number(count: Any) -> None:
    reason = f"left_out: expected a whole number of at least 0, got {count!r}"
    assert message(lambda: sc.Rollouts([0], [1], left_out=count)) == reason


@pytest.mark.parametrize("width", [2.0, True, "3", torch.tensor(2.5)])
def test_a_width_is_a_whole_number(width: Any) -> None:
    advantages = sc.GRPO()(sc.Rollouts(GROUP, [2, 1], outcome=[1.0, 0.0]))
    got = f"got {width!r}"
    assert message(lambda: advantages.padded(width=width)).endswith(got)
    assert advantages.padded(width=np.int64(3)).shape == (2, 3)
    differ = "width: 4, but the mask has 2 tokens"
    assert message(lambda: advantages.padded([[1, 1], [1, 0]], width=4)) == differ


def test_unsigned_integers_beyond_int64_are_refused_not_wrapped() -> None:
    large = np.array([2**63 + 5, 1], dtype=np.uint64)
    reason = f"expected integers of at most {2**63 - 1}"
    assert message(lambda: sc.Rollouts(large, [1, 1])) == f"group: {reason}"
    assert message(lambda: sc.Rollouts(GROUP, large)) == f"lengths: {reason}"
    assert sc.Rollouts([2**63 + 5, 1], [1, 1]).group_labels == [2**63 + 5, 1]


def test_short_integers_do_not_overflow() -> None:
    lengths = torch.full((300,), 200, dtype=torch.uint8)
    steps = sc.Steps(torch.full((300, 1), 199, dtype=torch.uint8), torch.ones(300, 1))
    rollouts = sc.Rollouts(torch.zeros(300, dtype=torch.int8), lengths, steps)
    assert sc.PASS()(rollouts).packed().numel() == 60_000
    wide = torch.ones(2, 200, dtype=torch.int8)
    assert sc.Rollouts.from_padded(wide, GROUP).lengths.tolist() == [200, 200]


@pytest.mark.parametrize("value", [nan, 0.5, -1.0, inf])
def test_a_float_mask_holds_0_and_1(value: float) -> None:
    mask = MASK.float()
    mask[1, 2] = value
    reason = f"row 1: mask: {value} is neither 0 nor 1"
    assert message(lambda: sc.Rollouts.from_padded(mask, GROUP)) == reason
    advantages = sc.GRPO()(sc.Rollouts(GROUP, [3, 4], outcome=[1.0, 0.0]))
    assert message(lambda: advantages.padded(mask)) == reason


def test_a_masked_value_is_unknown_where_that_can_be() -> None:
    values = np.ma.array([1.0, 2.0], mask=[True, False])
    rollouts = sc.Rollouts([0, 1], [1, 1], outcome=values, format=values)
    assert rollouts.has_outcome.tolist() == rollouts.has_format.tolist() == [False, True]
    masked = "scores: some values are masked: expected all of them"
    assert message(lambda: sc.Tokens([np.ma.array([1.0], mask=[True])])) == f"row 0: {masked}"


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_an_empty_table_is_refused(shape: tuple[int, int]) -> None:
    reasons = {0: "group: there are no rollouts"}
    length = "row 0: length: a response needs at least one trained token"
    empty = torch.zeros(shape)
    told = message(lambda: sc.Rollouts.from_padded(empty, list(range(shape[0]))))
    assert told == reasons.get(shape[0], length)
