"""The same contract for the stages that estimators are made of: tables in, tables out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import Rows, batches, build, examples, score
from tests.reference.chunkers import best_segmentation, segmentation_cost

from stepcredit.credit.stages import chunkers, chunks, returns
from stepcredit.credit.stages import fusion as streams
from stepcredit.credit.stages.groups import (
    OPERATORS,
    Group,
    standardize,
    weighted_mean,
    weighted_std,
)
from stepcredit.data.forest import slot_mask, to_dense
from stepcredit.data.inputs import RolloutValues
from stepcredit.data.slots import Slots, slots_of

ULP = 2.0**-23
few = examples(25)


@dataclass(frozen=True)
class Table:
    """A dense table of scores (rollout, slot), its mask, and the group of each row."""

    values: torch.Tensor
    mask: torch.Tensor
    index: torch.Tensor

    @property
    def group(self) -> Group:
        return Group(self.index, int(self.index.max()) + 1)

    def take(self, rows: list[int]) -> Table:
        _, index = torch.unique(self.index[rows], return_inverse=True)
        return Table(self.values[rows], self.mask[rows], index)

    def widened(self, columns: int) -> Table:
        pad = partial(torch.nn.functional.pad, pad=(0, columns))
        return Table(pad(self.values), pad(self.mask), self.index)


def table_of(sizes: list[int], kind: str, seed: int) -> Table:
    rng = Random(seed)
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(groups)
    counts = torch.tensor([rng.randint(1, 6) for _ in groups])
    flat = torch.tensor([score(rng, kind) for _ in range(int(counts.sum()))], dtype=torch.float64)
    return Table(to_dense(flat, counts), slot_mask(counts, int(counts.max())), torch.tensor(groups))


def tables(*kinds: str) -> st.SearchStrategy[Table]:
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    return st.builds(table_of, sizes, st.sampled_from(kinds), st.integers(0, 2**20))


def _std(table: Table) -> torch.Tensor:
    weight = table.mask.double()
    return table.group.to_rows(weighted_std(table.values, weight, table.group)) * weight


def _mean(table: Table) -> torch.Tensor:
    weight = table.mask.double()
    return table.group.to_rows(weighted_mean(table.values, weight, table.group)[0]) * weight


def _divided(table: Table, k: float) -> torch.Tensor:
    power = returns.residual(table.mask.sum(1), table.mask.shape[1], k)[1]
    return returns.divide_length(returns.return_to_go(table.values), power)


def _discounted(table: Table, gamma: float) -> torch.Tensor:
    """Every second slot of a row ends a chunk, and its last one."""
    columns = torch.arange(table.mask.shape[1])
    last = columns == table.mask.sum(1, keepdim=True) - 1
    chunk_ends = table.mask & ((columns % 2 == 1) | last)
    return returns.return_to_go(table.values, chunk_ends, gamma) * table.mask


def _standardized(table: Table, operator: str) -> torch.Tensor:
    return standardize(table.values, table.mask, table.group, operator)


def _min_form(table: Table, temperature: float) -> torch.Tensor:
    return returns.min_form(table.values, table.mask, table.group, temperature)


def _future_min(table: Table) -> torch.Tensor:
    return returns.future_min(table.values, table.mask)


def _scalars(table: Table, gate: bool) -> torch.Tensor:
    """Outcome and format are the first column, standardized and fused; gated where positive."""
    known = torch.ones(len(table.index), dtype=torch.bool)
    scalar = RolloutValues(table.values[:, 0], known)
    z = streams.standardize_scalar(scalar, table.group, "masked_norm", ddof=1, eps=1e-6)
    gated = (table.values[:, 0] > 0) & gate
    fused = streams.fuse_scalars(z, 0.5 * z, gated, {"process": 1.0, "outcome": 1.0, "format": 2.0})
    return fused * table.mask


def _process(table: Table) -> torch.Tensor:
    counts = table.mask.sum(1)
    columns = torch.arange(table.mask.shape[1]).expand(table.mask.shape)
    slots = Slots(counts, counts, columns.minimum(counts[:, None] - 1))
    z = _standardized(table, "masked_norm")
    gated = table.values[:, 0] > 0
    return streams.fuse_process({"process": z}, {"process": 2.0}, slots, gated)


STAGES: dict[str, Callable[[Table], torch.Tensor]] = {
    **{f"standardize-{name}": partial(_standardized, operator=name) for name in OPERATORS},
    "weighted-mean": _mean,
    "weighted-std": _std,
    "divide-length-k0": partial(_divided, k=0.0),
    "divide-length-k0.7": partial(_divided, k=0.7),
    "divide-length-k1": partial(_divided, k=1.0),
    "return-gamma0": partial(_discounted, gamma=0.0),
    "return-gamma0.9": partial(_discounted, gamma=0.9),
    "fuse-scalars": partial(_scalars, gate=False),
    "fuse-scalars-gated": partial(_scalars, gate=True),
    "fuse-process": _process,
    "min-form": partial(_min_form, temperature=0.1),
    "min-form-strict": partial(_min_form, temperature=0.0),
    "future-min": _future_min,
}
every_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
ANY = tables("tenths", "thirds", "real", "negative", "equal")


def assert_unmoved(table: Table, got: torch.Tensor, want: torch.Tensor) -> None:
    for g in range(table.group.count):
        mine = table.index == g
        scale = float(want[mine].abs().max())
        assert float((got[mine] - want[mine]).abs().max()) <= ULP * scale


@every_stage
@few
@given(table=ANY, seed=st.integers(0, 1000), columns=st.integers(1, 40))
def test_order_labels_and_width_change_nothing(
    stage: Callable[[Table], torch.Tensor], table: Table, seed: int, columns: int
) -> None:
    rows = len(table.index)
    order = Random(seed).sample(range(rows), rows)
    names = torch.tensor(Random(seed).sample(range(rows + 3), table.group.count))
    moved = Table(table.values[order], table.mask[order], names[table.index[order]])
    want = stage(table)
    assert_unmoved(table.take(order), stage(moved), want[order])
    wide = stage(table.widened(columns))
    assert not wide[:, want.shape[1] :].any()
    assert_unmoved(table, wide[:, : want.shape[1]], want)


@every_stage
@few
@given(table=ANY, seed=st.integers(0, 1000))
def test_a_group_alone_gives_what_it_gives_beside_others(
    stage: Callable[[Table], torch.Tensor], table: Table, seed: int
) -> None:
    mine = [row for row, g in enumerate(table.index.tolist()) if g == 0]
    part = table.take(mine)
    assert_unmoved(part, stage(part), stage(table)[mine])
    loud = torch.where(table.mask, 1e30, 0.0)
    quiet = table.index[:, None] == 0
    beside = Table(torch.where(quiet, table.values, loud), table.mask, table.index)
    assert_unmoved(part, stage(beside)[mine], stage(part))


@every_stage
@few
@given(table=tables("tenths", "equal", "extreme"))
def test_stages_are_finite_zero_off_the_mask_and_leave_their_input(
    stage: Callable[[Table], torch.Tensor], table: Table
) -> None:
    before = [tensor.clone() for tensor in (table.values, table.mask, table.index)]
    out = stage(table)
    assert out.dtype == torch.float64
    assert bool(out.isfinite().all())
    assert not out[~table.mask].any()
    for tensor, copy in zip((table.values, table.mask, table.index), before, strict=True):
        assert torch.equal(tensor, copy)


@every_stage
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@few
@given(table=ANY)
def test_gpu_gives_what_the_cpu_gives(stage: Callable[[Table], torch.Tensor], table: Table) -> None:
    moved = Table(table.values.cuda(), table.mask.cuda(), table.index.cuda())
    want = stage(table)
    assert float((stage(moved).cpu() - want).abs().max()) <= 1e-6 * float(want.abs().max())


CHUNKERS: dict[str, Callable[[chunks.LeadStream], chunks.Chunks]] = {
    "runs": chunkers.runs,
    "tokens": chunkers.tokens,
    "group_runs": chunkers.group_runs,
    "sign_runs": chunkers.sign_runs,
    "change_points": partial(chunkers.change_points, penalty=0.7),
    "change_points-of-1": partial(chunkers.change_points, penalty=0.7, min_tokens=1),
    "change_points-squared": partial(chunkers.change_points, penalty=0.7, cost="squared"),
    "windows": partial(chunkers.windows, size=3),
    "cut_points": partial(chunkers.cut_points, below=0.6, per_chunk=2),
}
every_chunker = pytest.mark.parametrize("rule", CHUNKERS.values(), ids=CHUNKERS.keys())


def signal_of(rows: Rows) -> chunks.LeadStream:
    rollouts = build(rows)
    stream, group = rollouts.streams["process"], Group(rollouts.group_index, rollouts.num_groups)
    slots = slots_of(stream, rollouts.lengths)
    raw = to_dense(stream.values.double(), stream.counts, width=slots.width)
    mask = slot_mask(stream.counts, slots.width)
    z = standardize(raw, mask, group)
    return chunks.LeadStream(raw, z, mask, slots, group, rollouts)


def ends_of(rule: Callable[[chunks.LeadStream], chunks.Chunks], rows: Rows) -> list[list[int]]:
    """Each row's chunk ends in tokens."""
    found = rule(signal_of(rows))
    chunk_ends = found.slots.mask if found.chunk_ends is None else found.chunk_ends
    return [last[end].tolist() for last, end in zip(found.slots.last(), chunk_ends, strict=True)]


