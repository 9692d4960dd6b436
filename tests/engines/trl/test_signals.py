"""Signals in TRL: what they are asked, what comes of their scores, what is refused at start."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from tests.engines.trl.conftest import TINY
from tests.signals.tiny_models import save
from torch.nn.utils.rnn import pad_sequence

import stepcredit as sc
from stepcredit.engines.scoring_costs import ScoringMeter
from stepcredit.engines.trl.generation import Generation
from stepcredit.engines.trl.signal_streams import check_sources, policy_streams
from stepcredit.errors import EngineError, RolloutError
from stepcredit.lab.model import build_model
from stepcredit.prm.local import LocalPRM
from stepcredit.signals import Newline, Regex
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.programs.prefixes import SharedPrefix
from stepcredit.signals.signal_registry import signal

DIGIT = Regex(pattern=r"\d", inside="extend")


def noting(seen, per="steps"):
    """A signal that keeps the responses it was given."""

    def function(response):
        seen.append(response)
        size = len(response.steps) if per == "steps" else response.num_tokens
        return [response.token_ids[0] / 10 + place for place in range(size)]

    return Program(function, per=per)


def test_a_signal_sees_questions_ids_rows_groups_and_outcomes(make_trainer):
    seen = []
    data = Dataset.from_list([{"prompt": f"{n}+2*3=", "answer": n + 6} for n in range(4)])
    trainer = make_trainer(
        args={"max_steps": 2}, train_dataset=data, process_signal=noting(seen), splitter=DIGIT
    )
    trainer.train()
    batch = trainer.credited
    tokenizer = trainer._tokenizer
    assert len(seen) == 8
    for row, response in enumerate(seen):
        assert response.prompt == batch.prompts[row]
        assert list(response.prompt_ids) == tokenizer(response.prompt).input_ids
        assert list(response.token_ids) == batch.completion_ids[row]
        assert response.text == tokenizer.decode(response.token_ids, skip_special_tokens=True)
        assert response.facts["answer"] == batch.inputs[row]["answer"]
        assert response.facts["group"] == int(batch.rollouts.group_index[row])
        assert response.facts["outcome"] == float(batch.rollouts.outcome[row])
    steps = batch.rollouts.streams["process"]
    assert steps.ends.tolist() == [end for r in seen for end in r.step_ends]
    assert any(len(response.steps) > 1 for response in seen)
    expected = trainer.estimator(batch.rollouts).padded(batch.mask)
    assert torch.equal(batch.advantages, expected)


def test_steps_are_paragraphs_where_no_splitter_is_given(make_trainer, task):
    ids = [task.tokenizer(text).input_ids for text in ("1\n2\n\n<3>$", "4$")]
    prompts = [[{"role": "user", "content": "1+2="}], "4="]
    sampled = Generation([{}] * 2, prompts, ["", ""], ids, torch.zeros(2, 3))
    output = {
        "completion_ids": pad_sequence(list(map(torch.tensor, ids)), batch_first=True),
        "prompt_ids": torch.tensor([[1], [4]]),
        "prompt_mask": torch.ones(2, 1, dtype=torch.long),
    }
    output["completion_mask"] = torch.arange(9) < torch.tensor([[9], [2]])
    trainer = make_trainer(outcome_reward="accuracy")
    generation = trainer._with_facts(sampled.with_output(output, 0), output, ScoringMeter())
    assert generation.prompt_ids == [[1], [4]]
    assert [r.step_texts for r in generation.responses] == [["1\n2\n\n", "<3>"], ["4"]]
    assert [r.step_ends for r in generation.responses] == [[4, 8], [1]]
    assert [r.prompt for r in generation.responses] == ["1+2=", "4="]


def test_a_signal_of_tokens_gives_a_score_a_token(make_trainer):
    seen = []
    trainer = make_trainer(
        args={"max_steps": 2},
        method=sc.PASS(chunks="tokens", gate=False),
        process_signal=noting(seen, per="tokens"),
    )
    trainer.train()
    stream = trainer.credited.rollouts.streams["process"]
    assert isinstance(stream, sc.Tokens)
    assert stream.counts.tolist() == [len(ids) for ids in trainer.credited.completion_ids]


def test_several_signals_and_callables_are_streams_of_their_names(make_trainer):
    given = {
        "program": noting([]),
        "teacher": noting([], per="tokens"),
        "mine": lambda completion_ids, **_: [([len(ids) - 1], [1.0]) for ids in completion_ids],
    }
    estimator = sc.PASS(weights=dict.fromkeys(given, 1.0), gate=False)
    trainer = make_trainer(
        args={"max_steps": 2}, method=estimator, process_signal=given, splitter=Newline()
    )
    trainer.train()
    streams = trainer.credited.rollouts.streams
    assert {name: type(stream) for name, stream in streams.items()} == {
        "program": sc.Steps,
        "teacher": sc.Tokens,
        "mine": sc.Steps,
    }


def test_groups_and_outcomes_suffice_for_the_groups_own_statistics(make_trainer):
    trainer = make_trainer(
        args={"max_steps": 2}, process_signal=SharedPrefix(), outcome_reward="task_reward"
    )
    trainer.train()
    stream = trainer.credited.rollouts.streams["process"]
    low, high = trainer.credited.rollouts.outcome.aminmax()
    assert bool((stream.values >= low).all() & (stream.values <= high).all())


def test_a_local_prm_scores_what_the_policy_writes(make_trainer, tmp_path):
    """The reward model has a tokenizer of its own: scores come back to the policy's tokens."""
    words = {"tag": "#", "verdicts": "+-"}
    folder = save(tmp_path / "prm")
    prm = LocalPRM(folder, "math-shepherd", protocol_settings=words, device="cpu", empty="score")
    trainer = make_trainer(args={"max_steps": 2}, process_signal=prm, splitter=DIGIT)
    trainer.train()
    batch = trainer.credited
    stream = batch.rollouts.streams["process"]
    last = batch.rollouts.lengths - 1
    assert stream.ends[stream.counts.cumsum(0) - 1].tolist() == last.tolist()
    assert bool(((stream.values > 0) & (stream.values < 1)).all())
    assert int(stream.counts.max()) > 1
    assert stream.values.unique().numel() > 4


