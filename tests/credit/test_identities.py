"""The identities that hold between methods, each with its condition."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import Rows, batches, build, examples, random_rows

import stepcredit as sc

few = examples(40)
CHUNKS = ("auto", "runs", "tokens")
CENTRING = ("masked_norm", "center", "leave_one_out")
FOUR = ("masked_norm", "center", "leave_one_out", "abs_max")


def run(estimator: sc.Estimator, rows: Rows) -> torch.Tensor:
    return estimator(build(rows)).packed().double()


def assert_same(got: torch.Tensor, want: torch.Tensor, tolerance: float = 1e-6) -> None:
    """Equal up to `tolerance` of the largest |value|, or of 1 where all are smaller."""
    scale = max(1.0, float(want.abs().max()))
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * scale


def one_step(rows: Rows) -> Rows:
    """The same rows, each a single step with its first score."""
    return [
        row | {"step_ends": [row["length"] - 1], "step_scores": row["step_scores"][:1]}
        for row in rows
    ]


@few
@given(rows=batches(outcome="known"), chunks=st.sampled_from(CHUNKS))
def test_pass_of_the_outcome_at_k1_is_grpo(rows: Rows, chunks: str) -> None:
    """Condition: gate off."""
    ours = sc.PASS(weights=(0, 1, 0), k=1.0, chunks=chunks, gate=False)
    assert_same(run(ours, rows), run(sc.GRPO(), rows))


@few
@given(rows=batches(outcome="known", gate=False), chunks=st.sampled_from(CHUNKS))
def test_pass_of_the_outcome_at_k1_is_grpo_where_all_keep_their_format(
    rows: Rows, chunks: str
) -> None:
    """Condition: every format_ok is true, gate on."""
    ours = sc.PASS(weights=(0, 1, 0), k=1.0, chunks=chunks)
    assert_same(run(ours, rows), run(sc.GRPO(), rows))


@few
@given(
    rows=batches(outcome="known"),
    chunks=st.sampled_from(CHUNKS),
    k=st.sampled_from((0.0, 0.3, 0.7, 1.0, 2.0)),
)
def test_pass_of_the_outcome_in_process_scope_is_grpo_for_every_k(
    rows: Rows, chunks: str, k: float
) -> None:
    """Condition: gate off, scope=process."""
    ours = sc.PASS(weights=(0, 1, 0), k=k, chunks=chunks, gate=False, scope="process")
    assert_same(run(ours, rows), run(sc.GRPO(), rows))


def test_pass_of_the_outcome_is_not_grpo_at_another_k() -> None:
    """The condition k = 1 matters: below it the outcome accumulates over chunks."""
    rows = random_rows(Random(0), [4], outcome="known", gate=False, steps=3)
    plain = run(sc.GRPO(), rows)
    assert float((run(sc.PASS(weights=(0, 1, 0), k=0.0), rows) - plain).abs().max()) > 0.1


@few
@given(
    rows=batches(signals=("steps",)).map(one_step),
    chunks=st.sampled_from(("steps", "runs")),
    k=st.sampled_from((0.0, 0.7, 1.0)),
    operator=st.sampled_from(FOUR),
)
def test_with_one_step_a_response_chunks_and_division_change_nothing(
    rows: Rows, chunks: str, k: float, operator: str
) -> None:
    """The fused value is left: the sum of what each stream gives alone."""
    weights = {"process": 1.0, "outcome": 0.5, "format": 0.25}
    got = run(sc.PASS(weights=weights, operator=operator, k=k, chunks=chunks, gate=False), rows)
    alone = [
        run(sc.PASS(weights={n: w}, operator=operator, k=1.0, scope="process", gate=False), rows)
        for n, w in weights.items()
    ]
    assert_same(got, sum(alone, torch.zeros_like(got)))


@few
@given(rows=batches(signals=("steps",), outcome="known").map(one_step))
def test_with_one_step_a_response_the_process_is_standardized_like_an_outcome(rows: Rows) -> None:
    got = run(sc.PASS(weights=(1, 0, 0), gate=False), rows)
    as_outcome = [row | {"outcome": row["step_scores"][0]} for row in rows]
    assert_same(got, run(sc.GRPO(), as_outcome))


@few
@given(rows=batches(signals=("steps",)), chunks=st.sampled_from(("steps", "runs", "tokens")))
def test_the_mean_over_a_step_is_its_score(rows: Rows, chunks: str) -> None:
    """Condition: one process stream, of steps, and no chunk across unequal ones."""
    assert_same(run(sc.PASS(read="mean", chunks=chunks), rows), run(sc.PASS(chunks=chunks), rows))


@few
@given(rows=batches(signals=("steps", "tokens")), how=st.sampled_from(("mean", "sum")))
def test_over_one_token_mean_and_sum_are_its_value(rows: Rows, how: str) -> None:
    assert_same(run(sc.PASS(read=how, chunks="tokens"), rows), run(sc.PASS(chunks="tokens"), rows))


@few
@given(rows=batches(signals=("steps", "tokens"), gaps=True))
def test_over_one_chunk_the_sum_is_the_mean_times_its_tokens(rows: Rows) -> None:
    settings: dict[str, Any] = {"weights": (1, 0, 0), "chunks": {"windows": {"size": 99}}}
    mean = sc.PASS(read="mean", gate=False, **settings)(build(rows)).ragged()
    total = sc.PASS(read="sum", gate=False, **settings)(build(rows)).ragged()
    for row, m, t in zip(rows, mean, total, strict=True):
        assert_same(t.double(), row["length"] * m.double(), 1e-5)


@few
@given(
    rows=batches(),
    chunks=st.sampled_from(CHUNKS),
    scope=st.sampled_from(("fused", "process")),
    match_std=st.booleans(),
)
def test_a_discount_of_hardly_anything_is_none(
    rows: Rows, chunks: str, scope: str, match_std: bool
) -> None:
    """The discounted sum is made another way than the plain one."""
    settings: dict[str, Any] = {"chunks": chunks, "scope": scope, "match_std": match_std}
    got = run(sc.PASS(gamma=1 - 1e-12, **settings), rows)
    assert_same(got, run(sc.PASS(**settings), rows))


@few
@given(rows=batches(signals=("steps",)))
def test_at_gamma_0_each_step_gets_its_own_value(rows: Rows) -> None:
    """Condition: k = 0."""
    method = sc.PASS(gamma=0.0, k=0.0)
    explained = method.explain(build(rows))
    assert_same(explained.advantage.double(), explained.stages["fused"].double())


@few
@given(rows=batches(outcome="known"), gamma=st.sampled_from((0.0, 0.5, 0.99)))
def test_the_outcome_in_process_scope_is_not_discounted(rows: Rows, gamma: float) -> None:
    """Condition: gate off."""
    ours = sc.PASS(weights=(0, 1, 0), scope="process", gamma=gamma, gate=False)
    assert_same(run(ours, rows), run(sc.GRPO(), rows))


@few
@given(rows=batches(signals=("steps",)))
def test_pass_of_the_process_at_k0_is_grpo_process_on_steps(rows: Rows) -> None:
    """Condition: gate off, chunks steps."""
    ours = sc.PASS(weights=(1, 0, 0), k=0.0, chunks="steps", gate=False)
    assert_same(run(ours, rows), run(sc.ProcessGRPO(weights=(1, 0, 0)), rows))


@few
@given(rows=batches(signals=("tokens",)))
def test_pass_of_the_process_at_k0_is_grpo_process_on_tokens(rows: Rows) -> None:
    """Condition: gate off, a token signal, chunks tokens."""
    ours = sc.PASS(weights=(1, 0, 0), k=0.0, chunks="tokens", gate=False)
    assert_same(run(ours, rows), run(sc.ProcessGRPO(weights=(1, 0, 0)), rows))


@few
@given(
    rows=batches(signals=("steps",)).map(one_step),
    temperature=st.sampled_from((0, 0.01, 0.1, 1.0, 10.0)),
)
def test_pure_with_one_step_and_no_outcome_is_rloo_on_that_step(
    rows: Rows, temperature: float
) -> None:
    """Condition: baseline rollout, any temperature."""
    blank = [row | {"outcome": None} for row in rows]
    as_outcome = [row | {"outcome": row["step_scores"][0]} for row in rows]
    ours = sc.PURE(baseline="rollout", temperature=temperature)
    assert_same(run(ours, blank), run(sc.RLOO(), as_outcome))


def first_tokens(estimator: sc.Estimator, rows: Rows) -> torch.Tensor:
    return torch.stack([row[0] for row in estimator(build(rows)).ragged()]).double()


@few
@given(rows=batches(signals=("steps",), kinds=("tenths", "real", "negative")))
def test_future_min_at_the_first_step_is_the_strict_minimum(rows: Rows) -> None:
    """Condition: baseline rollout."""
    ours = sc.PURE(form="future_min", baseline="rollout")
    strict = sc.PURE(temperature=0, baseline="rollout")
    assert_same(first_tokens(ours, rows), first_tokens(strict, rows))


@few
@given(rows=batches(signals=("steps",)))
def test_the_sum_form_at_the_first_step_is_rloo_of_the_sums(rows: Rows) -> None:
    """Condition: baseline rollout, no outcome."""
    blank = [row | {"outcome": None} for row in rows]
    as_outcome = [row | {"outcome": sum(row["step_scores"])} for row in rows]
    ours = sc.PURE(form="sum", baseline="rollout")
    assert_same(first_tokens(ours, blank), first_tokens(sc.RLOO(), as_outcome))


@few
@given(rows=batches(signals=("steps",)).map(one_step), form=st.sampled_from(("future_min", "sum")))
def test_every_form_of_pure_with_one_step_is_the_same(rows: Rows, form: str) -> None:
    ours = sc.PURE(form=form, baseline="rollout")
    assert_same(run(ours, rows), run(sc.PURE(baseline="rollout"), rows))


@few
@given(
    rows=batches(signals=("steps",)),
    temperature=st.sampled_from((0, 0.1, 1.0)),
    operator=st.sampled_from(FOUR),
)
def test_pass_min_without_known_outcomes_has_no_outcome_in_the_minimum(
    rows: Rows, temperature: float, operator: str
) -> None:
    blank = [row | {"outcome": None} for row in rows]
    of_steps = sc.PASSMin(temperature=temperature, operator=operator, outcome_in_min=0)
    ours = sc.PASSMin(temperature=temperature, operator=operator, outcome_in_min=3.0)
    assert_same(run(ours, blank), run(of_steps, blank))


@few
@given(rows=batches(signals=("none",)), weight=st.sampled_from((0.5, 1.0)))
def test_prime_normalized_over_the_batch_is_prime_at_that_beta(rows: Rows, weight: float) -> None:
    """beta = 1 / the largest |sum to the end| of the batch's log-ratios."""
    largest = 0.0
    for row in rows:
        ratios = [a - b for a, b in zip(row["prm_logprobs"], row["ref_logprobs"], strict=True)]
        largest = max(largest, *(abs(sum(ratios[t:])) for t in range(len(ratios))))
    ours = sc.PRIME(norm="batch", process_weight=weight, whiten_batch=False)
    fixed = sc.PRIME(beta=1 / (largest or 1.0), process_weight=weight, whiten_batch=False)
    assert_same(run(ours, rows), run(fixed, rows))


