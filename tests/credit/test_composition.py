"""Methods made of other methods: what each keeps, and how the methods inside are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import Rows, batches, build, examples
from tests.credit.test_identities import assert_same, run

import stepcredit as sc
from stepcredit.errors import MethodError, RolloutError

few = examples(30)
scored = batches(signals=("steps", "tokens"), outcome="known", gaps=False)
probs = batches(signals=("none",), outcome="known")
OUTCOMES = ("grpo", "rloo", "dr-grpo")


def ragged(method: sc.Estimator, rows: Rows) -> list[torch.Tensor]:
    return [row.double() for row in method(build(rows)).ragged()]


@few
@given(rows=scored, second=st.sampled_from(("pass", "pure", "adca", "opd")))
def test_the_ends_of_a_mixture_are_the_two_methods(rows: Rows, second: str) -> None:
    for share, alone in ((1.0, "grpo"), (0.0, second)):
        mixed = sc.Mix(first="grpo", second=second, share=share)
        assert_same(run(mixed, rows), run(sc.estimator(alone), rows))


@few
@given(rows=scored, share=st.floats(0, 1))
def test_a_mixture_is_the_weighted_mean_token_by_token(rows: Rows, share: float) -> None:
    first, second = {"pass": {"k": 1.0}}, {"pure": {"baseline": "rollout"}}
    got = run(sc.Mix(first=first, second=second, share=share), rows)
    one, other = run(sc.PASS(k=1.0), rows), run(sc.PURE(baseline="rollout"), rows)
    assert_same(got, share * one + (1 - share) * other)


@few
@given(rows=scored)
def test_a_method_mixed_with_itself_is_itself(rows: Rows) -> None:
    assert_same(run(sc.Mix(first="pass", second="pass", share=0.3), rows), run(sc.PASS(), rows))


@few
@given(rows=scored, of=st.sampled_from(("dr-grpo", "pass", "pure")))
def test_reinforce_plus_plus_has_mean_0_and_std_1_over_the_batchs_tokens(
    rows: Rows, of: str
) -> None:
    got, inside = run(sc.ReinforcePlusPlus(of=of), rows), run(sc.estimator(of), rows)
    if len(inside) < 2 or inside.std() < 1e-2:
        return
    assert got.mean().abs() < 1e-4
    assert got.std() == pytest.approx(1, abs=1e-3)
    assert_same(got * inside.std(), inside - inside.mean())


def test_reinforce_plus_plus_keeps_the_sizes_of_groups_that_grpo_makes_equal() -> None:
    outcome = [1.0, 0.0, 0.6, 0.4]  # deviations of the group: 0.5 and 0.1
    rollouts = sc.Rollouts([0, 0, 1, 1], lengths=[1] * 4, outcome=outcome)
    std = (0.52 / 3) ** 0.5
    expected = [0.5 / std, -0.5 / std, 0.1 / std, -0.1 / std]
    assert sc.ReinforcePlusPlus()(rollouts).packed().tolist() == pytest.approx(expected)
    grpo = sc.GRPO(eps=0)(rollouts).packed()
    assert grpo[0] == pytest.approx(grpo[2].item())


def test_a_rounding_error_of_the_first_method_has_no_sign() -> None:
    outcomes = [0.1, 0.2, 0.3]  # the mean is 0.20000000000000004
    steps = sc.Steps(ends=[[0], [0], [0]], scores=[[1.0], [5.0], [0.0]])
    rollouts = sc.Rollouts([0, 0, 0], process=steps, outcome=outcomes)
    got = sc.SignSize(first="dr-grpo", second="turn-return")(rollouts).packed()
    assert got[0] < 0 < got[2]
    assert got[1] == 0


@few
@given(rows=scored, first=st.sampled_from(OUTCOMES), second=st.sampled_from(("pass", "opd")))
def test_the_sign_is_the_first_ones_and_the_size_the_seconds(
    rows: Rows, first: str, second: str
) -> None:
    got = run(sc.SignSize(first=first, second=second), rows)
    each, size = ragged(sc.estimator(first), rows), run(sc.estimator(second), rows).abs()
    largest: dict[str, float] = {}
    for row, values in zip(rows, each, strict=True):
        largest[row["group"]] = max(largest.get(row["group"], 0.0), values.abs().max().item())
    clear = [v.abs() > 1e-9 * largest[r["group"]] for r, v in zip(rows, each, strict=True)]
    assert torch.equal(got, torch.cat(each).sign() * torch.cat(clear) * size)


@few
@given(
    rows=scored,
    outcome=st.sampled_from(OUTCOMES),
    temperature=st.sampled_from((0.05, 1.0, 20.0)),
    by_sign=st.booleans(),
)
def test_redistribution_keeps_the_sum_of_every_response(
    rows: Rows, outcome: str, temperature: float, by_sign: bool
) -> None:
    method = sc.Redistribute(outcome=outcome, temperature=temperature, by_sign=by_sign)
    for got, plain in zip(ragged(method, rows), ragged(sc.estimator(outcome), rows), strict=True):
        assert float(got.sum()) == pytest.approx(float(plain.sum()), abs=1e-5)
        assert bool(((got * plain) >= 0).all())


@few
@given(rows=batches(signals=("steps", "tokens"), kinds=("equal",), outcome="known"))
def test_equal_scores_leave_the_outcomes_advantage(rows: Rows) -> None:
    assert_same(run(sc.Redistribute(outcome="rloo"), rows), run(sc.RLOO(), rows))


@few
@given(rows=scored)
def test_a_large_temperature_leaves_the_outcomes_advantage(rows: Rows) -> None:
    ours = sc.Redistribute(outcome="rloo", temperature=1e9)
    assert_same(run(ours, rows), run(sc.RLOO(), rows))


def scored_pair(**more: Any) -> sc.Rollouts:
    steps = sc.Steps([[0, 2, 3], [1, 3]], [[0.0, 1.0, 0.5], [1.0, 0.0]])
    return sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0], **more)


def test_praise_falls_on_the_best_step_and_blame_on_the_worst() -> None:
    right, wrong = sc.Redistribute(outcome="rloo")(scored_pair()).ragged()
    assert right[1] == right[2] > right[3] > right[0] > 0
    assert wrong[2] == wrong[3] < wrong[0] == wrong[1] < 0
    plain = sc.Redistribute(outcome="rloo", by_sign=False)(scored_pair()).ragged()
    assert torch.equal(plain[0], right)
    assert plain[1][0] < plain[1][2] < 0


def test_weights_are_those_of_the_softmax_by_hand() -> None:
    """exp(0), exp(1) twice, exp(0.5) over four tokens."""
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5]).double().exp()
    right, _ = sc.Redistribute(outcome="rloo")(scored_pair()).ragged()
    assert right.tolist() == pytest.approx((weights / weights.mean()).tolist(), abs=1e-6)


@few
@given(rows=probs, outcome=st.sampled_from(OUTCOMES))
def test_surprise_has_a_mean_weight_of_one(rows: Rows, outcome: str) -> None:
    method = sc.Reweight(outcome=outcome)
    flat = ragged(sc.estimator(outcome), rows)
    for got, plain, row in zip(ragged(method, rows), flat, rows, strict=True):
        assert float(got.sum()) == pytest.approx(float(plain.sum()), abs=1e-5)
        surprise = -torch.tensor(row["student_logprobs"]).double()
        if float(surprise.max()) > 0:
            assert got.tolist() == pytest.approx(
                (plain * surprise / surprise.mean()).tolist(), abs=1e-5
            )


def test_weights_of_a_stream_and_of_none() -> None:
    streams = {"entropy": sc.Tokens([[1.0, 3.0], [0.0, 0.0], None])}
    rollouts = sc.Rollouts([0, 0, 1], lengths=[2, 2, 1], process=streams, outcome=[1.0, 0.0, 1.0])
    found = sc.Reweight(outcome="rloo", by="entropy")(rollouts).ragged()
    assert [row.tolist() for row in found] == [[0.5, 1.5], [-1.0, -1.0], [0.0]]
    steps = {"entropy": sc.Steps([[0, 2], [0]], [[3.0, 0.0], [1.0]])}
    pair = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
    assert sc.Reweight(outcome="rloo", by="entropy")(pair).packed().tolist() == [3, 0, 0, -1]


@few
@given(rows=probs, eps=st.sampled_from((0.0, 0.2, 0.9)), share=st.sampled_from((0.0, 0.5, 1.0)))
def test_rlsd_never_turns_a_sign_and_keeps_its_bounds(rows: Rows, eps: float, share: float) -> None:
    method = sc.RLSD(outcome="rloo", eps=eps, share=share)
    for got, plain in zip(ragged(method, rows), ragged(sc.RLOO(), rows), strict=True):
        assert torch.equal(got.sign(), plain.sign())
        bound = share * eps * plain.abs() + 1e-6 * (1 + plain.abs())
        assert bool(((got - plain).abs() <= bound).all())
        if not eps or not share:
            assert got.tolist() == pytest.approx(plain.tolist(), abs=1e-6)


@few
@given(rows=probs)
def test_rlsd_with_the_student_as_teacher_is_its_outcome(rows: Rows) -> None:
    same = [row | {"teacher_logprobs": row["student_logprobs"]} for row in rows]
    assert_same(run(sc.RLSD(), same), run(sc.GRPO(), same))


def test_rlsd_by_hand() -> None:
    """The teacher doubles the first token's probability and halves the second's; eps 0.9."""
    half, probs = -0.6931471805599453, {}
    probs = {"student": [[-2.0, -2.0]] * 2, "teacher": [[-2.0 - half, -2.0 + half]] * 2}
    rollouts = sc.Rollouts([0, 0], outcome=[1.0, 0.0], logprobs=probs)
    found = sc.RLSD(outcome="rloo", eps=0.9)(rollouts).packed()
    assert found.tolist() == pytest.approx([1.9, 0.5, -0.5, -1.9], abs=1e-6)
    found = sc.RLSD(outcome="rloo", eps=0.9, share=0.5)(rollouts).packed()
    assert found.tolist() == pytest.approx([1.45, 0.75, -0.75, -1.45], abs=1e-6)


def test_a_method_inside_is_clipped_by_its_own_clip() -> None:
    clipped = sc.Mix(first={"rloo": {"clip": 0.5}}, second="rloo", share=0.5)
    rollouts = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[4.0, 0.0])
    assert clipped(rollouts).packed().tolist() == [2.25, -2.25]
    assert sc.Mix(first="rloo", second="rloo", clip=1.0)(rollouts).packed().tolist() == [1, -1]


def test_a_method_may_be_given_as_itself() -> None:
    named = sc.Mix(first="rloo", second={"pass": {"k": 1.0, "weights": [1, 2, 3]}})
    built = sc.Mix(first=sc.RLOO(), second=sc.PASS(k=1.0, weights=(1, 2, 3)))
    rollouts = scored_pair()
    assert torch.equal(named(rollouts).packed(), built(rollouts).packed())
    assert repr(named) == ("Mix(first='rloo', second={'pass': {'k': 1.0, 'weights': (1, 2, 3)}})")
    assert hash(named) == hash(sc.Mix(first="rloo", second={"pass": dict(named.second["pass"])}))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("mix", {"second": "pas"}, "second: unknown method 'pas', did you mean 'pass'?"),
    (
        "mix",
        {"first": {"pass": {"kk": 1}}},
        "first.kk: pass has no such field, did you mean 'k'?",
    ),
    (
        "mix",
        {"first": {"pass": {"k": -1}}},
        "first.k: expected a number of at least 0, got -1",
    ),
    (
        "mix",
        {"first": {"pass": {}, "pure": {}}},
        "first: expected the name of a method, or {name: fields}, got {'pass': {}, 'pure': {}}",
    ),
    ("mix", {"first": 3}, "first: expected the name of a method, or {name: fields}, got 3"),
    (
        "mix",
        {"first": {"pass": [1]}},
        "first: expected the fields of 'pass' by name, got [1]",
    ),
    (
        "mix",
        {"first": "gdpo"},
        "first: 'gdpo' normalizes over the whole batch, which a method inside another can't",
    ),
    (
        "sign-size",
        {"second": "prime"},
        "second: 'prime' normalizes over the whole batch, which a method inside another can't",
    ),
    (
        "reinforce-plus-plus",
        {"of": "gdpo"},
        "of: 'gdpo' normalizes over the whole batch, which a method inside another can't",
    ),
    (
        "mix",
        {"first": "reinforce-plus-plus"},
        "first: 'reinforce-plus-plus' normalizes over the whole batch, which a method inside "
        "another can't",
    ),
    (
        "mix",
        {"second": {"mix": {"second": {"redistribute": {"outcome": "opd"}}}}},
        "second.second.outcome: 'opd' reads a process signal or log-probs: expected a method of "
        "outcomes, such as grpo",
    ),
    (
        "redistribute",
        {"outcome": "pass"},
        "outcome: 'pass' reads a process signal or log-probs: expected a method of outcomes, "
        "such as grpo",
    ),
    ("mix", {"share": 1.5}, "share: expected a number of at least 0 and at most 1, got 1.5"),
    ("redistribute", {"temperature": 0}, "temperature: expected a number above 0, got 0"),
    (
        "reweight",
        {"by": "outcome"},
        "by: expected 'surprise', or the name of a process stream, got 'outcome'",
    ),
    ("rlsd", {"eps": -0.1}, "eps: expected a number of at least 0 and at most 1, got -0.1"),
]


@pytest.mark.parametrize(("method", "settings", "line"), REFUSED)
def test_refused_in_one_line(method: str, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(MethodError) as refused:
        sc.estimator(method, **settings)
    assert str(refused.value) == line


@dataclass(frozen=True)
class Called(sc.RLOO):
    """A user's method with a call of its own, which runs only by itself."""

    name = "called"

    def __call__(self, rollouts: sc.Rollouts, **rest: Any) -> sc.Advantages:
        return super().__call__(rollouts, **rest)


