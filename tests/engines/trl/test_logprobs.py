"""Log-probs in TRL: the policy's own, its reference's, and signals and methods made of them."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from tests.engines.trl.conftest import TINY
from trl import GRPOConfig, TrlParser

import stepcredit as sc
from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.engines.trl.policy_logprobs import needed_models
from stepcredit.errors import EngineError
from stepcredit.lab.model import build_model
from stepcredit.signals import Cached
from stepcredit.signals.combine import Affine
from stepcredit.signals.models.ratios import Distillation, GeneralizedDistillation
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.signal_registry import signal

YAML = """\
output_dir: {out}
max_steps: 4
learning_rate: 0.0
temperature: 0.7
per_device_train_batch_size: 4
steps_per_generation: 2
num_generations: 4
max_completion_length: 12
use_cpu: true
bf16: false
gradient_checkpointing: false
report_to: none
save_strategy: "no"
disable_tqdm: true
"""
SIGNAL = """\
process_signal: {{teacher: opd, rule: arithmetic}}
process_signal_fields:
  teacher: {{teacher: {teacher}, tokenizer: {teacher}, temperature: 0.7}}
  rule: {{neutral: 0.75}}
fields:
  weights: {{teacher: 1.0, rule: 0.5, outcome: 1.0}}
"""
METHOD = """\
method: opd
logprobs: {{teacher: logprobs}}
logprobs_fields: {{teacher: {{model: {teacher}, temperature: 0.7}}}}
"""


@pytest.fixture
def saved(tmp_path, task):
    """A maker of saved models: a folder by seed, the tokenizer beside the weights."""

    def make(seed):
        folder = tmp_path / f"model-{seed}"
        torch.manual_seed(seed)
        model = build_model(task.tokenizer, TINY)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3.0)
        model.save_pretrained(folder)
        task.tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture
def from_yaml(tmp_path, saved, make_trainer):
    """A maker of trainers by YAML, without a keyword of ours."""

    def make(text, **changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(YAML.format(out=tmp_path / "out") + text.format(teacher=saved(1)))
        config = TrlParser(StepCreditConfig).parse_args_and_config(["--config", str(path)])[0]
        for name, value in changes.items():
            setattr(config, name, value)
        nothing = dict.fromkeys(("method", "process_signal", "outcome_reward", "format_reward"))
        return make_trainer(config=config, **nothing)

    return make


def by_hand(model, sampled, temperature):
    """Log-probs of the completions' tokens, one completion at a time."""
    found = []
    for prompt, own in zip(sampled.prompt_ids, sampled.completion_ids, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1]
        logps = (logits.float() / temperature).log_softmax(-1)
        found.append(logps[torch.arange(len(own)), torch.tensor(own)])
    return torch.cat(found)


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_distillation_is_two_lines_of_yaml(from_yaml, tmp_path, monkeypatch, accumulation):
    """With TRL's own log-probs of the policy (it makes some for 1), and with our forward (2)."""
    trainer = from_yaml(SIGNAL, gradient_accumulation_steps=accumulation)
    generations = []
    original = type(trainer)._generate_and_score_completions

    def keep(self, inputs):
        output = original(self, inputs)
        generations.append((self.credited, "old_per_token_logps" in output))
        return output

    monkeypatch.setattr(type(trainer), "_generate_and_score_completions", keep)
    trainer.train()
    assert len(generations) == 2 * accumulation
    teacher, policy = loaded(tmp_path / "model-1"), trainer.model.eval()
    for batch, has_old in generations:
        assert has_old == (accumulation == 1)
        stream = batch.rollouts.streams["teacher"]
        assert isinstance(stream, sc.Tokens)
        ours = by_hand(policy, batch, 0.7)
        theirs = by_hand(teacher, batch, 0.7)
        assert torch.allclose(stream.values.float(), -(ours - theirs), atol=1e-4)
        assert float(stream.values.abs().max()) > 0.1
        assert isinstance(batch.rollouts.streams["rule"], sc.Steps)


