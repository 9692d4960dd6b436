"""The keys under `algorithm.stepcredit`: what they build, and what is refused in one line."""

from __future__ import annotations

import pytest

import stepcredit as sc
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.errors import EngineError
from stepcredit.signals.combine import Clipped, Weighted
from stepcredit.signals.models.ratios import models_from_rows
from stepcredit.signals.signal_registry import signal


def settings(**given):
    return VerlSettings.of({"algorithm": {"adv_estimator": "grpo", "stepcredit": given}})


@pytest.mark.parametrize("algorithm", [{}, {"stepcredit": None}, {"stepcredit": {}}])
def test_nothing_given_is_pass_with_its_defaults(algorithm):
    found = VerlSettings.of({"algorithm": algorithm})
    assert found.estimator == sc.PASS()
    assert found.signals == {}
    assert found.splitter.name == "blank-line"
    assert found.splitter.inside == "extend"
    assert (found.outcome_reward, found.format_reward, found.format_gate) == (None, None, None)


def test_all_keys_build_what_they_name():
    found = settings(
        method="pure",
        fields={"temperature": 0.5, "max_length": 32},
        process_signal={"a": "equations", "b": "opd"},
        process_signal_fields={"b": {"clamp": 3.0}},
        splitter="regex",
        splitter_fields={"pattern": "Step", "inside": "refuse"},
        outcome_reward="exact",
        format_reward="format",
        format_reward_fields={"template": "boxed"},
        format_gate=0.5,
    )
    assert found.estimator == sc.PURE(temperature=0.5, max_length=32)
    assert found.signals["b"].clamp == 3.0
    assert (found.splitter.pattern, found.splitter.inside) == ("Step", "refuse")
    assert found.outcome_reward.name == "exact"
    assert found.format_reward([r"\boxed{5}"]) == [1.0]
    assert found.format_gate == 0.5


def test_one_signal_by_name_is_the_stream_process():
    found = settings(process_signal="opd", process_signal_fields={"per": "steps"})
    assert found.signals["process"].grain == "steps"


def test_a_module_of_ones_own_is_imported_first(tmp_path):
    """As in each worker of verl: the settings alone import it."""
    (tmp_path / "my_verl_signal.py").write_text(
        "from dataclasses import dataclass\n"
        "import stepcredit as sc\n"
        "@sc.register_signal('keyed-lengths')\n"
        "@dataclass(frozen=True)\n"
        "class Lengths(sc.Signal):\n"
        "    grain = 'steps'\n"
        "    identity = {}\n"
        "    def stream(self, responses): yield from ()\n"
    )
    path = str(tmp_path / "my_verl_signal.py")
    found = settings(**{"import": [path]}, process_signal="keyed-lengths")
    assert found.signals["process"].name == "keyed-lengths"


def test_a_module_that_fails_names_key_and_file(tmp_path):
    path = tmp_path / "torn_verl_signal.py"
    path.write_text("\nraise RuntimeError('no')\n")
    with pytest.raises(EngineError) as refused:
        settings(**{"import": str(path)})
    assert str(refused.value) == f"algorithm.stepcredit.import: {path}: line 2: RuntimeError: no"


def test_a_method_of_methods_by_name():
    conf = pytest.importorskip("omegaconf").OmegaConf
    inner = {"pass": {"k": 1.0, "weights": [1, 0, 0]}}
    given = {"method": "mix", "fields": {"first": "rloo", "second": inner, "share": 0.25}}
    found = VerlSettings.of(conf.create({"algorithm": {"stepcredit": given}}))
    assert found.estimator == sc.Mix(first="rloo", second=inner, share=0.25)


def test_a_signal_of_a_signal_by_name():
    inner = {"answer-progress": {"model": "a-folder"}}
    found = settings(
        process_signal="difference", process_signal_fields={"signal": inner, "start": 0.25}
    ).signals["process"]
    assert (found.name, found.start, found.signal.name) == ("difference", 0.25, "answer-progress")
    ratio = settings(
        process_signal="aggregate", process_signal_fields={"signal": "opd", "how": "min"}
    )
    assert list(ratio.scored_in_trainer) == ["process"]
    assert models_from_rows(ratio.signals) == {"student", "teacher"}


def test_a_list_of_servers_is_taken_wherever_one_is():
    urls = ["http://a:8000", "http://b:8000"]
    judge = settings(process_signal="judge", process_signal_fields={"url": urls, "model": "m"})
    assert judge.signals["process"].urls == tuple(urls)
    teacher = {"url": urls, "model": "m"}
    distilled = settings(process_signal="opd", process_signal_fields={"teacher": teacher})
    assert distilled.signals["process"].teacher.urls == tuple(urls)


def test_nodes_of_omegaconf_are_read_as_what_they_hold():
    conf = pytest.importorskip("omegaconf").OmegaConf
    tree = {
        "k": 0.25,
        "algorithm": {
            "stepcredit": {
                "fields": {"k": "${k}", "weights": [1, 2, 3]},
                "splitter": "tags",
                "splitter_fields": {"tags": ["a", "b"]},
            }
        },
    }
    found = VerlSettings.of(conf.create(tree))
    assert found.estimator == sc.PASS(k=0.25, weights=[1, 2, 3])
    assert tuple(found.splitter.tags) == ("a", "b")


