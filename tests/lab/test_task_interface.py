"""A task by its name: what settings choose with it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepcredit.errors import StepCreditError
from stepcredit.lab.lab_settings import LabSettings, quick_settings
from stepcredit.lab.task import task_named
from stepcredit.lab.task_registry import TASKS
from stepcredit.lab.warm_settings import WarmStartSettings


def test_the_default_is_the_arithmetic_task() -> None:
    settings = LabSettings()
    assert (settings.task, settings.signal, settings.max_new_tokens) == ("arithmetic", "noisy", 56)
    assert settings.warm == WarmStartSettings()
    assert quick_settings().task == "arithmetic"


@pytest.mark.parametrize("name", TASKS.names())
def test_a_tasks_settings_are_kept_and_loaded(name: str, tmp_path: Path) -> None:
    settings = LabSettings(task=name, seed=5)
    assert settings.signal == task_named(name).default_signal
    assert settings.warm.seed == settings.seed == 5
    assert settings.teacher.seed == task_named(name).teacher_seed(5)
    assert settings.max_new_tokens == task_named(name).max_new_tokens
    settings.save(tmp_path / "config.json")
    assert LabSettings.load(tmp_path / "config.json") == settings


def test_a_run_folder_from_before_tasks_had_names_loads(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    LabSettings(seed=3).save(path)
    written = json.loads(path.read_text())
    settings = written["settings"]
    for record in (settings, settings["warm"], settings["teacher"]):
        del record["task"], record["task_fields"]
    del settings["model"]
    path.write_text(json.dumps(written))
    assert LabSettings.load(path) == LabSettings(seed=3)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"task": "arithmatic"}, "task: unknown task 'arithmatic', did you mean 'arithmetic'?"),
        ({"task_fields": {"x": 1}}, "task_fields.x: arithmetic has no such field"),
        ({"model": "huge"}, "model: expected one of small, medium, got 'huge'"),
        (
            {"signal": "loud"},
            "signal: expected one of exact, noisy, hackable, centred, negative, monte-carlo, ",
        ),
        (
            {"task": "agent", "signal": "none", "signal_fields": {"flips": 0.1}},
            "signal_fields: has no setting 'flips', only its name",
        ),
    ],
)
def test_what_a_task_does_not_have_is_refused(options: dict[str, object], line: str) -> None:
    with pytest.raises(StepCreditError) as refused:
        LabSettings(**options)  # type: ignore[arg-type]
    assert str(refused.value).startswith(line)
