"""The metrics of training, against loops over plain lists, and what must change nothing."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.padding import pad, padded_rollouts
from tests.credit.strategies import Rows, batches, build, examples, random_rows
from tests.reference.metrics import expected, flat, names_of, silent

import stepcredit as sc
from stepcredit.credit.blocks import Blocks
from stepcredit.credit.metrics.leave_one_out import silence_of
from stepcredit.credit.metrics.panel import clipped_share, stream_std, training_metrics
from stepcredit.credit.metrics.text_statistics import cut_steps
from stepcredit.credit.theory.length_pressure import path_score
from stepcredit.engines.verl.metric_names import safe_name
from stepcredit.errors import RolloutError

STREAMS = {"process": 1.0, "judge": 0.5, "teacher": 0.25, "outcome": 1.0, "format": 0.5}
ESTIMATORS = {
    "pass": sc.PASS(),
    "pass-clipped": sc.PASS(k=0.0, clip=0.5),
    "pass-sign-runs": sc.PASS(chunks="sign_runs", gate=False),
    "pass-streams": sc.PASS(weights=STREAMS | {"critic": 0.5}, scope="process"),
    "pass-min": sc.PASSMin(),
    "grpo-process": sc.ProcessGRPO(),
    "grpo": sc.GRPO(),
}
every = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
some = examples(15)
SENTENCES = ("So 3+4=7.", "so  3+4=7.\n", "---", "Wait, is it?", "However, however.", "await", " ")


def drawn(data: st.DataObject, estimator: sc.Estimator) -> Rows:
    outcome = "known" if isinstance(estimator, sc.GRPO) else "maybe"
    return data.draw(batches(outcome=outcome))


def with_texts(rows: Rows, rng: Random) -> tuple[Rows, list[list[str]] | None]:
    """A text for each step that the rows' own step signal scores."""
    if not any("step_ends" in row for row in rows):
        return rows, None
    return rows, [[rng.choice(SENTENCES) for _ in row.get("step_ends", [])] for row in rows]


def metrics(rows: Rows, estimator: sc.Estimator, **options: Any) -> dict[str, float]:
    return training_metrics(build(rows), estimator, **options)


def same(got: dict[str, float], want: dict[str, float]) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


# Reference: loops


@every
@some
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_all_metrics_equal_loops(estimator: sc.Estimator, data: st.DataObject, seed: int) -> None:
    rows, steps = with_texts(drawn(data, estimator), Random(seed))
    texts = None if steps is None else [" ".join(row) for row in steps]
    got = metrics(rows, estimator, steps=steps, texts=texts)
    stds = {name: got.pop(name) for name in list(got) if name.endswith("_std")}
    same(got, expected(rows, estimator, steps))
    assert all(map(math.isfinite, [*got.values(), *stds.values()]))
    plain = stream_std(estimator, build(rows))
    assert stds == pytest.approx({f"{name}_std": std for name, std in plain.items()}, abs=1e-12)


@every
@some
@given(data=st.data())
def test_stds_equal_loops(estimator: sc.Estimator, data: st.DataObject) -> None:
    rows = drawn(data, estimator)
    plain = replace(estimator, clip=None)
    whole = flat(plain(build(rows)).ragged())
    process = rows
    for name in names_of(rows):
        process = process if name in ("outcome", "format") else silent(process, name)
    found = {"advantage": pstdev(whole)}
    others = {"process": process, **{n: silent(rows, n) for n in ("outcome", "format")}}
    for name, quiet in others.items():
        other = flat(plain(build(quiet)).ragged())
        found[name] = pstdev([a - b for a, b in zip(whole, other, strict=True)])
    assert stream_std(estimator, build(rows)) == pytest.approx(found, rel=1e-6, abs=1e-7)


@every
@some
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_row_order_changes_nothing(estimator: sc.Estimator, data: st.DataObject, seed: int) -> None:
    rows, steps = with_texts(drawn(data, estimator), Random(seed))
    order = Random(seed).sample(range(len(rows)), len(rows))
    moved = None if steps is None else [steps[i] for i in order]
    same(
        metrics([rows[i] for i in order], estimator, steps=moved),
        metrics(rows, estimator, steps=steps),
    )


