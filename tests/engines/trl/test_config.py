"""`StepCreditConfig`: from YAML to the trainer."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import fields

import pytest
from trl import GRPOConfig, TrlParser

import stepcredit as sc
from stepcredit.engines.trl.config import OLD_NAMES, StepCreditConfig
from stepcredit.errors import EngineError
from stepcredit.signals import Newline, Regex
from stepcredit.signals.programs.checked import Arithmetic

YAML = """\
output_dir: {folder}
max_steps: 2
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
method: pass
fields:
  weights: {{process: 0.5, outcome: 1.0, format: 0.25}}
  k: 0.9
  clip: 4.0
process_signal: arithmetic
process_signal_fields: {{neutral: 0.75}}
outcome_reward: accuracy
format_reward: format_reward
format_gate: 0.5
splitter: regex
splitter_fields: {{pattern: '\\d'}}
"""


@pytest.fixture
def parsed(tmp_path):
    """The YAML's config, with flags of the command line after it."""
    path = tmp_path / "recipe.yaml"
    path.write_text(YAML.format(folder=tmp_path / "out"))

    def parse(*flags):
        parser = TrlParser(StepCreditConfig)
        return parser.parse_args_and_config(["--config", str(path), *flags])[0]

    return parse


def test_a_method_of_methods_in_yaml(tmp_path):
    given = """
method: mix
fields:
  share: 0.25
  first: rloo
  second: {pass: {k: 1.0, weights: {process: 1.0}}}
"""
    path = tmp_path / "recipe.yaml"
    base = YAML.format(folder=tmp_path / "out")
    path.write_text(base[: base.index("method:")] + given.lstrip())
    config = TrlParser(StepCreditConfig).parse_args_and_config(["--config", str(path)])[0]
    inner = {"pass": {"k": 1.0, "weights": {"process": 1.0}}}
    assert config.credit()["method"] == sc.Mix(first="rloo", second=inner, share=0.25)
    path.write_text(path.read_text().replace("k: 1.0", "kk: 1.0"))
    with pytest.raises(EngineError) as refused:
        TrlParser(StepCreditConfig).parse_args_and_config(["--config", str(path)])
    line = "fields.second.kk: pass has no such field, did you mean 'k'?"
    assert str(refused.value) == line


def test_a_signal_of_a_signal_in_yaml(parsed):
    flags = ["--process_signal", "difference", "--process_signal_fields"]
    found = parsed(*flags, '{"start": 0.5, "signal": {"arithmetic": {"neutral": 0.25}}}')
    signal = found.credit()["process_signal"]
    assert (signal.start, signal.signal) == (0.5, Arithmetic(neutral=0.25))


@pytest.fixture
def bare(config):
    """A maker of StepCreditConfig with the settings of the other tests."""

    def make(**changes):
        plain = config()
        known = {f.name: getattr(plain, f.name) for f in fields(GRPOConfig) if f.init}
        known |= {"generation_batch_size": None, "bf16": False}
        return StepCreditConfig(**{**known, **changes})

    return make


def test_yaml_reaches_the_trainer(parsed, make_trainer):
    trainer = make_trainer(
        args=None,
        config=parsed(),
        method=None,
        process_signal=None,
        outcome_reward=None,
        format_reward=None,
    )
    weights = {"process": 0.5, "outcome": 1.0, "format": 0.25}
    assert trainer.estimator == sc.PASS(weights=weights, k=0.9, clip=4.0)
    assert trainer.process_signal == Arithmetic(neutral=0.75)
    assert (trainer.outcome_reward, trainer.format_reward) == ("accuracy", "format_reward")
    assert trainer.format_gate == 0.5
    assert trainer.splitter == Regex(pattern=r"\d", inside="extend")
    trainer.train()
    assert trainer.credited.rollouts.streams["process"].counts.sum() > 8