def test_a_method_with_its_own_call_is_refused() -> None:
    with pytest.raises(MethodError) as refused:
        sc.Mix(first=Called())
    assert str(refused.value) == (
        "first: 'called' has a __call__ of its own, which a method inside another can't run"
    )


def test_what_a_method_inside_lacks_is_one_line() -> None:
    bare = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
    cases: list[tuple[sc.Estimator, str]] = [
        (sc.Mix(second="opd"), "row 0: student_logprobs: missing: opd needs it"),
        (sc.Mix(second="adca"), "second: adca needs a process stream"),
        (sc.Redistribute(), "redistribute needs a process stream"),
        (sc.Reweight(), "row 0: student_logprobs: missing: reweight needs it"),
        (sc.Reweight(by="entropy"), "by: no group has the stream 'entropy'"),
        (sc.RLSD(), "row 0: student_logprobs: missing: rlsd needs it"),
    ]
    for method, line in cases:
        for call in (method, method.explain):
            with pytest.raises((MethodError, RolloutError)) as refused:
                call(bare)
            assert str(refused.value) == line
    unknown = sc.Rollouts([0, 0], lengths=[1, 1])
    with pytest.raises(RolloutError) as refused:
        sc.Mix(second="pass")(unknown)
    assert str(refused.value) == "row 0: outcome: missing: grpo needs it"
    other = sc.Rollouts([0], process={"prm": sc.Tokens([[1.0]])}, outcome=[1.0])
    with pytest.raises(MethodError) as refused:
        sc.Mix()(other)
    assert str(refused.value) == (
        "second.weights: no stream is named 'process': give {name: weight} for prm"
    )