@some
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_padding_changes_nothing(data: st.DataObject, seed: int) -> None:
    rows = data.draw(batches(signals=("steps", "tokens")))
    padded = padded_rollouts(rows, pad(rows, Random(seed)))
    same(training_metrics(padded, sc.PASS()), metrics(rows, sc.PASS()))


@every
@some
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_a_batch_beside_its_copy_keeps_its_metrics(
    estimator: sc.Estimator, data: st.DataObject, seed: int
) -> None:
    rows, steps = with_texts(drawn(data, estimator), Random(seed))
    double = rows + [row | {"group": f"{row['group']} again"} for row in rows]
    twice = None if steps is None else steps + steps
    same(metrics(double, estimator, steps=twice), metrics(rows, estimator, steps=steps))


def test_huge_values_leave_a_neighbours_parts_alone() -> None:
    rows = random_rows(Random(0), [4], outcome="known", gate=False)
    loud = [
        row | {"group": "loud", "step_scores": [1e30 * (i + 1)] * len(row["step_scores"])}
        for i, row in enumerate(rows)
    ]
    alone, beside = metrics(rows, sc.PASS()), metrics(rows + loud, sc.PASS())
    assert beside["zero_advantage_group_share"] == alone["zero_advantage_group_share"]
    quiet = metrics(loud, sc.PASS())["advantage_length_correlation"]
    bound = sorted((quiet, alone["advantage_length_correlation"]))
    assert bound[0] - 1e-6 <= beside["advantage_length_correlation"] <= bound[1] + 1e-6


@every
@pytest.mark.parametrize("signal", ["steps", "tokens", "streams"])
def test_degenerate_batches_give_finite_numbers(estimator: sc.Estimator, signal: str) -> None:
    for sizes in ([1], [2], [1, 1]):
        for options in ({"max_length": 1}, {"gate": False}, {"kind": "equal"}):
            rows = random_rows(Random(3), sizes, signal, outcome="known", **options)
            found = metrics(rows, estimator)
            assert all(map(math.isfinite, found.values())), found
            assert "filler_gap" not in found


def test_a_batch_without_a_signal_leaves_out_what_is_unknown() -> None:
    found = training_metrics(sc.Rollouts(group=[0, 0], lengths=[2, 3]), sc.PASS())
    assert found == {
        **{f"{name}_std": 0.0 for name in ("advantage", "process", "outcome", "format")},
        "chunks_per_response": 1.0,
        "tokens_per_chunk": 2.5,
        "path_density": 0.0,
        "zero_advantage_group_share": 1.0,
        "format_gated_share": 0.0,
        "clipped_share": 0.0,
        "length": 2.5,
    }


@pytest.mark.parametrize("estimator", [sc.PASS(), sc.PASS(k=1.0), sc.PASS(k=0.0)])
@some
@given(data=st.data())
def test_path_density_is_the_mean_path_score(estimator: sc.PASS, data: st.DataObject) -> None:
    rows = data.draw(batches(signals=("steps",)))
    values: dict[int, list[float]] = defaultdict(list)
    for row in estimator.explain(build(rows)).rows:
        values[row["rollout"]].append(row["fused"])
    scores = [path_score(math.fsum(own), len(own), estimator.k) for own in values.values()]
    found = metrics(rows, estimator)["path_density"]
    assert found == pytest.approx(fmean(scores), rel=1e-5, abs=1e-6)


def test_methods_made_of_log_probs_tell_their_share() -> None:
    rows = random_rows(Random(2), [4, 4], "none", kind="real", outcome="known")
    assert metrics(rows, sc.OPD())["share/logprobs"] == 1.0
    both = metrics(rows, sc.PRIME(whiten_batch=False))
    assert 0 < both["share/logprobs"] < 1
    assert both["share/logprobs"] + both["share/outcome"] == pytest.approx(1.0)


