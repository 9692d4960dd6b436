"""A user's own methods, chunkers and splitters work through verl's keys as the library's do."""

from __future__ import annotations

import pytest
import torch
from tests.own_methods import AfterMark

from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.outcome_estimators import outcome_advantages, outcome_methods
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer

pytestmark = pytest.mark.usefixtures("own_methods")
OWN = "+algorithm.stepcredit"
LOSS = "distillation.distillation_loss"
TEACHER = ("distillation.enabled=true", f"{LOSS}.distillation_loss_coef=0")


def settings(**given):
    return VerlSettings.of({"algorithm": {"stepcredit": given}})


def credits(made, extras, ours, theirs, engine=None, **fields):
    """One batch's credit by a method of one's own and by one of the library's."""
    batch = QueuedBatch.of(*made.queue(extras, **fields))
    return [BatchCredit(batch, settings(**given), engine=engine) for given in (ours, theirs)]


def assert_same(ours, theirs, scale=1.0):
    rows = ours.rows()
    assert max(row.abs().max() for row in rows) > 0
    for row, expected in zip(rows, theirs.rows(), strict=True):
        torch.testing.assert_close(row, scale * expected)


def test_a_method_made_of_log_probs_gets_those_of_the_queue(made):
    student = [[-0.5 - 0.1 * t for t in range(len(mask))] for mask in made.MASKS]
    teacher = [[-0.9 + 0.07 * t for t in range(len(mask))] for mask in made.MASKS]
    shifted = [[9.0] * row + values + [9.0] for row, values in enumerate(teacher)]
    fields = {
        "old_log_probs": made.nested([*student, [0.0], [0.0]], torch.float32),
        "teacher_logprobs": [torch.tensor(row)[:, None] for row in [*shifted, [0.0], [0.0]]],
    }
    ours, opd = credits(made, [{}] * 6, {"method": "log-ratio"}, {"method": "opd"}, **fields)
    assert_same(ours, opd, scale=2.0)


def test_a_method_with_weights_of_its_own_name_gets_its_streams(made):
    weights = {"process": 2.0, "outcome": 0.5}
    fields = {"weights": weights, "gate": False}
    ours, other = credits(made, made.step_extras(), {"method": "blend"}, {"fields": fields})
    assert_same(ours, other)


def test_verls_own_advantage_gets_the_outcomes_weight(made):
    engine = [torch.linspace(-1, 1, len(m)) * (row + 1) for row, m in enumerate(made.MASKS)]
    rows = [*engine, torch.ones(1), torch.ones(1)]
    weights = {"process": 2.0, "engine": 0.5}
    fields = {"weights": weights, "gate": False}
    ours, other = credits(made, made.step_extras(), {"method": "blend"}, {"fields": fields}, rows)
    assert ours.estimator.shares == weights
    assert_same(ours, other)


def test_metrics_are_logged_of_it(made):
    batch = QueuedBatch.of(*made.queue(made.step_extras()))
    credit = BatchCredit(batch, settings(method="blend"), build_tokenizer())
    metrics = credit.metrics()
    assert metrics["stepcredit/steps"] == 2.0
    assert metrics["stepcredit/share/process"] > 0


def test_a_stream_without_a_weight_of_its_own_is_refused():
    with pytest.raises(EngineError) as caught:
        settings(method="blend", process_signal={"prm": "equations"})
    reason = "the stream 'prm' has no weight, the weights are process: 2, outcome: 0.5"
    assert str(caught.value) == f"algorithm.stepcredit.fields.weights: {reason}"
    shares = {"prm": 1.0, "outcome": 1.0}
    given = {"process_signal": {"prm": "equations"}, "fields": {"shares": shares}}
    assert list(settings(method="blend", **given).signals) == ["prm"]


