"""One contract for every estimator: what must change nothing, and what must never break."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.cases import CASES, Case
from tests.credit.padding import pad, padded_rollouts
from tests.credit.strategies import Rows, batches, build, examples, random_rows

import stepcredit as sc

ULP = 2.0**-23
few = examples(10)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
own_group_only = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if not case.batch_wide],
    ids=[name for name, case in CASES.items() if not case.batch_wide],
)
seeds = st.integers(0, 2**20)
Ragged = list[torch.Tensor]


def rows_for(case: Case, data: st.DataObject, **options: object) -> Rows:
    return data.draw(batches(signals=case.signals, **{**case.options, **options}))


def run(case: Case, rows: Rows, dtype: torch.dtype | None = None) -> Ragged:
    return case.estimator()(build(rows, dtype)).ragged()


def assert_unmoved(case: Case, rows: Rows, got: Ragged, want: Ragged, by: float = ULP) -> None:
    """No advantage moved by more than 2^-23 of its group's largest (the batch's, if batch-wide)."""
    labels = ["all" if case.batch_wide else row["group"] for row in rows]
    scale: dict[str, float] = {}
    for label, values in zip(labels, want, strict=True):
        scale[label] = max(scale.get(label, 0.0), float(values.abs().max()))
    for row, (label, a, b) in enumerate(zip(labels, got, want, strict=True)):
        moved = float((a.double() - b.double()).abs().max())
        assert moved <= by * scale[label], f"row {row} moved by {moved}, scale {scale[label]}"


@every_case
@few
@given(data=st.data(), seed=seeds)
def test_row_order_changes_nothing(case: Case, data: st.DataObject, seed: int) -> None:
    rows = rows_for(case, data)
    order = Random(seed).sample(range(len(rows)), len(rows))
    want = run(case, rows)
    got = run(case, [rows[i] for i in order])
    assert_unmoved(case, [rows[i] for i in order], got, [want[i] for i in order])


@every_case
@few
@given(data=st.data(), integers=st.booleans())
def test_group_labels_change_nothing(case: Case, data: st.DataObject, integers: bool) -> None:
    rows = rows_for(case, data)
    new = {row["group"]: 7 - 3 * int(row["group"][1:]) for row in rows}
    renamed = [row | {"group": new[row["group"]]} for row in rows]
    if not integers:
        renamed = [row | {"group": f"prompt {row['group']}"} for row in renamed]
    assert_unmoved(case, rows, run(case, renamed), run(case, rows))


@own_group_only
@few
@given(data=st.data())
def test_splitting_the_batch_by_groups_changes_nothing(case: Case, data: st.DataObject) -> None:
    rows = rows_for(case, data)
    whole = run(case, rows)
    for label in {row["group"] for row in rows}:
        mine = [i for i, row in enumerate(rows) if row["group"] == label]
        part = [rows[i] for i in mine]
        assert_unmoved(case, part, run(case, part), [whole[i] for i in mine])


@own_group_only
@few
@given(data=st.data(), seed=seeds, kind=st.sampled_from(("extreme", "equal", "real")))
def test_what_other_groups_hold_changes_nothing(
    case: Case, data: st.DataObject, seed: int, kind: str
) -> None:
    rows = rows_for(case, data)
    signal = _signal_of(rows) or case.signals[0]
    options = {k: v for k, v in case.options.items() if k != "gaps"}
    others = random_rows(Random(seed), [3, 1], signal, kind, **options)
    others = [row | {"group": "other " + row["group"]} for row in others]
    mixed = [*others[:2], *rows, *others[2:]]
    got = run(case, mixed)[2 : 2 + len(rows)]
    assert_unmoved(case, rows, got, run(case, rows))


def _signal_of(rows: Rows) -> str | None:
    """The kind of process signal a batch holds: one kind a stream, so its neighbours' too."""
    fields = {name for row in rows for name in row}
    kinds = {"signals": "streams", "token_scores": "tokens", "step_scores": "steps"}
    return next((kind for name, kind in kinds.items() if name in fields), None)


@every_case
@few
@given(data=st.data(), seed=seeds)
def test_padding_changes_nothing_and_is_zero(case: Case, data: st.DataObject, seed: int) -> None:
    rows = rows_for(case, data)
    want = run(case, rows)
    padded = pad(rows, Random(seed))
    out = case.estimator()(padded_rollouts(rows, padded)).padded(padded.mask)
    assert out.dtype == torch.float32
    assert out.shape == padded.mask.shape
    assert not out[~padded.mask].any()
    got = [values[mask] for values, mask in zip(out, padded.mask, strict=True)]
    assert_unmoved(case, rows, got, want)


@every_case
@few
@given(data=st.data(), extra=st.integers(0, 3))
def test_width_only_appends_zeros(case: Case, data: st.DataObject, extra: int) -> None:
    rows = rows_for(case, data)
    advantages = case.estimator()(build(rows))
    width = max(row["length"] for row in rows) + extra
    out = advantages.padded(width=width)
    assert out.shape == (len(rows), width)
    for values, want in zip(out, advantages.ragged(), strict=True):
        assert torch.equal(values[: want.numel()], want)
        assert not values[want.numel() :].any()


