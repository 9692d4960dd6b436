"""From the queue's fields to advantages, against the core on tensors built another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import stepcredit as sc
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit, with_engine
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.errors import EngineError, RolloutError
from stepcredit.lab.arithmetic import build_tokenizer


def settings(**given):
    return VerlSettings.of({"algorithm": {"stepcredit": given}})


def padded(rows, dtype=torch.float64):
    return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True)


def by_steps(made):
    """The same responses as `from_padded` reads them: a step's number at each of its tokens."""
    ids = [
        np.searchsorted(ends, np.arange(len(m)))
        for ends, m in zip(made.ENDS, made.MASKS, strict=True)
    ]
    mask = padded(made.MASKS, torch.int64)
    step_id = torch.full(mask.shape, -1)
    for row, numbers in enumerate(ids):
        step_id[row, : len(numbers)] = torch.tensor(numbers)
    scores = padded([made.scores_of(row) for row in range(len(made.UIDS))])
    return {"mask": mask, "group": made.UIDS, "step_id": step_id, "step_scores": scores}


def assert_rows(made, credit, expected):
    """Every row of the queue: the core's advantages, and zeros for the two of padding."""
    rows = credit.rows()
    assert [len(row) for row in rows] == [*map(len, made.MASKS), 1, 1]
    for row, values in zip(rows, expected, strict=False):
        torch.testing.assert_close(row, values[: len(row)], rtol=0, atol=0)
    assert [row.tolist() for row in rows[len(made.UIDS) :]] == [[0.0], [0.0]]


def test_process_is_the_first_stream_then_come_those_of_the_config(made):
    """Metrics that read one stream read the first: under TRL it is the same."""
    extras = [
        extra | {"signals": {name: {"ends": extra["step_ends"], "scores": extra["step_scores"]}}}
        for name, extra in zip(["own", "late", "early"] * 2, made.step_extras(), strict=True)
    ]
    batch = QueuedBatch.of(*made.queue(extras, **made.MARKED))
    signals = {"early": "equations", "late": "arithmetic"}
    known = settings(method="grpo", process_signal=signals)
    credit = BatchCredit(batch, known, build_tokenizer())
    assert list(credit.rollouts.streams) == ["process", "early", "late", "own"]


PROCESS = ["pass", "pure", "pass-min", "grpo-process", "adca", "turn-return", "redistribute"]


@pytest.mark.parametrize("method", [*PROCESS, "grpo"])
def test_steps_are_credited_as_the_core_does_over_holes_padding_and_any_order(made, method):
    batch = QueuedBatch.of(*made.queue(made.step_extras()))
    credit = BatchCredit(batch, settings(method=method), build_tokenizer())
    known = by_steps(made)
    rollouts = sc.Rollouts.from_padded(**known, outcome=made.OUTCOMES)
    expected = sc.estimator(method)(rollouts).padded(known["mask"])
    assert expected.abs().max() > 0
    assert_rows(made, credit, expected)