@pytest.mark.parametrize(
    ("name", "fields", "in_trainer"),
    [
        ("equations", {}, False),
        ("shared-prefix", {}, True),
        ("opd", {}, True),
        ("opd", {"teacher": "a-folder"}, True),
        ("opd", {"teacher": "a-folder", "student": "another"}, False),
    ],
)
def test_signals_are_scored_where_what_they_read_is_known(name, fields, in_trainer):
    found = settings(process_signal=name, process_signal_fields=fields)
    assert list(found.scored_in_trainer) == ["process"] * in_trainer
    assert list(found.scored_with_rewards) == ["process"] * (not in_trainer)


def test_steps_that_are_an_agents_turns_are_scored_where_the_turns_are_known():
    signals = {"a": "equations", "b": "logprobs"}
    fields = {"weights": {"a": 1.0, "b": 1.0}}
    given = {"process_signal": signals, "fields": fields}
    given["process_signal_fields"] = {"b": {"model": "a-folder"}}
    assert list(settings(**given, splitter="turns").scored_in_trainer) == ["a"]
    assert list(settings(**given, splitter="turns").scored_with_rewards) == ["b"]
    assert list(settings(**given).scored_in_trainer) == []


def test_log_probs_are_seen_through_signals_made_of_signals():
    inner = signal("g-opd", base="a-folder", tokenizer="a-folder")
    assert models_from_rows(Weighted((Clipped(inner), Clipped(inner)))) == {"student", "teacher"}
    assert models_from_rows(Weighted((signal("equations"),))) == set()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"metod": "pure"}, "metod: no such key, did you mean 'method'?"),
        ({"method": "pas"}, "method: unknown method 'pas', did you mean 'pass'?"),
        ({"method": 3}, "method: expected the name of a method, got 3"),
        ({"fields": {"kk": 1}}, "fields.kk: pass has no such field, did you mean 'k'?"),
        ({"fields": {"k": -1}}, "fields.k: expected a number of at least 0, got -1"),
        (
            {"method": "mix", "fields": {"second": {"pass": {"k": -1}}}},
            "fields.second.k: expected a number of at least 0, got -1",
        ),
        (
            {"method": "redistribute", "fields": {"outcome": "pass"}},
            "fields.outcome: 'pass' reads a process signal or log-probs: expected a method of "
            "outcomes, such as grpo",
        ),
        ({"fields": [1]}, "fields: expected a mapping, got [1]"),
        (
            {"process_signal_fields": {"model": "m"}},
            "process_signal_fields: fields without a signal: set its name too",
        ),
        (
            {"process_signal": "equation"},
            "process_signal: unknown signal 'equation', did you mean 'equations'?",
        ),
        (
            {
                "process_signal": "difference",
                "process_signal_fields": {"signal": {"opd": {"x": 1}}},
            },
            "process_signal_fields.signal.x: opd has no such field: expected tokenizer, "
            "max_tokens_per_batch, device, dtype, unscorable, temperature, clamp, per, teacher, "
            "student",
        ),
        (
            {"process_signal": {"a": "opd"}, "process_signal_fields": {"b": {}}},
            "process_signal_fields.b: no such stream: expected a",
        ),
        (
            {"process_signal": {"process": "opd"}, "process_signal_fields": {"process": {"x": 1}}},
            "process_signal_fields.process.x: opd has no such field: expected tokenizer, "
            "max_tokens_per_batch, device, dtype, unscorable, temperature, clamp, per, teacher, "
            "student",
        ),
        (
            {"process_signal": {"engine": "opd"}},
            "process_signal.engine: this name is taken: a process stream needs another",
        ),
        (
            {"process_signal": "equations", "fields": {"weights": {"outcome": 1.0}}},
            "fields.weights: the stream 'process' has no weight, the weights are outcome: 1",
        ),
        (
            {"process_signal": {"prm": "opd"}},
            "fields.weights: the stream 'prm' has no weight, the weights are process: 1, "
            "outcome: 1, format: 1",
        ),
        ({"splitter": "lines"}, "splitter: unknown splitter 'lines', did you mean 'newline'?"),
        (
            {"format_reward_fields": {"template": "boxed"}},
            "format_reward_fields: fields without a reward: set its name too",
        ),
        ({"format_gate": True}, "format_gate: expected a finite number, got True"),
        ({"preflight": "no"}, "preflight: expected true or false, got 'no'"),
        ({"right_above": "0.5"}, "right_above: expected a finite number, got '0.5'"),
        ({"right_above": float("nan")}, "right_above: expected a finite number, got nan"),
    ],
)
def test_a_refusal_is_one_line_that_begins_with_the_key(given, line):
    with pytest.raises(EngineError) as caught:
        settings(**given)
    assert str(caught.value) == f"algorithm.stepcredit.{line}"


def test_a_signal_that_the_weights_name_is_taken():
    weights = {"prm": 1.0, "outcome": 1.0}
    found = settings(process_signal={"prm": "equations"}, fields={"weights": weights})
    assert list(found.signals) == ["prm"]


def test_a_method_without_process_streams_lets_any_signal_be():
    assert settings(method="gdpo", process_signal={"prm": "equations"}).estimator == sc.GDPO()


def test_what_stands_in_the_place_of_the_keys_is_refused():
    with pytest.raises(EngineError) as caught:
        VerlSettings.of({"algorithm": {"stepcredit": "pass"}})
    assert str(caught.value) == "algorithm.stepcredit: expected a mapping, got 'pass'"


@pytest.mark.parametrize(
    ("gate", "kept"), [(None, [True, False, True, True]), (0.5, [True, False, False, True])]
)
def test_the_gate_tells_which_format_rewards_keep_the_format(gate, kept):
    found = settings(format_gate=gate)
    assert [found.keeps_format(reward) for reward in (None, 0.0, 0.25, 0.5)] == kept
