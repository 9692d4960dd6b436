"""The mask of rollouts: streams over response tokens give what a file and padded tensors give."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import examples

import stepcredit as sc
from stepcredit.data.masking import (
    ends_to_response,
    row_steps_to_trained,
    row_tokens_to_response,
    step_ends_to_trained,
    stream_to_trained,
)
from stepcredit.data.streams import Stream
from stepcredit.errors import RolloutError

METHODS = (sc.PASS(), sc.PASS(chunks="steps"), sc.PURE(), sc.GRPO(), sc.PASS(scope="process"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masks")


def rows_with_tools(seed: int) -> list[dict[str, Any]]:
    """Rows of the format with holes in their masks: groups of two to four, steps and tokens."""
    random = Random(seed)
    rows = []
    for group in range(random.randint(1, 3)):
        for _ in range(random.randint(2, 4)):
            size = random.randint(1, 12)
            mask = [random.randint(0, 1) for _ in range(size)]
            mask[random.randrange(size)] = 1
            cuts = sorted(random.sample(range(size - 1), random.randint(0, size - 1)))
            ends = [*cuts, size - 1]
            rows.append(
                {
                    "group": group,
                    "loss_mask": mask,
                    "step_ends": ends,
                    "step_scores": [round(random.random(), 3) for _ in ends],
                    "signals": {"judge": {"scores": [round(random.random(), 3) for _ in mask]}},
                    "student_logprobs": [-round(random.random(), 3) for _ in mask],
                    "tokens": [random.choice(["a ", "b.\n\n", "c"]) for _ in mask],
                    "outcome": float(random.randint(0, 1)),
                }
            )
    return rows


def masked(rows: list[dict[str, Any]], mask: Any) -> sc.Rollouts:
    """The rows as `Rollouts(mask=...)`."""
    return sc.Rollouts(
        group=[row["group"] for row in rows],
        process={
            "process": sc.Steps(
                [row["step_ends"] for row in rows], [row["step_scores"] for row in rows]
            ),
            "judge": sc.Tokens([row["signals"]["judge"]["scores"] for row in rows]),
        },
        outcome=[row["outcome"] for row in rows],
        logprobs={"student": [row["student_logprobs"] for row in rows]},
        step_ends=[row["step_ends"] for row in rows],
        tokens=[row["tokens"] for row in rows],
        mask=mask,
    )


def table(rows: list[list[Any]], fill: Any) -> list[list[Any]]:
    """Rows padded on the right."""
    width = max(map(len, rows))
    return [[*row, *[fill] * (width - len(row))] for row in rows]


def padded(rows: list[dict[str, Any]]) -> tuple[sc.Rollouts, torch.Tensor]:
    """The rows as `Rollouts.from_padded`, and its mask."""
    ids = [
        [sum(end < token for end in row["step_ends"]) for token in range(len(row["loss_mask"]))]
        for row in rows
    ]
    flags = [row["loss_mask"] for row in rows]
    mask = torch.tensor(table(flags, 0))
    judge = torch.tensor(table([row["signals"]["judge"]["scores"] for row in rows], 9.0))
    judge = judge.double()[mask.bool()]
    made = sc.Rollouts.from_padded(
        mask,
        [row["group"] for row in rows],
        step_id=torch.tensor(table(ids, -1)),
        step_scores=torch.tensor(table([row["step_scores"] for row in rows], 0.0)).double(),
        process={"judge": sc.Tokens(judge, counts=mask.sum(1))},
        outcome=[row["outcome"] for row in rows],
        logprobs={"student": torch.tensor(table([row["student_logprobs"] for row in rows], 0.0))},
        tokens=table([row["tokens"] for row in rows], ""),
    )
    return made, mask


def contents(rollouts: sc.Rollouts) -> dict[str, Any]:
    """What rollouts hold, as lists."""
    held: dict[str, Any] = {
        "index": rollouts.group_index.tolist(),
        "lengths": rollouts.lengths.tolist(),
        "outcome": rollouts.outcome.tolist(),
        "tokens": rollouts.tokens,
    }
    streams = {**rollouts.streams, "student": rollouts.logprobs["student"]}
    if rollouts.step_ends is not None:
        streams["ends"] = rollouts.step_ends
    for name, stream in streams.items():
        fields = {at: getattr(stream, at).tolist() for at in ("counts", *stream.packed)}
        held[name] = {at: pytest.approx(value, abs=1e-6) for at, value in fields.items()}
    return held


def same(one: sc.Rollouts, other: sc.Rollouts) -> None:
    """Both hold the same."""
    left, right = contents(one), contents(other)
    assert left.keys() == right.keys()
    for name in left:
        if not isinstance(left[name], dict):
            assert left[name] == right[name], name
            continue
        for at in left[name]:
            assert left[name][at].expected == right[name][at], (name, at)


@given(st.integers(0, 2**20))
@examples(40)
def test_a_mask_gives_what_a_file_and_padded_tensors_give(folder: Path, seed: int) -> None:
    rows = rows_with_tools(seed)
    path = folder / "rows.jsonl"
    sc.write_rollouts(path, rows)
    with sc.RolloutFile(path) as file:
        read = file.fold(list, lambda found, batch: [*found, batch.rollouts])
    flags = [row["loss_mask"] for row in rows]
    ours, (tensors, _) = masked(rows, flags), padded(rows)
    assert len(read) == 1
    same(ours, read[0])
    same(ours, tensors)
    assert ours.left_out == read[0].left_out == tensors.left_out


@given(st.integers(0, 2**20), st.sampled_from(METHODS))
@examples(40)
def test_advantages_go_back_to_the_response(folder: Path, seed: int, method: sc.Estimator) -> None:
    rows = rows_with_tools(seed)
    Random(seed).shuffle(rows)  # groups in any order
    path, out = folder / "in.jsonl", folder / "out.jsonl"
    sc.write_rollouts(path, rows)
    with sc.RolloutFile(path) as file:
        file.shape(out, method)
    shaped = [json.loads(line)["advantages"] for line in out.read_text().splitlines()]
    tensors, mask = padded(rows)
    tables = method(tensors).padded(mask)
    found = method(masked(rows, [row["loss_mask"] for row in rows])).on_response()
    for row, ours, theirs, dense in zip(rows, found, shaped, tables, strict=True):
        assert ours.tolist() == pytest.approx(theirs, abs=1e-6)
        assert ours.tolist() == pytest.approx(dense[: len(row["loss_mask"])].tolist(), abs=1e-6)
        assert not ours[~torch.tensor(row["loss_mask"]).bool()].any()


@given(st.integers(0, 2**20))
@examples(20)
def test_the_mask_may_be_a_padded_table(seed: int) -> None:
    rows = rows_with_tools(seed)
    flags = [row["loss_mask"] for row in rows]
    lists = masked(rows, flags)
    for mask in (
        torch.tensor(table(flags, 0)),
        torch.tensor(table(flags, 0)).bool(),
        np.array(table(flags, 0)),
        torch.tensor(table([[*row, 0, 0] for row in flags], 0)),
    ):
        other = masked(rows, mask)
        same(lists, other)
        assert other.response_mask is not None
        assert lists.response_mask is not None
        assert torch.equal(other.response_mask.values, lists.response_mask.values)


def test_take_blocks_and_to_keep_the_mask() -> None:
    rows = rows_with_tools(7)
    rollouts = masked(rows, [row["loss_mask"] for row in rows])
    order = list(range(len(rows)))[::-1]
    taken = sc.GRPO()(rollouts.take(order)).on_response()
    for row, values in zip(order, taken, strict=True):
        assert len(values) == len(rows[row]["loss_mask"])
    blocks = [len(row) for b in rollouts.blocks(1) for row in sc.GRPO()(b).on_response()]
    assert blocks == [len(row["loss_mask"]) for row in rows]
    assert sc.GRPO()(rollouts.to("cpu")).to("cpu").response_mask is not None


def test_without_a_mask_all_tokens_are_trained() -> None:
    rollouts = sc.Rollouts(["q", "q"], [2, 3], outcome=[1.0, 0.0])
    assert rollouts.response_mask is None
    advantages = sc.GRPO()(rollouts)
    assert [row.tolist() for row in advantages.on_response()] == [
        row.tolist() for row in advantages.ragged()
    ]


@given(st.integers(0, 2**20))
@examples(10)
def test_a_mask_that_trains_every_token_changes_nothing(seed: int) -> None:
    rows = rows_with_tools(seed)
    full = [[1] * len(row["loss_mask"]) for row in rows]
    lists, table_ = masked(rows, full), masked(rows, torch.tensor(table(full, 0)))
    plain = masked(rows, None)
    for other in (lists, table_):
        same(plain, other)
        assert other.left_out == 0
        assert other.response_mask is not None
        assert other.response_mask.counts.tolist() == plain.lengths.tolist()


def test_a_row_that_nothing_tells_ends_with_its_last_trained_token() -> None:
    rollouts = sc.Rollouts(
        [0, 0], outcome=[1.0, 0.0], mask=torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]])
    )
    assert [len(row) for row in sc.GRPO()(rollouts).on_response()] == [3, 2]
    assert rollouts.lengths.tolist() == [2, 1]


STEPS = sc.Steps(ends=[[1, 3]], scores=[[0.5, 0.25]])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            {"process": STEPS, "mask": [[1, 1, 0]]},
            "row 0: process: last step ends at 3, but the response's last token is 2",
        ),
        (
            {"process": STEPS, "mask": torch.tensor([[1, 1, 0]])},
            "row 0: mask: 3 tokens, the last trained one at 1, but the streams have 4 tokens",
        ),
        (
            {"process": STEPS, "mask": torch.tensor([[1, 0, 0, 0, 1]])},
            "row 0: mask: 5 tokens, the last trained one at 4, but the streams have 4 tokens",
        ),
        (
            {"process": sc.Tokens([[1.0, 2.0]]), "mask": [[1, 1, 0]]},
            "row 0: process: 2 values, but 3 tokens",
        ),
        (
            {"process": STEPS, "mask": [[0, 0, 0, 0]]},
            "row 0: mask: a response needs at least one trained token",
        ),
        (
            {"process": STEPS, "mask": [[1, 1, 1, 1]], "lengths": [3]},
            "row 0: length: 3, but the mask trains 4 tokens",
        ),
        ({"process": STEPS, "mask": [[1, 1], [1, 1]]}, "mask: 2 rows, but 1 rollouts"),
        ({"process": STEPS, "mask": [[1, 2, 0, 1]]}, "row 0: mask: 2.0 is neither 0 nor 1"),
        ({"process": STEPS, "mask": [[1, "x"]]}, "row 0: mask: 'x' is not a number"),
        ({"process": STEPS, "mask": 3}, "mask: expected one row of flags per rollout, got int"),
        ({"process": STEPS, "mask": [3]}, "row 0: mask: expected a list of flags, got int"),
        (
            {"process": STEPS, "mask": torch.tensor([1, 1])},
            "mask: shape is (2,), expected (rollouts, tokens)",
        ),
    ],
)
def test_what_does_not_fit_the_mask_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(RolloutError) as refused:
        sc.Rollouts(["q"], **arguments)
    assert str(refused.value) == reason


def test_the_forms_of_the_change_agree() -> None:
    mask = [1, 0, 0, 1, 0, 1, 0]
    ends, scores = [0, 2, 4, 6], [0.1, 0.2, 0.3, 0.4]
    trained = torch.tensor([mask]).bool()
    by_row = row_steps_to_trained(ends, scores, mask)
    packed = stream_to_trained(sc.Steps([ends], [scores]), trained)
    bare = step_ends_to_trained(
        Stream._of(values=torch.tensor(ends), counts=torch.tensor([4])), trained
    )
    assert packed.ends.tolist() == bare.values.tolist() == by_row[0] == [0, 1, 2]
    assert packed.values.tolist() == by_row[1] == [0.1, 0.3, 0.4]
    assert ends_to_response(packed.ends, trained[0]) == [0, 3, 6]
    back = row_tokens_to_response(np.array([1.0, 2.0, 3.0]), mask)
    assert back.tolist() == [1.0, 0.0, 0.0, 2.0, 0.0, 3.0, 0.0]


def test_reprs_are_one_line_that_a_person_can_read() -> None:
    rollouts = sc.Rollouts(
        group=[0, 0, 1],
        process={"process": sc.Steps([[1], [2], [1]], [[1.0], [0.5], [0.25]]), "gae": AHEAD},
        outcome=[1.0, 0.0, 1.0],
        format=[1.0, 1.0, 1.0],
        logprobs={"teacher": [[-1.0] * 2, [-1.0] * 3, [-2.0] * 2]},
    )
    held = "process: steps, gae: advantages, teacher_logprobs, outcome, format"
    assert repr(rollouts) == f"Rollouts(3 responses in 2 groups, 7 tokens; {held})"
    many = sc.Rollouts(group=[0] * 2, lengths=[20_000, 11_204])
    assert repr(many) == "Rollouts(2 responses in 1 group, 31,204 tokens)"
    assert repr(rollouts.streams["process"]) == "Steps(3 values for 3 responses, from 0.25 to 1)"
    assert repr(sc.Tokens([[]])) == "Tokens(0 values for 1 response)"
    advantages = sc.GRPO(eps=0.0, ddof=0)(rollouts)
    assert repr(advantages) == "Advantages(3 responses, 7 tokens, from -1 to 1)"


AHEAD = sc.TokenAdvantages([[0.5, 0.5], [0.5] * 3, [1.0, 1.0]])