def test_no_name_holds_what_verl_reduces_by() -> None:
    rng = Random(1)
    rows = random_rows(rng, [4, 4], outcome="known")
    base = build(rows)
    steps = base.streams["process"]
    odd = dict.fromkeys(("gemini", "SUMMARY", "maxwell", "minimum", "process"), steps)
    found = training_metrics(
        base.with_streams(odd),
        sc.PASS(weights={"gemini": 1.0, "maxwell": 1.0, "outcome": 1.0, "format": 1.0}),
        steps=[[rng.choice(SENTENCES) for _ in row["step_ends"]] for row in rows],
        texts=["wait"] * len(rows),
        truncated=[False] * len(rows),
    )
    assert len([name for name in found if name.startswith("share/")]) == 8
    assert {"filler_gap", "reflection_words", "truncated_share", "steps_right"} <= found.keys()
    assert {"share/gemini", "share/SUMMARY"} <= found.keys()
    for name in map(safe_name, found):
        assert not re.search("min|max|sum", name.lower()), name
    assert safe_name("share/gemini") == "share/gem-ini"
    assert safe_name("share/Subtotal") == "share/Subt-otal"
    assert [safe_name(f"share/{name}") for name in ("lr", "my_LR", "lrs", "color")] == [
        *("share/l-r", "share/my_L-R", "share/lrs", "share/color"),
    ]


SHARING = {
    **ESTIMATORS,
    "pass-matched": sc.PASS(match_std=True, recenter=True, gamma=0.9),
    "pass-process": sc.PASS(scope="process", match_std=True, read="mean"),
}


@pytest.mark.parametrize("estimator", SHARING.values(), ids=SHARING.keys())
@some
@given(data=st.data())
def test_versions_credited_together_have_the_credit_of_each_alone(
    estimator: sc.Estimator, data: st.DataObject
) -> None:
    rollouts = build(sorted(drawn(data, estimator), key=lambda row: str(row["group"])))
    silence = silence_of(rollouts)
    for block in Blocks.of(rollouts):
        versions = [block, *(quiet(block) for quiet in silence.values()), block]
        together = estimator.credits(versions)
        for version, found in zip(versions, together, strict=True):
            alone = estimator.credit(version)
            assert torch.equal(found.advantage, alone.advantage)
            assert torch.equal(found.last_slots, alone.last_slots)
            assert str(found.scale) == str(alone.scale)
            assert [*found.stages()] == [*alone.stages()]


def test_a_subclass_that_changes_the_credit_is_run_for_each_stream() -> None:
    @dataclass(frozen=True)
    class Doubled(sc.PASS):
        def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
            credit = super().credit(rollouts)
            return replace(credit, advantage=2 * credit.advantage)

    rollouts = build(random_rows(Random(4), [4, 3], outcome="known"))
    once, twice = (stream_std(estimator, rollouts) for estimator in (sc.PASS(), Doubled()))
    assert twice == pytest.approx({name: 2 * std for name, std in once.items()}, rel=1e-6)


@every
def test_advantages_at_hand_give_the_same(estimator: sc.Estimator) -> None:
    rollouts = build(random_rows(Random(5), [4, 3], outcome="known"))
    again = training_metrics(rollouts, estimator, advantages=estimator(rollouts))
    assert again == training_metrics(rollouts, estimator)


def test_the_filler_gap_is_of_the_clipped_advantages() -> None:
    rollouts = sc.Rollouts(
        group=[0, 0],
        process=sc.Steps([[0, 1], [0, 1]], [[9.0, 0.0], [0.0, 0.0]]),
        tokens=[["so", "..."], ["a", "b"]],
    )
    estimator = sc.PASS(k=0.0, operator="center", clip=1.0)
    paid = estimator(rollouts).packed().tolist()
    assert training_metrics(rollouts, estimator)["filler_gap"] == pytest.approx(
        paid[1] - fmean([paid[0], *paid[2:]])
    )
    assert clipped_share(estimator, rollouts) == 1.0


def test_a_signal_that_pays_for_filler_has_a_gap_above_zero() -> None:
    texts = [["3+4=7\n", "...\n", "7*2=4\n", "...\n"], ["3+4=8\n", "8*2=6\n"]]
    for filler, sign in ((0.95, 1), (0.05, -1)):
        scores = [[0.6, filler, 0.6, filler], [0.3, 0.3]]
        rollouts = sc.Rollouts([0, 0], process=sc.Steps([[0, 1, 2, 3], [0, 1]], scores))
        found = training_metrics(rollouts, sc.PASS(k=1.0, operator="center"), steps=texts)
        assert sign * found["filler_gap"] > 0
        assert found["repeated_step_share"] == pytest.approx(1 / 6)
        assert found["contentless_step_share"] == pytest.approx(2 / 6)