INSIDE = """\
method: mix
fields: {{first: {{rlsd: {{outcome: rloo, eps: 0.5}}}}, second: {{reweight: {{outcome: rloo}}}}}}
outcome_reward: accuracy
logprobs: {{teacher: logprobs}}
logprobs_fields: {{teacher: {{model: {teacher}, temperature: 0.7}}}}
"""


def test_methods_inside_another_get_the_log_probs_that_they_read(from_yaml, tmp_path):
    trainer = from_yaml(INSIDE)
    assert trainer.estimator.reads.logprobs == ("student", "teacher")
    trainer.train()
    batch = trainer.credited
    assert set(batch.rollouts.logprobs) == {"student", "teacher"}
    outcome = torch.arange(batch.rollouts.num_rollouts).double()
    rollouts = batch.rollouts.replaced(
        outcomes=type(batch.rollouts.outcomes)(outcome, torch.ones_like(outcome, dtype=torch.bool))
    )
    ours = by_hand(trainer.model.eval(), batch, 0.7)
    theirs = by_hand(loaded(tmp_path / "model-1"), batch, 0.7)
    sizes = [len(ids) for ids in batch.completion_ids]
    flat = sc.RLOO()(rollouts).ragged()
    parts = zip(
        trainer.estimator(rollouts).ragged(),
        flat,
        ours.split(sizes),
        theirs.split(sizes),
        strict=True,
    )
    for got, a, student, teacher in parts:
        ratio = (a.sign() * (teacher - student)).exp().clamp(0.5, 1.5)
        surprise = -student / -student.mean()
        assert torch.allclose(got, a * (ratio + surprise) / 2, atol=1e-3)


def test_a_method_made_of_log_probs_gets_the_policys_own(from_yaml, tmp_path):
    trainer = from_yaml(METHOD)
    trainer.train()
    batch = trainer.credited
    ours = by_hand(trainer.model.eval(), batch, 0.7)
    theirs = by_hand(loaded(tmp_path / "model-1"), batch, 0.7)
    assert set(batch.rollouts.logprobs) == {"student", "teacher"}
    expected = (theirs - ours).split([len(ids) for ids in batch.completion_ids])
    for row, values in zip(batch.advantages, expected, strict=True):
        assert torch.allclose(row[: len(values)], values, atol=1e-4)
    logged = trainer.state.log_history[0]
    assert logged["stepcredit/share/logprobs"] == 1.0


def test_the_reference_is_the_base(saved, make_trainer, task):
    """TRL's reference is the model the policy was loaded from; the policy then moves away."""
    given = {"teacher": LocalLogProbs(saved(1), temperature=1.0)}
    args = {"beta": 0.1, "learning_rate": 0.05, "max_steps": 4, "num_iterations": 1}
    trainer = make_trainer(args=args, model=saved(2), method="g-opd", logprobs=given)
    trainer.train()
    batch = trainer.credited
    base = by_hand(loaded(saved(2)), batch, 1.0)
    found = batch.rollouts.logprobs
    assert torch.allclose(found["base"].values.float(), base, atol=1e-4)
    assert not torch.allclose(found["student"].values.float(), base, atol=1e-2)


def test_truncated_responses_have_log_probs_too(saved, make_trainer, task):
    args = {
        "mask_truncated_completions": True,
        "max_completion_length": 3,
        "learning_rate": 0.0,
        "max_steps": 2,
    }
    distilled = Distillation(teacher=saved(1), tokenizer=task.tokenizer)
    estimator = sc.PASS(chunks="tokens", gate=False)
    trainer = make_trainer(args=args, method=estimator, process_signal=distilled)
    trainer.train()
    batch = trainer.credited
    ours = by_hand(trainer.model.eval(), batch, 1.0)
    theirs = by_hand(loaded(saved(1)), batch, 1.0)
    assert not batch.mask.any(1).all()
    values = batch.rollouts.streams["process"].values
    assert torch.allclose(values.float(), theirs - ours, atol=1e-4)


