"""`stepcredit train`: what its options mean and how it ends."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from stepcredit.cli.output import errors_to_stderr
from stepcredit.cli.standard_streams import Stopped
from stepcredit.cli.train import train_command
from stepcredit.lab import comparison as lab

app = typer.Typer()
app.command("train")(errors_to_stderr(train_command))
app.command("other")(lambda: None)


def run(*arguments: str):
    return CliRunner().invoke(app, ["train", *arguments])


@pytest.fixture
def asked(monkeypatch):
    """The arguments of the lab's two jobs, which are not run."""
    calls = []
    monkeypatch.setattr(lab, "train", lambda *args: calls.append(("train", *args)))
    monkeypatch.setattr(lab, "resume", lambda *args: calls.append(("resume", *args)))
    return calls


def test_the_options_become_settings(asked, tmp_path):
    result = run(
        *["--method", "pass-min", "--set", "temperature=0.3", "--set", "operator=center"],
        *["--compare", "none", "--signal", "hackable", "--seed", "2", "--updates", "7"],
        *["--name", "mine", "--runs-dir", str(tmp_path), "--cache-dir", str(tmp_path / "c")],
    )
    assert result.exit_code == 0, result.output
    ((job, settings, runs, name, cache),) = asked
    assert (job, runs, name, cache) == ("train", tmp_path, "mine", tmp_path / "c")
    assert settings.estimators()[0][1].temperature == 0.3
    assert settings.estimators()[0][1].operator == "center"
    assert (settings.compare, settings.signal, settings.updates) == (None, "hackable", 7)
    assert settings.seed == settings.warm.seed == settings.teacher.seed == 2


def test_the_default_is_pass_against_grpo_on_the_noisy_signal(asked):
    assert run().exit_code == 0
    settings = asked[0][1]
    assert [label for label, _ in settings.estimators()] == ["pass", "grpo"]
    assert (settings.signal, settings.updates, settings.seed) == ("noisy", 120, 0)


def test_a_task_comes_with_its_options_signal_and_sizes(asked):
    arguments = ["--task", "multihop", "--signal", "g-opd-steps-mismatched", "--seed", "4"]
    assert run(*arguments).exit_code == 0
    settings = asked[0][1]
    assert (settings.task, settings.warm.task, settings.teacher.task) == ("multihop",) * 3
    assert settings.signal == "g-opd-steps-mismatched"
    assert settings.seed == settings.warm.seed == 4
    assert settings.teacher.seed == 0  # one teacher for all runs
    chosen = ["--task-set", "operations=6-10", "--model", "medium"]
    assert run(*chosen).exit_code == 0
    assert asked[1][1].task_fields == {"operations": "6-10"}
    assert asked[1][1].warm.model.layers == 4


def test_gigpo_is_accepted_where_tools_make_states_and_refused_elsewhere(asked):
    assert run("--task", "agent", "--method", "gigpo", "--signal", "none").exit_code == 0
    settings = asked[0][1]
    assert (settings.task, settings.method, settings.signal) == ("agent", "gigpo", "none")
    refused = run("--method", "gigpo")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "gigpo: compares steps taken in one state, and the task 'arithmetic' has no tools whose "
        "answers make states: try the task agent\n"
    )


def test_quick_is_small(asked):
    assert run("--quick", "--seed", "1").exit_code == 0
    assert asked[0][1].updates < 10
    assert asked[0][1].warm.seed == 1


def test_resume_takes_the_folder_and_no_settings(asked, tmp_path):
    assert run("--resume", str(tmp_path)).exit_code == 0
    assert asked[0][:2] == ("resume", tmp_path)
    for option, value in (("--set", "k=1"), ("--task-set", "operations=6-10")):
        refused = run("--resume", str(tmp_path), option, value)
        assert refused.exit_code == 1
        assert refused.stderr == f"{option}: the run has its own settings; leave this out\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "kk=1"], "--set kk: pass has no such field, did you mean 'k'?"),
        (["--set", "k=-1"], "--set k: expected a number of at least 0, got -1"),
        (["--task", "multihops"], "task: unknown task 'multihops', did you mean 'multihop'?"),
        (
            ["--task-set", "operation=6-10"],
            "task_fields.operation: arithmetic has no such field, did you mean 'operations'?",
        ),
        (["--model", "huge"], "model: expected one of small, medium, got 'huge'"),
        (
            ["--signal", "opd"],
            "signal: expected one of exact, noisy, hackable, centred, negative, monte-carlo, "
            "answer-progress, shared-prefix, got 'opd'",
        ),
        (["--updates", "0"], "updates: expected a positive number, got 0"),
        (["--seed", "-1"], "seed: expected a whole number from 0 to 4294967295, got -1"),
        (["--quick", "--seed", "-1"], "seed: expected a whole number from 0 to 4294967295, got -1"),
        (
            ["--signal", "loud"],
            "signal: expected one of exact, noisy, hackable, centred, negative, monte-carlo, "
            "answer-progress, shared-prefix, got 'loud'",
        ),
    ],
)
def test_a_wrong_option_is_told_in_one_line_before_anything_is_done(asked, arguments, line):
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (1, line + "\n")
    assert asked == []


def test_an_interrupt_tells_how_to_go_on(monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt("interrupted; continue with: stepcredit train --resume runs/x")

    monkeypatch.setattr(lab, "train", stopped)
    result = run()
    assert result.exit_code == 130
    assert result.stderr == "interrupted; continue with: stepcredit train --resume runs/x\n"


def test_a_stop_signal_tells_the_same_and_keeps_its_code(monkeypatch, tmp_path):
    def stopped(*_):
        raise Stopped(15)

    monkeypatch.setattr(lab, "_all_methods", stopped)
    result = run("--quick", "--name", "x", "--runs-dir", str(tmp_path))
    assert result.exit_code == 143
    line = f"interrupted; continue with: stepcredit train --resume {tmp_path / 'x'}\n"
    assert result.stderr == line