@few
@given(rows=batches(signals=("none",)), coefficient=st.sampled_from((0.5, 1.0, 3.0)))
def test_g_opd_at_lambda_one_is_opd_for_any_base(rows: Rows, coefficient: float) -> None:
    ours = sc.GOPD(coefficient=coefficient, lam=1.0)
    assert_same(run(ours, rows), run(sc.OPD(coefficient=coefficient), rows))


@few
@given(
    seed=st.integers(0, 1000),
    steps=st.integers(2, 5),
    size=st.integers(2, 5),
    alpha=st.sampled_from((0.1, 1.0)),
)
def test_adca_is_pass_in_process_scope_at_k0(
    seed: int, steps: int, size: int, alpha: float
) -> None:
    """Condition: equal step counts, ddof 0; up to eps, so real scores of unit spread."""
    rows = random_rows(Random(seed), [size, 2], kind="real", outcome="known", steps=steps)
    weights = (alpha, 1, 0)
    ours = sc.PASS(scope="process", k=0.0, weights=weights, ddof=0, eps=0.0, gate=False)
    assert_same(run(ours, rows), run(sc.ADCA(alpha=alpha), rows), 1e-4)


INVARIANT: dict[str, sc.Estimator] = {
    "pass": sc.PASS(),
    "pass-process-scope": sc.PASS(scope="process", match_std=True, recenter=True),
    "pass-min": sc.PASSMin(),
    "pure": sc.PURE(),
    "grpo-process": sc.ProcessGRPO(),
    "pure-future-min": sc.PURE(form="future_min", baseline="rollout"),
    "turn-return": sc.TurnReturn(gamma=0.9),
    "prime": sc.PRIME(),
    "prime-batch": sc.PRIME(norm="batch"),
    "gdpo": sc.GDPO(),
}