def test_checks_at_start_ask_it_what_it_reads(compose):
    from stepcredit.engines.verl.trainer import checked_settings

    refused = {
        (f"{OWN}.method=log-ratio",): (
            "algorithm.stepcredit: reads teacher_logprobs: set distillation.enabled=true and "
            f"{LOSS}.distillation_loss_coef=0"
        ),
        (f"{OWN}.method=log-ratio", TEACHER[0]): (
            f"{LOSS}.distillation_loss_coef: 1.0 counts the teacher twice: it is in the "
            "advantages; set it to 0"
        ),
        ("algorithm.adv_estimator=gae", f"{OWN}.method=half-outcome"): (
            "algorithm.adv_estimator: 'half-outcome' can't take verl's own advantage (it weighs no "
            "process streams); use grpo"
        ),
    }
    for overrides, line in refused.items():
        with pytest.raises(EngineError) as caught:
            checked_settings(compose(*overrides))
        assert str(caught.value) == line
    for overrides in [
        (f"{OWN}.method=log-ratio", *TEACHER),
        ("algorithm.adv_estimator=gae", f"{OWN}.method=blend"),
        ("algorithm.norm_adv_by_std_in_grpo=false", f"{OWN}.method=half-outcome"),
    ]:
        assert checked_settings(compose(*overrides)).estimator is not None


def test_one_of_outcomes_alone_is_an_estimator_of_verls_too():
    assert "half-outcome" in outcome_methods()
    assert not {"log-ratio", "blend"} & set(outcome_methods())
    rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 0.5]]), torch.ones(2, 2)
    advantages, _ = outcome_advantages(rewards, mask, ["q", "q"], method="half-outcome")
    assert advantages.tolist() == [[0.5, 0.5], [0.25, 0.25]]


def scored_by_tokens(tokenizer, texts):
    """A batch of one group whose responses have a score per token."""
    ids = [torch.tensor(tokenizer.encode(each, add_special_tokens=False)) for each in texts]
    columns = {
        "uid": ["q"] * len(texts),
        "responses": ids,
        "prompts": [torch.tensor([3, 4])] * len(texts),
        "response_mask": [torch.ones(len(row), dtype=torch.int64) for row in ids],
        "rm_scores": [torch.zeros(len(row)) for row in ids],
        "extra_fields": [
            {"reward_extra_info": {"token_scores": [0.1 * (t + row) for t in range(len(each))]}}
            for row, each in enumerate(ids)
        ],
    }
    return QueuedBatch.of(columns, [f"q_{row}_0" for row in range(len(texts))], [{}] * len(texts))


@pytest.mark.parametrize(
    ("chunks", "same"),
    [
        ("every-n", {"windows": {"size": 2}}),
        ({"every-n": {"n": 3}}, {"windows": {"size": 3}}),
        ("after-dashes", {"delimiters": {"pattern": "-"}}),
    ],
)
def test_a_chunker_of_ones_own_is_named_with_its_options(chunks, same):
    tokenizer = build_tokenizer()
    batch = scored_by_tokens(tokenizer, ["12--3-44", "5-6"])
    ours, theirs = (
        BatchCredit(batch, settings(fields={"chunks": given}), tokenizer)
        for given in (chunks, same)
    )
    assert_same(ours, theirs)


def test_a_splitter_of_ones_own_is_named_with_its_fields():
    tokenizer = build_tokenizer()
    batch = scored_by_tokens(tokenizer, ["12--3-44", "5-6"])
    found = settings(splitter="after-mark", splitter_fields={"mark": "-"})
    assert found.splitter == AfterMark(inside="extend", mark="-")
    assert [r.step_ends for r in batch.responses(tokenizer, found.splitter)] == [
        [2, 3, 5, 7],
        [1, 2],
    ]
    with pytest.raises(EngineError) as caught:
        settings(splitter="after-marks")
    line = "splitter: unknown splitter 'after-marks', did you mean 'after-mark'?"
    assert str(caught.value) == f"algorithm.stepcredit.{line}"
    with pytest.raises(EngineError) as caught:
        settings(fields={"chunks": {"every-n": {"n": 0}}})
    reason = "n of 'every-n': expected a whole number of at least 1, got 0"
    assert str(caught.value) == f"algorithm.stepcredit.fields.chunks: {reason}"