def test_a_weight_below_0_names_the_callers_row() -> None:
    streams = {"entropy": sc.Tokens([[1.0], None, [0.5, -0.25]])}
    rollouts = sc.Rollouts([0, 1, 0], lengths=[1, 1, 2], process=streams, outcome=[1, 0, 0])
    with pytest.raises(RolloutError) as refused:
        sc.Reweight(by="entropy")(rollouts)
    assert str(refused.value) == "row 2: entropy: a weight is at least 0, got -0.25"


PASS_READS = sc.PASS().reads


@pytest.mark.parametrize(
    ("method", "reads"),
    [
        (
            sc.Mix(),
            sc.Reads("weighted", PASS_READS.weights, (), "required", True, True, True),
        ),
        (
            sc.Mix(first="opd", second={"pass": {"weights": {"prm": -2.0}, "chunks": "sentences"}}),
            sc.Reads(
                "weighted",
                {"prm": -2.0},
                ("student", "teacher"),
                None,
                gate=True,
                ready_made=True,
                text=True,
            ),
        ),
        (
            sc.Mix(
                first={"pass": {"weights": {"prm": 0.5, "outcome": 1}, "gate": False}},
                second={"pass": {"weights": {"prm": -1, "kl": 0}, "gate": False}},
            ),
            sc.Reads("weighted", {"prm": -1.0, "outcome": 1.0, "kl": 0.0}, ready_made=True),
        ),
        (sc.SignSize(first="pure", second="adca"), sc.Reads("one")),
        (
            sc.SignSize(first="pure", second={"pass": {"chunks": "steps"}}),
            sc.Reads("every", None, (), "optional", True, True, True, False, True),
        ),
        (sc.ReinforcePlusPlus(), sc.Reads(None, outcome="required")),
        (sc.ReinforcePlusPlus(of="pass"), PASS_READS),
        (sc.Redistribute(), sc.Reads("one", outcome="required")),
        (sc.Reweight(), sc.Reads(None, None, ("student",), "required")),
        (sc.Reweight(by="entropy"), sc.Reads("weighted", {"entropy": 1.0}, (), "required")),
        (sc.RLSD(), sc.Reads(None, None, ("student", "teacher"), "required")),
    ],
)
def test_what_is_read_is_the_union(method: sc.Estimator, reads: sc.Reads) -> None:
    assert method.reads == reads