def test_steps_come_from_tokens_and_may_be_ids() -> None:
    ends = [[1, 3], [0]]
    plain = {"group": [0, 0], "process": sc.Steps(ends, [[1.0, 0.5], [0.0]])}
    tokens = [["so ", "x", "So", " x"], ["---"]]
    told = training_metrics(sc.Rollouts(**plain, tokens=tokens), sc.PASS())
    given = training_metrics(sc.Rollouts(**plain), sc.PASS(), steps=[["so x", "So x"], ["---"]])
    assert told.pop("reflection_words") == 0.0
    assert told.pop("pay/contentless_responses") < 0  # texts alone tell it
    assert told == given
    rollouts = sc.Rollouts(**plain)
    marks = sc.Rollouts([0, 0], lengths=[4, 1], step_ends=ends).step_ends
    assert marks is not None
    ids = cut_steps([[5, 6, 5, 6], [7]], marks)
    found = training_metrics(rollouts, sc.PASS(), steps=ids)
    assert found["repeated_step_share"] == pytest.approx(1 / 3)
    assert found["contentless_step_share"] == 0.0
    by_rule = training_metrics(rollouts, sc.PASS(), steps=ids, contentless=lambda s: s == (7,))
    assert by_rule["contentless_step_share"] == pytest.approx(1 / 3)


def test_texts_of_some_responses_alone_are_left_out() -> None:
    fields = {"group": [0, 0], "process": sc.Steps([[0], [0]], [[1.0], [0.0]])}
    found = training_metrics(sc.Rollouts(**fields, tokens=[["a"], None]), sc.PASS())
    assert not {"reflection_words", "repeated_step_share"} & found.keys()


def test_marked_steps_count_on_a_token_signal() -> None:
    rollouts = sc.Rollouts([0], process=sc.Tokens([[0.1, 0.2, 0.3]]), step_ends=[[0, 2]])
    assert training_metrics(rollouts, sc.PASS(chunks="steps"))["steps"] == 2.0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steps": [["a"]]}, "steps: 1 given, but 2 rollouts"),
        ({"steps": [["a"], []]}, "row 0: steps: 1 given, but 2 steps"),
        ({"texts": ["a"]}, "texts: 1 given, but 2 rollouts"),
        ({"truncated": [True]}, "truncated: 1 given, but 2 rollouts"),
        ({"cut": {"process": [True]}}, "cut.process: 1 given, but 2 rollouts"),
        ({"cut": {"process": [0.5, 1.0]}}, "row 0: cut.process: 0.5 is not true or false"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], reason: str) -> None:
    rollouts = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[1.0, 0.5], [0.0]]))
    with pytest.raises(RolloutError) as caught:
        training_metrics(rollouts, sc.PASS(), **options)
    assert str(caught.value) == reason


def test_right_is_above_the_given_number() -> None:
    rollouts = sc.Rollouts([0, 0, 1], lengths=[5, 2, 9], outcome=[0.7, 0.4, None])
    found = training_metrics(rollouts, sc.PASS(), right_above=0.5)
    assert (found["length_right"], found["length_wrong"]) == (5.0, 2.0)
    assert (found["right_share"], found["right_above"]) == (0.5, 0.5)
    plain = training_metrics(rollouts, sc.PASS())
    assert plain["length_right"] == 3.5
    assert (plain["right_share"], plain["right_above"]) == (1.0, 0.0)
    unknown = training_metrics(sc.Rollouts([0], lengths=[1]), sc.PASS())
    assert not {"right_share", "right_above"} & unknown.keys()


def test_the_shares_of_responses_without_scores() -> None:
    steps = sc.Steps([[0, 1], None, [1], [0, 1]], [[0.5, 1.0], None, [0.25], [0.0, 1.0]])
    rollouts = sc.Rollouts([0, 0, 1, 1], process=steps, lengths=[2, 2, 2, 2])
    found = training_metrics(rollouts, sc.PASS(), cut={"process": [False, False, True, False]})
    assert (found["unscored_share/process"], found["cut_share/process"]) == (0.25, 0.25)
    assert found["steps"] == pytest.approx(5 / 3)