def test_log_probs_of_a_local_teacher_are_those_of_its_forward(make_trainer, task):
    teacher = build_model(task.tokenizer, TINY).eval()
    given = {"teacher": LocalLogProbs(teacher, tokenizer=task.tokenizer)}
    trainer = make_trainer(args={"max_steps": 2}, logprobs=given)
    trainer.train()
    sampled = trainer.credited
    rows = trainer.credited.rollouts.logprobs["teacher"]
    found = torch.split(rows.values, rows.counts.tolist())
    for prompt, own, values in zip(sampled.prompt_ids, sampled.completion_ids, found, strict=True):
        with torch.no_grad():
            logits = teacher(torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(own)), torch.tensor(own)]
        assert torch.allclose(values.float(), expected, atol=1e-5)


NAMES = "student, teacher, base, prm, ref"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"process_signal": "prm"},
            "process_signal: expected a Signal or a callable, got str",
        ),
        (
            {"process_signal": {"prm": None}},
            "process_signal.prm: expected a Signal or a callable, got NoneType",
        ),
        (
            {"logprobs": Program(len, per="tokens")},
            f"logprobs: expected {{model: signal}}, where the model is one of {NAMES}; "
            "got one signal",
        ),
        (
            {"logprobs": {"tutor": Program(len, per="tokens")}},
            f"logprobs.tutor: expected one of {NAMES}",
        ),
        (
            {"logprobs": {"teacher": signal("arithmetic")}},
            "logprobs.teacher: it scores steps, but there must be one log-prob per token",
        ),
    ],
)
def test_sources_that_cannot_be_asked_are_refused_at_start(make_trainer, given, line):
    with pytest.raises(EngineError) as refused:
        check_sources(given.get("process_signal"), given.get("logprobs"))
    assert str(refused.value) == line
    with pytest.raises(EngineError):
        make_trainer(**given)


def test_token_signals_and_several_streams_are_taken(make_trainer):
    def signal(completion_ids, **_):
        tokens = sc.Tokens(
            [[(-1.0) ** t * token / 20 for t, token in enumerate(ids)] for ids in completion_ids]
        )
        steps = [([len(ids) - 1], [float(len(ids))]) for ids in completion_ids]
        return {"teacher": tokens, "prm": steps}

    weights = {"teacher": 1.0, "prm": 0.5, "outcome": 1.0}
    trainer = make_trainer(
        method=sc.PASS(weights=weights, chunks="tokens", gate=False), process_signal=signal
    )
    trainer.train()
    streams = trainer.credited.rollouts.streams
    assert isinstance(streams["teacher"], sc.Tokens)
    assert isinstance(streams["prm"], sc.Steps)
    assert any(row.unique().numel() > 3 for row in trainer.credited.advantages)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ([([0], [1.0])], "process_signal: answered for 1 completions of 2"),
        (
            [0.5, 0.5],
            "process_signal: must give Steps, Tokens, or one (step_ends, step_scores) "
            "per completion, got list",
        ),
        (
            None,
            "process_signal: must give Steps, Tokens, or one (step_ends, step_scores) "
            "per completion, got NoneType",
        ),
    ],
)
def test_a_process_signal_of_another_form_is_refused(answer, line):
    with pytest.raises(EngineError) as refused:
        policy_streams(answer, torch.ones(2, 3, dtype=torch.bool))
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ([40, 41], "row 0: process: last step ends at 41, but the response's last token is 11"),
        ([1, 1], "row 0: ends: 1 follows 1: ends must increase"),
    ],
)
def test_steps_that_do_not_fit_are_told_by_row_and_field(make_trainer, ends, line):
    def signal(completion_ids, **_):
        return [(ends, [0.5] * len(ends)) for _ in completion_ids]

    with pytest.raises(RolloutError) as refused:
        make_trainer(process_signal=signal).train()
    assert str(refused.value) == line


def test_holes_in_a_token_signal_are_left_out():
    present = torch.tensor([[True, False, True, False], [True, True, True, True]])
    stream = policy_streams(sc.Tokens([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0, 4.0]]), present)
    assert stream.counts.tolist() == [2, 4]
    assert stream.values.tolist() == [0.1, 0.3, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("written", "values", "ends"),
    [
        ([1, 1, 0, 0], [1.0, 2.0], [1]),  # a tool's answer ends the completion
        ([1, 0, 0, 1], [1.0, 4.0], [0, 1]),
        ([0, 1, 1, 1], [2.0, 3.0, 4.0], [0, 2]),
        ([1, 1, 1, 1], [1.0, 2.0, 3.0, 4.0], [1, 3]),
    ],
)
def test_only_the_policys_tokens_count_wherever_a_tool_wrote(written, values, ends):
    policy = torch.tensor([written, [1, 1, 0, 0]]).bool()  # the second row is padded on the right
    tokens = policy_streams(sc.Tokens([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]), policy, [4, 2])
    assert tokens.values.tolist() == [*values, 5.0, 6.0]
    steps = policy_streams([([1, 3], [0.5, 0.25]), ([1], [0.75])], policy, [4, 2])
    assert steps.ends.tolist() == [*ends, 1]
    assert steps.values.tolist() == [*[0.5, 0.25][: len(ends)], 0.75]