@pytest.mark.parametrize("name", INVARIANT)
@few
@given(rows=batches(signals=("steps", "tokens")), seed=st.integers(0, 1000))
def test_permuting_responses_permutes_and_relabelling_changes_nothing(
    name: str, rows: Rows, seed: int
) -> None:
    order = Random(seed).sample(range(len(rows)), len(rows))
    before = INVARIANT[name](build(rows)).ragged()
    moved = [rows[i] | {"group": f"z{9 - int(rows[i]['group'][1:])}"} for i in order]
    after = INVARIANT[name](build(moved)).ragged()
    for place, i in enumerate(order):
        assert_same(after[place].double(), before[i].double())


def shifted(rows: Rows, by: float) -> Rows:
    """A constant added to process, outcome and format."""
    return mapped(rows, lambda v: v + by)


def mapped(rows: Rows, change: Any) -> Rows:
    out = []
    for row in rows:
        new = dict(row)
        for name in ("outcome", "format"):
            if row.get(name) is not None:
                new[name] = change(row[name])
        for name in ("step_scores", "token_scores"):
            if name in row:
                new[name] = [change(v) for v in row[name]]
        out.append(new)
    return out


@few
@given(
    rows=batches(signals=("steps", "tokens"), kinds=("tenths", "real", "equal")),
    operator=st.sampled_from(CENTRING),
    by=st.sampled_from((-2.0, 0.7, 5.0)),
)
def test_adding_a_constant_to_the_streams_changes_nothing(
    rows: Rows, operator: str, by: float
) -> None:
    """Condition: an operator that subtracts a mean."""
    ours = sc.PASS(operator=operator)
    assert_same(run(ours, shifted(rows, by)), run(ours, rows))