@pytest.mark.parametrize("seed", range(20))
def test_any_masks_steps_and_order_of_rows_give_the_cores_advantages(made, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=rng.integers(2, 9))
    masks = [(rng.random(size) < 0.7).astype(int).tolist() for size in sizes]
    masks[0][0] = 1
    cuts = [np.append(np.flatnonzero(rng.random(size - 1) < 0.4), size - 1) for size in sizes]
    scores = [rng.normal(size=len(ends)).round(3).tolist() for ends in cuts]
    uids = rng.choice(["a", "b", "c"], size=len(sizes)).tolist()
    outcomes = rng.integers(0, 2, size=len(sizes)).astype(float)
    fields = {
        "uid": uids,
        "response_mask": made.nested(masks, torch.int64),
        "rm_scores": made.nested(
            [[0.0] * (size - 1) + [r] for size, r in zip(sizes, outcomes, strict=True)],
            torch.float32,
        ),
        "prompts": made.nested([[1]] * len(sizes), torch.int64),
        "responses": made.nested(masks, torch.int64),
        "extra_fields": [
            {"reward_extra_info": {"step_ends": ends, "step_scores": given}}
            for ends, given in zip(cuts, scores, strict=True)
        ],
    }
    keys = [f"{uid}_{row}_0" for row, uid in enumerate(uids)]
    rows = BatchCredit(QueuedBatch.of(fields, keys, [{}] * len(keys)), settings()).rows()
    mask = padded(masks, torch.int64)
    step_id = torch.full(mask.shape, -1)
    for row, ends in enumerate(cuts):
        step_id[row, : sizes[row]] = torch.from_numpy(np.searchsorted(ends, np.arange(sizes[row])))
    held = mask.any(1)
    rollouts = sc.Rollouts.from_padded(
        mask[held],
        [uid for uid, kept in zip(uids, held, strict=True) if kept],
        step_id=step_id[held],
        step_scores=padded(scores)[held],
        outcome=outcomes[held],
    )
    expected = torch.zeros(mask.shape)
    expected[held] = sc.PASS()(rollouts).padded(mask[held])
    for row, values in zip(rows, expected, strict=True):
        torch.testing.assert_close(row, values[: len(row)], rtol=0, atol=0)