@every_case
@few
@given(data=st.data(), dtype=st.sampled_from((torch.float64, torch.float32, torch.bfloat16)))
def test_inputs_are_left_unchanged(case: Case, data: st.DataObject, dtype: torch.dtype) -> None:
    rows = rows_for(case, data)
    rollouts = build(rows, dtype)
    before = _tensors(rollouts)
    copies = {name: tensor.clone() for name, tensor in before.items()}
    case.estimator()(rollouts)
    case.estimator().explain(rollouts)
    after = _tensors(rollouts)
    assert after.keys() == copies.keys()
    for name, tensor in after.items():
        assert tensor is before[name], name
        assert torch.equal(tensor, copies[name]), name


def _tensors(rollouts: sc.Rollouts) -> dict[str, torch.Tensor]:
    plain = ("group_index", "lengths", "outcome", "format", "format_ok")
    out = {name: getattr(rollouts, name) for name in plain}
    for name, stream in {**rollouts.streams, **rollouts.logprobs}.items():
        for part, value in vars(stream).items():
            if isinstance(value, torch.Tensor):
                out[f"{name}.{part}"] = value
    return out


@every_case
@few
@given(
    data=st.data(),
    dtype=st.sampled_from((None, torch.float64, torch.float32, torch.bfloat16, torch.float16)),
    kind=st.sampled_from(("tenths", "equal", "extreme")),
    max_length=st.sampled_from((1, 6)),
    max_size=st.sampled_from((1, 3)),
)
def test_degenerate_groups_give_finite_numbers(
    case: Case,
    data: st.DataObject,
    dtype: torch.dtype | None,
    kind: str,
    max_length: int,
    max_size: int,
) -> None:
    """Groups of one, equal values, one-token responses, 1e30 beside 1e-30, half precision."""
    if dtype == torch.float16 and kind == "extreme":
        kind = "equal"
    rows = rows_for(case, data, kinds=(kind,), max_length=max_length, max_size=max_size)
    for values, row in zip(run(case, rows, dtype), rows, strict=True):
        assert values.shape == (row["length"],)
        assert bool(values.isfinite().all())


@every_case
@few
@given(data=st.data(), dtype=st.sampled_from((torch.bfloat16, torch.float16, torch.float32)))
def test_half_precision_inputs_are_read_at_their_own_value(
    case: Case, data: st.DataObject, dtype: torch.dtype
) -> None:
    """Statistics run in float64 whatever comes in."""
    rows = rows_for(case, data, kinds=("tenths", "real"))
    rounded = build(rows, dtype)
    wide = build(rows, torch.float64)
    exact = wide.with_streams({n: _widened(s) for n, s in rounded.streams.items()})
    exact = exact.replaced(
        logprobs={n: _widened(s) for n, s in rounded.logprobs.items()},
        outcomes=rounded.outcomes,
        formats=rounded.formats,
    )
    got, want = (case.estimator()(r).ragged() for r in (rounded, exact))
    assert_unmoved(case, rows, got, want)


def _widened(stream: sc.Tokens) -> sc.Tokens:
    values = stream.values.double()
    if isinstance(stream, sc.Steps):
        return sc.Steps(ends=stream.ends, scores=values, counts=stream.counts)
    return type(stream)(values, stream.counts)


@every_case
@few
@given(data=st.data())
def test_explain_ends_in_the_estimator_bit_for_bit(case: Case, data: st.DataObject) -> None:
    rows = rows_for(case, data)
    rollouts = build(rows)
    estimator = case.estimator()
    explanation = estimator.explain(rollouts)
    want = estimator(rollouts)
    assert torch.equal(explanation.advantages.packed(), want.packed())
    rebuilt: list[list[float]] = [[] for _ in rows]
    for chunk in explanation.rows:
        told = rebuilt[chunk["rollout"]]
        assert chunk["first"] == len(told)
        told += [chunk["advantage"]] * (chunk["last"] + 1 - chunk["first"])
    for values, told in zip(want.ragged(), rebuilt, strict=True):
        assert values.tolist() == told


@every_case
def test_explain_prints_every_chunk(case: Case) -> None:
    rows = random_rows(Random(5), [2, 1], case.signals[0], **case.options)
    explanation = case.estimator().explain(build(rows))
    printed = str(explanation)
    assert "advantage" in printed
    assert len(printed.splitlines()) >= len(explanation.rows)


@every_case
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@few
@given(data=st.data())
def test_gpu_gives_what_the_cpu_gives(case: Case, data: st.DataObject) -> None:
    rows = rows_for(case, data)
    rollouts = build(rows)
    on_gpu = case.estimator()(rollouts.to("cuda"))
    assert on_gpu.packed().device.type == "cuda"
    got = [values.cpu() for values in on_gpu.ragged()]
    assert_unmoved(case, rows, got, case.estimator()(rollouts).ragged(), by=1e-6)