def test_adding_a_constant_matters_under_abs_max() -> None:
    rows = random_rows(Random(3), [4], outcome="known", gate=False)
    ours = sc.PASS(operator="abs_max")
    assert float((run(ours, shifted(rows, 2.0)) - run(ours, rows)).abs().max()) > 0.1


@few
@given(
    rows=batches(signals=("steps", "tokens")),
    by=st.sampled_from((2.0**-20, 0.5, 4.0, 2.0**20)),
)
def test_scaling_changes_nothing_under_abs_max(rows: Rows, by: float) -> None:
    """Exactly, for a power of two: multiplication by it rounds nothing."""
    ours = sc.PASS(operator="abs_max", chunks="steps" if "step_scores" in rows[0] else "auto")
    assert torch.equal(run(ours, mapped(rows, lambda v: v * by)), run(ours, rows))


@few
@given(
    rows=batches(signals=("steps", "tokens"), kinds=("tenths", "real", "equal")),
    by=st.sampled_from((0.25, 3.0, 1000.0)),
)
def test_scaling_changes_nothing_under_masked_norm_to_eps_over_std(rows: Rows, by: float) -> None:
    """Condition: eps small beside every std; the scores here are of order 0.1 or equal."""
    ours = sc.PASS(eps=1e-9)
    assert_same(run(ours, mapped(rows, lambda v: v * by)), run(ours, rows), 1e-5)