def test_whether_it_standardizes_is_the_parts() -> None:
    assert sc.Mix().standardizes
    assert not sc.Mix(first="rloo", second="turn-return").standardizes
    assert not sc.RLSD(outcome="rloo").standardizes
    assert sc.ReinforcePlusPlus(of="rloo").standardizes  # by the batch's std


def test_other_weights_reach_the_methods_that_weigh_streams() -> None:
    changed = sc.Mix().with_weights({"prm": 2.0, "outcome": 1.0})
    assert changed == sc.Mix(first="grpo", second=sc.PASS(weights={"prm": 2.0, "outcome": 1.0}))
    with pytest.raises(MethodError) as refused:
        sc.Mix().with_weights({"prm": 2.0})
    assert str(refused.value) == "weights: a method inside reads the outcome without a weight"
    with pytest.raises(MethodError) as refused:
        sc.SignSize(second="pure").with_weights({"prm": 2.0})
    assert str(refused.value) == "weights: it weighs no streams"
    assert sc.Reweight(by="entropy").with_weights({"entropy": 1.0}) == sc.Reweight(by="entropy")
    with pytest.raises(MethodError, match="weighs no streams"):
        sc.Reweight(by="entropy").with_weights({"entropy": 2.0})


def test_stages_of_the_methods_inside_are_shown() -> None:
    explained = sc.Mix(first="rloo", second={"pass": {"weights": [1, 0, 0]}}).explain(scored_pair())
    assert list(explained.stages) == [
        "first: outcome",
        "A(first)",
        "second: N(process)",
        "second: N(outcome)",
        "second: N(format)",
        "second: fused",
        "second: return_to_go",
        "second: divisor",
        "A(second)",
    ]
    alone = sc.PASS(weights=[1, 0, 0]).explain(scored_pair())
    assert torch.equal(explained.stages["second: fused"], alone.stages["fused"])
    assert torch.equal(explained.stages["A(second)"], alone.advantage)
    assert explained.stages["A(first)"].tolist() == [1, 1, 1, -1, -1]
    found = sc.Redistribute(outcome="rloo").explain(scored_pair())
    assert list(found.stages) == ["outcome: outcome", "A(outcome)", "score", "weight"]
    assert found.stages["score"].tolist() == [0.0, 1.0, 0.5, 1.0, 0.0]


def test_notes_name_the_method_inside() -> None:
    rollouts = scored_pair(format=[1.0, 0.0])
    notes = sc.Mix(second={"pass": {"weights": {"process": 1.0}}}).notes(rollouts)
    assert notes == [
        "second: stream 'outcome' has no weight: it is ignored",
        "second: stream 'format' has no weight: it is ignored",
    ]


def test_steps_and_whole_responses_stay_chunks_and_others_become_tokens() -> None:
    rollouts = scored_pair()
    assert len(sc.Mix().explain(rollouts).rows) == 5
    windows = {"pass": {"chunks": {"windows": {"size": 3}}}}
    assert len(sc.Mix(first=windows, second="pass").explain(rollouts).rows) == 8
    assert len(sc.Mix(first="rloo", second="grpo").explain(rollouts).rows) == 2