def test_a_keyword_wins_over_the_config(parsed, make_trainer):
    trainer = make_trainer(
        config=parsed(),
        method="grpo",
        process_signal=len,
        outcome_reward="task_reward",
        format_reward=None,
        format_gate=0.125,
        splitter=Newline(),
    )
    assert trainer.estimator == sc.GRPO()
    assert trainer.process_signal is len
    assert (trainer.outcome_reward, trainer.format_reward) == ("task_reward", "format_reward")
    assert (trainer.format_gate, trainer.splitter) == (0.125, Newline())


def test_flags_win_over_yaml(parsed):
    changed = parsed("--method", "pure", "--fields", '{"temperature": 0.2}')
    assert changed.credit()["method"] == sc.PURE(temperature=0.2)
    assert changed.format_gate == 0.5


def test_without_settings_it_is_pass(make_trainer, bare):
    nothing = dict.fromkeys(("method", "process_signal", "outcome_reward", "format_reward"))
    for trainer in (make_trainer(**nothing), make_trainer(config=bare(), **nothing)):
        assert trainer.estimator == sc.PASS()
        assert trainer.process_signal is trainer.outcome_reward is trainer.format_reward is None
        assert trainer.splitter is trainer.logprobs is None


def test_every_field_of_ours_has_help_that_argparse_can_show():
    known = {field.name for field in fields(GRPOConfig)} | OLD_NAMES.keys()
    own = [field for field in fields(StepCreditConfig) if field.name not in known]
    assert len(own) == 17
    for field in own:
        parser = ArgumentParser()
        parser.add_argument(f"--{field.name}", help=field.metadata["help"])
        assert field.metadata["help"].endswith(".")
        assert field.metadata["help"][:20] in parser.format_help()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "pas"}, "method: unknown method 'pas', did you mean 'pass'?"),
        (
            {"fields": {"kk": 1}},
            "fields.kk: pass has no such field, did you mean 'k'?",
        ),
        ({"fields": "k=1"}, "fields: expected a mapping, got 'k=1'"),
        (
            {"splitter_fields": {"inside": "cut"}},
            "splitter_fields.inside: expected one of refuse, extend, got 'cut'",
        ),
        (
            {"process_signal_fields": {"neutral": 1.0}},
            "process_signal_fields: fields without a signal: set its name too",
        ),
        (
            {"process_signal": "arithmetics"},
            "process_signal: unknown signal 'arithmetics', did you mean 'arithmetic'?",
        ),
    ],
)
def test_settings_refused_name_their_key(bare, changes, line):
    with pytest.raises(EngineError) as refused:
        bare(**changes)
    assert str(refused.value) == line


def test_the_old_names_are_read_with_a_warning(bare, make_trainer):
    with pytest.warns(
        FutureWarning,
        match=r"the setting estimator is now called method; the old name goes in 0\.2\.0$",
    ):
        config = bare(estimator="pure", estimator_fields={"temperature": 0.5})
    assert (config.method, config.fields) == ("pure", {"temperature": 0.5})
    assert config.credit()["method"] == sc.PURE(temperature=0.5)
    with pytest.warns(
        FutureWarning,
        match=r"the setting estimator is now called method; the old name goes in 0\.2\.0$",
    ):
        assert make_trainer(method=None, estimator="grpo").estimator == sc.GRPO()


def test_trl_s_own_parser_reads_the_old_names(tmp_path, parsed):
    path = tmp_path / "recipe.yaml"
    parsed()
    text = (
        path.read_text()
        .replace("method:", "estimator:")
        .replace("\nfields:", "\nestimator_fields:")
    )
    path.write_text(text)
    with pytest.warns(
        FutureWarning,
        match=r"the setting estimator_fields is now called fields; the old name goes in 0\.2\.0$",
    ):
        assert parsed().credit()["method"].k == 0.9


def test_an_old_name_beside_the_new_one_is_refused(bare, make_trainer):
    line = "^estimator: it is the old name of method: give only method$"
    with pytest.raises(EngineError, match=line):
        bare(estimator="pure", method="pass")
    with pytest.raises(EngineError, match=line):
        make_trainer(estimator="pure", method="pass")