def test_arrays_and_tensors_are_read_as_lists_are(made):
    extras = made.step_extras()
    for extra, kind in zip(extras, [np.array, torch.tensor, list] * 2, strict=True):
        extra["step_ends"] = kind(extra["step_ends"])
        extra["step_scores"] = kind(extra["step_scores"])
    listed = BatchCredit(QueuedBatch.of(*made.queue(made.step_extras())), settings())
    found = BatchCredit(QueuedBatch.of(*made.queue(extras)), settings())
    for one, other in zip(found.rows(), listed.rows(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_token_scores_in_arrays_are_read_as_lists_are(made):
    sizes = enumerate(map(len, made.MASKS))
    scores = [[0.3 * t * (row + 1) % 0.7 for t in range(size)] for row, size in sizes]
    scores[2] = None
    arrays = [row and np.array(row) for row in scores]
    arrays[1].flags.writeable = False  # as those that the queue decodes
    arrays[3] = arrays[3].astype(np.float32)
    scores[3] = arrays[3].tolist()
    queues = [made.queue([{"token_scores": row} for row in rows]) for rows in (arrays, scores)]
    found, listed = (BatchCredit(QueuedBatch.of(*queue), settings()) for queue in queues)
    assert torch.equal(
        found.rollouts.streams["process"].values, listed.rollouts.streams["process"].values
    )
    for one, other in zip(found.rows(), listed.rows(), strict=True):
        assert torch.equal(one, other)


def test_an_error_in_an_array_names_the_response_as_one_in_a_list_does(made):
    messages = []
    for kind in (np.array, list):
        rows = [[0.5] * len(mask) for mask in made.MASKS]
        rows[4][1] = float("nan")
        extras = [{"token_scores": kind(row)} for row in rows]
        with pytest.raises(RolloutError) as caught:
            BatchCredit(QueuedBatch.of(*made.queue(extras)), settings()).rows()
        messages.append(str(caught.value))
    assert messages == ["response a1_4_0: process.scores: nan is not a finite number"] * 2


def test_format_and_the_gate_are_the_cores(made):
    formats = [1.0, 0.0, 0.5, 0.25, 1.0, 0.0]
    extras = [
        {**e, "format": np.float64(f)} for e, f in zip(made.step_extras(), formats, strict=True)
    ]
    extras[4]["format_ok"] = np.bool_(False)
    credit = BatchCredit(QueuedBatch.of(*made.queue(extras)), settings(format_gate=0.3))
    known = by_steps(made)
    kept = [True, False, True, False, False, False]
    rollouts = sc.Rollouts.from_padded(
        **known, outcome=made.OUTCOMES, format=formats, format_ok=kept
    )
    assert_rows(made, credit, sc.PASS()(rollouts).padded(known["mask"]))


def test_token_scores_and_named_streams_are_streams_of_their_own(made):
    scores = [
        [0.1 * t * (row + 1) % 0.7 for t in range(len(m))] for row, m in enumerate(made.MASKS)
    ]
    extras = [
        {
            "token_scores": scores[row],
            "signals": {"prm": {"ends": made.ENDS[row], "scores": made.scores_of(row)}},
        }
        for row in range(len(made.UIDS))
    ]
    weights = {"prm": 1.0, "process": 0.5, "outcome": 1.0}
    credit = BatchCredit(QueuedBatch.of(*made.queue(extras)), settings(fields={"weights": weights}))
    known = by_steps(made)
    steps = sc.Rollouts.from_padded(**known).streams["process"]
    mask, group = known["mask"], known["group"]
    rollouts = sc.Rollouts.from_padded(
        mask, group, token_scores=padded(scores), process={"prm": steps}, outcome=made.OUTCOMES
    )
    assert_rows(made, credit, sc.PASS(weights=weights)(rollouts).padded(mask))


def test_responses_without_steps_have_none_of_the_signal(made):
    extras = made.step_extras()
    extras[2] = {"step_ends": [], "step_scores": []}
    extras[3] = {"step_ends": None, "step_scores": None}
    credit = BatchCredit(QueuedBatch.of(*made.queue(extras)), settings())
    assert credit.rollouts.streams["process"].counts.tolist() == [2, 3, 0, 0, 2, 2]
    trained = [[t for t in mask if t] for mask in made.MASKS]
    rollouts = sc.Rollouts(
        group=made.UIDS,
        lengths=[len(row) for row in trained],
        process=sc.Steps(
            ends=[[1, 5], [1, 4, 5], [], [], [0, 4], [2, 3]],
            scores=[
                made.scores_of(0),
                np.delete(made.scores_of(1), 1).tolist(),
                [],
                [],
                made.scores_of(4),
                made.scores_of(5)[:2],
            ],
        ),
        outcome=made.OUTCOMES,
    )
    assert_rows(made, credit, sc.PASS()(rollouts).padded(padded(made.MASKS, torch.int64)))


def test_rows_without_a_trained_token_are_no_members_of_their_group(made):
    fields, keys, tags = made.queue(made.step_extras())
    masks = [torch.tensor(mask) for mask in [*made.MASKS, [0], [0]]]
    masks[0] = torch.zeros(6, dtype=torch.int64)
    fields["response_mask"] = torch.nested.as_nested_tensor(masks, layout=torch.jagged)
    credit = BatchCredit(QueuedBatch.of(fields, keys, tags), settings())
    known = {name: value[1:] for name, value in by_steps(made).items()}
    rollouts = sc.Rollouts.from_padded(**known, outcome=made.OUTCOMES[1:])
    expected = sc.PASS()(rollouts).padded(known["mask"])
    rows = credit.rows()
    assert rows[0].tolist() == [0.0] * 6
    for row, values in zip(rows[1:6], expected, strict=True):
        assert torch.equal(row, values[: len(row)])


def test_padding_is_known_by_its_tag_whatever_its_mask(made):
    masks = made.nested([*made.MASKS, [1], [1]], torch.int64)
    batch = QueuedBatch.of(*made.queue(made.step_extras(), response_mask=masks))
    known = by_steps(made)
    rollouts = sc.Rollouts.from_padded(**known, outcome=made.OUTCOMES)
    assert_rows(made, BatchCredit(batch, settings()), sc.PASS()(rollouts).padded(known["mask"]))


def test_verls_own_advantage_stands_in_the_outcomes_place(made):
    engine = [torch.linspace(-1, 1, len(m)) * (row + 1) for row, m in enumerate(made.MASKS)]
    rows = [*engine, torch.ones(1), torch.ones(1)]
    credit = BatchCredit(QueuedBatch.of(*made.queue(made.step_extras())), settings(), engine=rows)
    known = by_steps(made)
    mask = known["mask"]
    ready = [row[torch.tensor(m).bool()] for row, m in zip(engine, made.MASKS, strict=True)]
    rollouts = sc.Rollouts.from_padded(**known, process={"engine": sc.TokenAdvantages(ready)})
    weights = {"process": 1.0, "engine": 1.0, "format": 1.0}
    assert_rows(made, credit, sc.PASS(weights=weights)(rollouts).padded(mask))


def test_a_method_of_log_probs_reads_the_policys_the_references_and_the_teachers(made):
    own = [[-0.5 - 0.1 * t for t in range(len(m))] for m in made.MASKS]
    ref = [[-0.3 - 0.05 * t * t for t in range(len(m))] for m in made.MASKS]
    teacher = [[-0.9 + 0.07 * t for t in range(len(m))] for m in made.MASKS]
    shifted = [[9.0] * row + values + [9.0] for row, values in enumerate(teacher)]
    whole = [torch.tensor(row)[:, None] for row in [*shifted, [0.0] * 4, [0.0] * 4]]
    fields = {
        "old_log_probs": torch.nested.as_nested_tensor(
            [torch.tensor(r) for r in [*own, [0.0], [0.0]]], layout=torch.jagged
        ),
        "ref_log_prob": torch.nested.as_nested_tensor(
            [torch.tensor(r) for r in [*ref, [0.0], [0.0]]], layout=torch.jagged
        ),
        "teacher_logprobs": whole,
    }
    credit = BatchCredit(QueuedBatch.of(*made.queue([{}] * 6, **fields)), settings(method="g-opd"))
    mask = padded(made.MASKS, torch.int64)
    logprobs = {"student": padded(own), "base": padded(ref), "teacher": padded(teacher)}
    rollouts = sc.Rollouts.from_padded(mask, made.UIDS, outcome=made.OUTCOMES, logprobs=logprobs)
    expected = sc.GOPD()(rollouts).padded(mask)
    for row, values in zip(credit.rows(), expected, strict=False):
        torch.testing.assert_close(row, values[: len(row)], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        (
            {"step_ends": [1, 4], "step_scores": [0.1, 0.2]},
            "response b7_0_0: process: last step ends at 4, but the response's last token is 5",
        ),
        (
            {"token_scores": [0.1, 0.2]},
            "response b7_0_0: process: 2 values, but 6 tokens",
        ),
        (
            {"step_ends": [1, 5], "step_scores": [0.1, float("nan")]},
            "response b7_0_0: process.scores: nan is not a finite number",
        ),
        (
            {"signals": {"prm": {"scores": [0.5] * 6}, "judge": {"scores": [float("nan")] * 6}}},
            "response b7_0_0: judge.scores: nan is not a finite number",
        ),
        (
            {"step_ends": [1, 5], "step_scores": [0.1, 0.2], "token_scores": [0.1] * 6},
            "response b7_0_0: step_scores: the stream 'process' is given twice",
        ),
        (
            {"step_ends": [5], "step_scores": 0.5},
            "response b7_0_0: step_scores: expected a list, got 0.5",
        ),
        (
            {"signals": {"prm": {"ends": np.array(5), "scores": [0.5]}}},
            "response b7_0_0: signals.prm.ends: expected a list, got array(5)",
        ),
        (
            {"signals": {"prm": [0.5]}},
            "response b7_0_0: signals.prm: expected names with their values, got [0.5]",
        ),
        (
            {"step_ends": [5], "step_scores": [0.1, 0.2]},
            "response b7_0_0: process.ends: 1 ends, but 2 scores",
        ),
    ],
)
def test_a_fault_is_one_line_with_the_responses_key(made, extra, line):
    batch = QueuedBatch.of(*made.queue([extra] + [{}] * 5))
    with pytest.raises(RolloutError) as caught:
        _ = BatchCredit(batch, settings()).rollouts
    assert str(caught.value) == line


def test_steps_and_tokens_in_one_stream_are_refused(made):
    extras = [{"token_scores": [0.1] * 6}, *made.step_extras()[1:]]
    with pytest.raises(RolloutError) as caught:
        _ = BatchCredit(QueuedBatch.of(*made.queue(extras)), settings()).rollouts
    line = "response a1_1_0: process: holds scores of steps, other responses scores of tokens"
    assert str(caught.value) == line


def test_scores_asked_of_the_reward_loop_and_not_there_are_refused(made):
    batch = QueuedBatch.of(*made.queue([{}] * 6, **made.MARKED))
    with pytest.raises(EngineError) as caught:
        _ = BatchCredit(batch, settings(process_signal="equations")).rollouts
    reason = "no response has its scores: does another reward manager run?"
    assert str(caught.value) == f"algorithm.stepcredit.process_signal (process): {reason}"


def test_responses_that_an_agent_loop_rewarded_itself_are_said(made):
    extras = made.step_extras()
    whole = QueuedBatch.of(*made.queue(extras, **made.MARKED))
    assert (
        "skipped/process"
        not in BatchCredit(
            whole, settings(process_signal="equations"), build_tokenizer()
        ).warnings()
    )
    batch = QueuedBatch.of(*made.queue([*extras[:2], {}, *extras[3:]], **made.MARKED))
    credit = BatchCredit(batch, settings(process_signal="equations"), build_tokenizer())
    counts = credit.rollouts.streams["process"].counts.tolist()
    assert [count == 0 for count in counts] == [row == 2 for row in range(6)]
    line = "algorithm.stepcredit.process_signal (process): has no scores of 1 of 6 responses, "
    line += f"such as {batch.name_of(2)}: only their outcome trains them. verl's reward loop "
    line += "does not read a response whose agent loop returns a reward_score of its own"
    assert credit.warnings()["skipped/process"] == line


def test_a_missing_field_is_refused(made):
    fields, keys, tags = made.queue([{}] * 6)
    del fields["rm_scores"]
    with pytest.raises(EngineError, match=r"^rm_scores: is not in the queue, but credit needs it$"):
        QueuedBatch.of(fields, keys, tags)


def test_the_largest_log_probs_of_a_teacher_are_not_the_sampled_tokens():
    columns = {"prompts": [torch.ones(2)], "teacher_logprobs": [torch.zeros(4, 8)]}
    columns["response_mask"] = [torch.ones(2)]
    with pytest.raises(EngineError) as caught:
        QueuedBatch(["u_0_0"], [False], columns).logprobs("teacher")
    reason = "expected the sampled token's, got the 8 largest per token"
    assert str(caught.value) == f"teacher_logprobs: {reason}"


def test_the_engines_weight_is_the_outcomes_unless_it_has_its_own():
    own = {"process": 1.0, "engine": 2.0}
    assert with_engine(sc.PASS(weights=own)).weights == own
    moved = with_engine(sc.PASS(operator={"process": "abs_max", "outcome": "center"}))
    assert (moved.weights["engine"], moved.operator) == (1.0, {"process": "abs_max"})
    with pytest.raises(EngineError) as caught:
        with_engine(sc.PASS(weights={"engine": 1.0, "outcome": 1.0}))
    reason = "counts the outcome twice: verl's own advantage holds it"
    assert str(caught.value) == f"algorithm.stepcredit.fields.weights: {reason}"


def test_a_weight_of_a_stream_that_no_response_has_is_warned_of(made):
    weights = {"process": 1.0, "judge": 1.0, "unused": 0.0, "outcome": 1.0}
    queued = QueuedBatch.of(*made.queue(made.step_extras()))
    credit = BatchCredit(queued, settings(fields={"weights": weights}))
    found = {kind: line for kind, line in credit.warnings().items() if kind.startswith("absent/")}
    assert list(found) == ["absent/judge"]
    assert found["absent/judge"].startswith(
        "algorithm.stepcredit.fields.weights.judge: no response of the batch has this stream"
    )
    bare = BatchCredit(QueuedBatch.of(*made.queue([{} for _ in made.UIDS])), settings())
    assert not any(kind.startswith("absent/") for kind in bare.warnings())