@every_chunker
@few
@given(rows=batches(signals=("steps", "tokens")), seed=st.integers(0, 1000))
def test_chunk_ends_hang_on_the_group_alone(
    rule: Callable[[chunks.LeadStream], chunks.Chunks], rows: Rows, seed: int
) -> None:
    want = ends_of(rule, rows)
    for row, ends in zip(rows, want, strict=True):
        assert ends[-1] == row["length"] - 1
        assert ends == sorted(set(ends))
    order = Random(seed).sample(range(len(rows)), len(rows))
    assert ends_of(rule, [rows[i] for i in order]) == [want[i] for i in order]
    for label in {row["group"] for row in rows}:
        mine = [i for i, row in enumerate(rows) if row["group"] == label]
        assert ends_of(rule, [rows[i] for i in mine]) == [want[i] for i in mine]


def segments_of(rows: Rows, **rule: Any) -> list[list[int]]:
    return ends_of(partial(chunkers.change_points, **rule), rows)


@few
@given(
    kind=st.sampled_from(("tenths", "real", "negative")),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    penalty=st.sampled_from((0.05, 0.3, 1.0, 3.0, 10.0)),
    min_tokens=st.sampled_from((1, 2, 4, 9)),
    cost=st.sampled_from(("squared", "absolute")),
    steps=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_change_points_cost_no_more_than_the_best_of_all_segmentations(
    kind: str,
    lengths: list[int],
    penalty: float,
    min_tokens: int,
    cost: str,
    steps: bool,
    seed: int,
) -> None:
    """Scores of tokens, or of steps of one to three tokens; no chunk has too few tokens."""
    rng = Random(seed)
    scores = [[score(rng, kind) for _ in range(length)] for length in lengths]
    sizes = [[rng.randint(1, 3) if steps else 1 for _ in u] for u in scores]
    last = [[sum(size[: j + 1]) - 1 for j in range(len(size))] for size in sizes]
    rows: Rows = [{"group": "g", "length": ends[-1] + 1} for ends in last]
    for row, u, ends in zip(rows, scores, last, strict=True):
        row |= {"step_scores": u, "step_ends": ends} if steps else {"token_scores": u}
    found = segments_of(rows, penalty=penalty, min_tokens=min_tokens, cost=cost)
    pool = torch.tensor([v for u in scores for v in u], dtype=torch.float64)
    unit = penalty * float(pool.std(correction=0)) ** (2 if cost == "squared" else 1)
    for u, size, ends, tokens in zip(scores, sizes, last, found, strict=True):
        cut = [ends.index(token) for token in tokens]
        spans = [b - a for a, b in zip([-1, *tokens[:-1]], tokens, strict=True)]
        assert len(spans) == 1 or min(spans) >= min_tokens
        best = segmentation_cost(u, best_segmentation(u, unit, size, min_tokens, cost), unit, cost)
        assert segmentation_cost(u, cut, unit, cost) <= best + 1e-8 * (1 + best)


def test_one_surprising_token_makes_no_chunk() -> None:
    """A median of four tokens is not moved by one; their mean is."""
    u = [0.0] * 10 + [-9.0] + [0.0] * 10 + [1.0] * 21
    rows: Rows = [{"group": "g", "length": len(u), "token_scores": u}]
    assert segments_of(rows) == [[20, 41]]
    assert segments_of(rows, min_tokens=1) == [[9, 10, 20, 41]]
    by_squares = segments_of(rows, cost="squared", penalty=1.0)[0]
    assert [end for end in by_squares if end < 20]


def test_many_long_rows_are_cut_as_each_of_their_groups_alone() -> None:
    """Rows are worked on a few at a time where their tables would leave the cache."""
    rng = Random(1)
    rows: Rows = [
        {"group": g, "length": 300, "token_scores": [rng.gauss(i // 100, 1.0) for i in range(300)]}
        for g in range(60)
        for _ in range(2)
    ]
    for cost in ("squared", "absolute"):
        whole = segments_of(rows, cost=cost)
        for first in (0, 54, 118):
            pair = rows[first : first + 2]
            assert segments_of(pair, cost=cost) == whole[first : first + 2]
