"""What the trainer says, refuses and warns about before the first generation is sampled."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, fields
from typing import Any

import pytest
from trl import GRPOConfig

import stepcredit as sc
from stepcredit.credit.metrics.batch_warnings import CreditWarning
from stepcredit.engines.run_record import FILE
from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.errors import EngineError
from stepcredit.signals import Newline

SUMS = sc.signal("arithmetic")
BY_NAME = {"process": 1.0, "outcome": 1.0, "format": 0.3}


@pytest.fixture
def ours(config):
    """A maker of StepCreditConfig with the settings of the other tests."""

    def make(**changes: Any) -> StepCreditConfig:
        plain = config()
        known = {f.name: getattr(plain, f.name) for f in fields(GRPOConfig) if f.init}
        known |= {"generation_batch_size": None, "bf16": False}
        return StepCreditConfig(**{**known, **changes})

    return make


def refused(make: Any, **changes: Any) -> str:
    with pytest.raises(EngineError) as caught:
        make(**changes)
    return str(caught.value)


def test_a_method_by_name_has_the_config_s_fields(make_trainer, ours):
    config = ours(method="pass", fields={"k": 0.0, "clip": 1.0})
    assert make_trainer(config=config, method="pass").estimator == sc.PASS(k=0.0, clip=1.0)
    with pytest.warns(FutureWarning):
        old = make_trainer(config=config, method=None, estimator="pass")
    assert old.estimator == sc.PASS(k=0.0, clip=1.0)
    with pytest.warns(UserWarning, match=r"^fields: left out, they are not those of method='grpo'"):
        assert make_trainer(config=config, method="grpo").estimator == sc.GRPO()
    assert make_trainer(config=config, method=sc.PASS(k=1.0)).estimator == sc.PASS(k=1.0)


def test_signals_and_splitters_are_given_by_name_too(make_trainer, ours):
    given = {
        "process_signal": {"sums": "arithmetic"},
        "process_signal_fields": {"sums": {"neutral": 0.75}},
        "splitter": "regex",
        "splitter_fields": {"pattern": "x"},
        "fields": {"weights": {"sums": 1.0, "outcome": 1.0}},
    }
    named = {"process_signal": {"sums": "arithmetic"}, "splitter": "regex", "method": None}
    trainer = make_trainer(config=ours(**given), **named)
    assert trainer.process_signal == {"sums": sc.signal("arithmetic", neutral=0.75)}
    assert (trainer.splitter.pattern, trainer.splitter.inside) == ("x", "extend")
    plain = make_trainer(process_signal="arithmetic", splitter="newline")
    assert (plain.process_signal, plain.splitter) == (SUMS, Newline(inside="extend"))
    one = ours(process_signal="arithmetic", process_signal_fields={"neutral": 0.75})
    with pytest.warns(UserWarning, match="^process_signal_fields: left out"):
        other = make_trainer(config=one, process_signal="equations")
    assert other.process_signal == sc.signal("equations")


@dataclass(frozen=True)
class Flat(sc.Estimator):
    """Its credit has two columns, where one per response is expected."""

    def credit(self, rollouts: sc.Rollouts) -> sc.Credit:
        return sc.Credit.flat(rollouts, rollouts.outcome[:, None].repeat(1, 2))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": sc.PASS}, "method: got the class PASS: call it, such as PASS()"),
        ({"method": "pas"}, "method: unknown method 'pas', did you mean 'pass'?"),
        ({"method": 7}, "method: expected a method or the name of one, got 7"),
        (
            {"method": Flat()},
            "method: credit() returns advantages of shape (2, 2), expected (2, 1)",
        ),
        ({"splitter": Newline}, "splitter: got the class Newline: call it, such as Newline()"),
        ({"splitter": "newlin"}, "splitter: unknown splitter 'newlin', did you mean 'newline'?"),
        ({"splitter": len}, f"splitter: expected a splitter or the name of one, got {len!r}"),
        (
            {"process_signal": "arithmetics"},
            "process_signal: unknown signal 'arithmetics', did you mean 'arithmetic'?",
        ),
        (
            {"process_signal": type(SUMS)},
            "process_signal: got the class Arithmetic: call it, such as Arithmetic()",
        ),
        (
            {"process_signal": {"process": "sums"}},
            "process_signal.process: unknown signal 'sums'",
        ),
        ({"right_above": "0.5"}, "right_above: expected a finite number, got '0.5'"),
        ({"right_above": float("nan")}, "right_above: expected a finite number, got nan"),
        ({"format_gate": float("nan")}, "format_gate: expected a finite number, got nan"),
        (
            {"format_reward": "accuracy"},
            "format_reward: accuracy is the outcome_reward too, so it would count twice",
        ),
        ({"rollouts_dir": 7}, "rollouts_dir: expected a folder, got 7"),
        (
            {"process_signal": {"outcome": SUMS}},
            "process_signal.outcome: this name is taken: a process stream needs another",
        ),
        ({"format_gate": "0.5"}, "format_gate: expected a number, a callable or None, got '0.5'"),
        (
            {"method": sc.PASS(weights={**BY_NAME, "prm": 2.0})},
            "fields.weights.prm: no such stream: there are process, outcome, format",
        ),
        (
            {"method": sc.PASS(weights={"prm": 1.0, "outcome": 1.0}), "process_signal": None},
            "fields.weights.prm: no such stream: there are outcome, format",
        ),
        (
            {"method": sc.ProcessGRPO(), "process_signal": None},
            "method: grpo-process needs a process stream",
        ),
        (
            {"method": sc.PURE(), "process_signal": {"a": SUMS, "b": SUMS}},
            "method: reads one process stream, named 'process'; there are a, b",
        ),
    ],
)
def test_what_is_refused_at_the_start(make_trainer, changes, line):
    assert refused(make_trainer, **{"process_signal": SUMS, **changes}).startswith(line)


def test_a_weight_of_no_stream_is_allowed_at_0_or_for_the_default(make_trainer):
    make_trainer(method=sc.PASS(weights={**BY_NAME, "prm": 0.0}), process_signal=SUMS)
    make_trainer(method=sc.PASS(), process_signal=None)


def dictionary(completion_ids: list[list[int]], **_: Any) -> dict[str, Any]:
    return {"prm": [([len(ids) - 1], [0.5]) for ids in completion_ids]}


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (
            {"process": 1.0, "outcome": 1.0},
            "fields.weights: the stream 'prm' has no weight, the weights are process: 1, "
            "outcome: 1",
        ),
        (
            {"prm": 1.0, "judge": 1.0, "outcome": 1.0},
            "fields.weights.judge: no such stream: there are prm, outcome, format",
        ),
    ],
)
def test_streams_of_a_callable_are_checked_with_the_first_generation(make_trainer, weights, line):
    trainer = make_trainer(method=sc.PASS(weights=weights), process_signal=dictionary)
    with pytest.raises(EngineError) as caught:
        trainer.train()
    assert str(caught.value) == line
    assert trainer.state.global_step == 0


def test_a_single_stream_of_a_callable_is_the_stream_process(make_trainer, capsys):
    trainer = make_trainer(method=sc.PASS(weights={"prm": 1.0, "outcome": 1.0}))
    with pytest.raises(EngineError) as caught:
        trainer.train()
    assert str(caught.value) == (
        "fields.weights: the stream 'process' has no weight, the weights are prm: 1, outcome: 1"
    )
    assert trainer.state.global_step == 0
    shown = capsys.readouterr().out
    assert "in_threes (its streams are known with the first batch)" in shown
    assert "no such stream is given" not in shown


def told(make_trainer: Any, **changes: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(**changes)
    return [str(each.message) for each in caught if each.category is CreditWarning]


def test_what_is_computed_for_nothing_is_told(make_trainer):
    assert told(make_trainer) == []
    assert told(make_trainer, method="grpo", process_signal=SUMS, format_reward=None) == [
        "process_signal: grpo reads no process stream: it is for the metrics alone"
    ]
    teacher = {"teacher": lambda completion_ids, **_: None}
    assert told(make_trainer, logprobs=teacher) == ["logprobs: pass does not read those of teacher"]
    unweighted = sc.PASS(weights={"process": 0.0, "outcome": 1.0})
    assert told(make_trainer, method=unweighted, process_signal=SUMS) == [
        "process_signal: the stream 'process' has weight 0: it is for the metrics alone"
    ]
    assert told(make_trainer, method="rloo", process_signal=None) == [
        "format_reward: rloo reads no format reward: format_reward trains nothing"
    ]


def test_the_credit_is_printed_once_and_stored(make_trainer, tmp_path, capsys):
    trainer = make_trainer(
        process_signal=sc.signal("arithmetic", neutral=0.75), splitter="newline", format_gate=0.5
    )
    capsys.readouterr()
    trainer.train()
    shown = capsys.readouterr().out
    lines = shown[shown.index("credit by pass(") :].splitlines()[:7]
    assert "k=0.7" in lines[0]
    assert "clip=5.0" in lines[0]
    assert lines[1:] == [
        "  process: arithmetic(neutral=0.75) (weight 1)",
        "  outcome: accuracy (weight 1)",
        "  format: format_reward (weight 0.3)",
        "  steps: newline(inside='extend')",
        "  task_reward: trains nothing",
        *lines[6:],
    ]
    assert shown.count("credit by ") == 1
    stored = json.loads((tmp_path / FILE).read_text())
    assert stored["credit"] == trainer.credit_record
    assert len(stored["run"]) == 32


def test_the_gate_and_the_sum_of_rewards_are_said(make_trainer, capsys):
    trainer = make_trainer(method=sc.PASS(), outcome_reward=None, format_gate=0.5)
    trainer.train()
    shown = capsys.readouterr().out.splitlines()
    assert "  outcome: task_reward + accuracy (weight 1)" in shown or (
        "  outcome: accuracy + task_reward (weight 1)" in shown
    )
    assert "  gate: a response keeps its format where the reward is at least 0.5" in shown


def test_a_batch_of_gated_responses_warns_once(make_trainer):
    def broken(completions: list[Any], **_: Any) -> list[float]:
        return [-float(i % 2) for i in range(len(completions))]

    trainer = make_trainer(
        method=sc.PASS(),
        reward_funcs=[broken, never_right],
        outcome_reward="never_right",
        format_reward="broken",
    )
    with pytest.warns(CreditWarning) as caught:
        trainer.train()
    lines = [str(each.message) for each in caught if each.category is CreditWarning]
    gated = [line for line in lines if "broke their format" in line]
    assert gated == [
        "all 8 responses broke their format, so none of them learns from its outcome or its steps; "
        "the format reward is at most 0: set format_gate"
    ]


def never_right(completions: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def test_right_is_above_the_setting(make_trainer, ours):
    def partial(completions: list[Any], **_: Any) -> list[float]:
        return [0.2 + 0.1 * (i % 4) for i in range(len(completions))]

    args = {"reward_funcs": [partial], "outcome_reward": None, "format_reward": None}
    trainer = make_trainer(**args, right_above=0.35)
    trainer.train()
    figures = trainer.state.log_history[0]
    assert figures["stepcredit/right_above"] == 0.35
    assert figures["stepcredit/right_share"] == 0.5
    assert {"stepcredit/agreement/process", "stepcredit/length_wrong"} <= figures.keys()
    assert make_trainer(**args, config=ours(right_above=0.25)).right_above == 0.25
    with pytest.warns(CreditWarning, match="all are right at right_above=0:"):
        make_trainer(**args).train()


def test_names_of_metrics_are_the_streams_own(make_trainer):
    weights = {"s-ums": 1.0, "sums": 1.0, "outcome": 1.0}
    streams = {"sums": SUMS, "s-ums": SUMS}
    trainer = make_trainer(method=sc.PASS(weights=weights), process_signal=streams)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {"stepcredit/variance/sums", "stepcredit/variance/s-ums"} <= logged.keys()


def test_responses_that_are_cut_are_counted(make_trainer, short):
    trainer = make_trainer(process_signal=short, splitter="newline")
    assert isinstance(trainer, StepCreditGRPOTrainer)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["stepcredit/unscored_share/process"] > 0
    assert 0 <= logged["stepcredit/cut_share/process"] < 1
    total = logged["stepcredit/unscored_share/process"] + logged["stepcredit/cut_share/process"]
    assert total <= 1


@pytest.fixture
def short():
    """A signal that scores the first step of every second response, and nothing of the others."""

    @dataclass(frozen=True)
    class Short(sc.Signal):
        grain = "steps"
        may_leave_out = True  # type: ignore[assignment]

        @property
        def identity(self) -> dict[str, Any]:
            return {"signal": "short"}

        def stream(self, responses):
            for index, response in enumerate(responses):
                yield index, [float(len(response.text))] if index % 2 else []

    return Short()


def test_a_sum_of_rewards_is_not_called_right_without_a_word(make_trainer):
    """Either reward alone would count as a right answer in the metrics and in pass@k."""
    told = "right_above: the outcome is accuracy \\+ format_reward"
    summed = {"outcome_reward": None, "format_reward": None, "method": "grpo"}
    summed["process_signal"] = None
    with pytest.warns(CreditWarning, match=told):
        make_trainer(**summed)
    for roles in ({"right_above": 1.0}, {"outcome_reward": "accuracy"}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make_trainer(**{**summed, **roles})
        assert [each for each in caught if "right_above" in str(each.message)] == []


def test_weights_that_are_all_0_are_refused(make_trainer):
    line = refused(make_trainer, method=sc.PASS(weights=(0.0, 0.0, 0.0)), process_signal=SUMS)
    assert line == "fields.weights: all are 0: nothing would be learned"