def test_what_a_wrapped_signal_reads_is_seen(tmp_path):
    distilled = GeneralizedDistillation(teacher="t", tokenizer="t")
    wrapped = {"a": Affine(Cached(distilled, tmp_path / "scores.sqlite")), "b": len}
    assert needed_models(sc.PASS(), wrapped, None) == {"student", "base"}
    student = Distillation(teacher="t", student="s", tokenizer="t")
    assert needed_models(sc.PASS(), student, None) == set()
    assert needed_models(sc.OPD(), None, {"teacher": len}) == {"student"}
    assert needed_models(sc.OPD(), None, {"teacher": len, "student": len}) == set()
    assert needed_models(sc.OPD(), None, len) == set()


@pytest.mark.parametrize(
    ("given", "args", "line"),
    [
        (
            {"method": "opd"},
            {},
            "logprobs.teacher: opd is made of the teacher's log-probs: name a signal of them",
        ),
        (
            {"method": "g-opd", "logprobs": {"teacher": LocalLogProbs("t")}},
            {},
            "beta: 0.0 loads no reference, whose log-probs are the base's: set it above 0, or name "
            "a signal",
        ),
        (
            {"process_signal": signal("opd", teacher="t", tokenizer="t", temperature=0.5)},
            {},
            "temperature: 1, but the signal opd takes log-probs at 0.5: set both alike",
        ),
        (
            {"method": "opd", "logprobs": {"teacher": LocalLogProbs("t")}},
            {"temperature": 0.9},
            "temperature: 0.9, but logprobs.teacher takes log-probs at 1: set both alike",
        ),
        (
            {"process_signal": signal("implicit", prm="t", tokenizer="t")},
            {"beta": 0.1, "mask_truncated_completions": True, "model": "saved"},
            "mask_truncated_completions: True hides truncated responses from the reference, the "
            "ref's log-probs; leave it off",
        ),
    ],
)
def test_log_probs_that_nobody_gives_or_that_differ_are_refused(
    make_trainer, saved, given, args, line
):
    args = dict(args)
    model = {"model": saved(2)} if args.pop("model", None) else {}
    with pytest.raises(EngineError) as refused:
        make_trainer(args=args, **model, **given)
    assert str(refused.value) == line


def bare(config, **changes):
    plain = config()
    known = {f.name: getattr(plain, f.name) for f in fields(GRPOConfig) if f.init}
    known |= {"generation_batch_size": None, "bf16": False}
    return StepCreditConfig(**{**known, **changes})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"process_signal": {"rule": "arithmetics"}},
            "process_signal.rule: unknown signal 'arithmetics', did you mean 'arithmetic'?",
        ),
        (
            {
                "process_signal": {"rule": "arithmetic"},
                "process_signal_fields": {"rul": {"neutral": 1.0}},
            },
            "process_signal_fields.rul: no such stream, did you mean 'rule'?",
        ),
        (
            {
                "process_signal": {"rule": "arithmetic"},
                "process_signal_fields": {"rule": {"netral": 1.0}},
            },
            "process_signal_fields.rule.netral: arithmetic has no such field, did you mean "
            "'neutral'?",
        ),
        (
            {
                "process_signal": {"rule": "arithmetic"},
                "process_signal_fields": {"rule": 0.5},
            },
            "process_signal_fields.rule: expected a mapping, got 0.5",
        ),
        (
            {"logprobs": "logprobs"},
            "logprobs: expected {model: signal}, got 'logprobs'",
        ),
    ],
)
def test_settings_of_streams_are_refused_by_their_key(config, changes, line):
    with pytest.raises(EngineError) as refused:
        bare(config, **changes)
    assert str(refused.value) == line
