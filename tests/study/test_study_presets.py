"""Presets, keys and the store: what is equal is one run, and bad input is one clear line."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("trl")

import stepcredit as sc
from stepcredit.cli.study import app
from stepcredit.errors import StepCreditError
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.study.budget import study_order
from stepcredit.study.run_key import RUN_VERSION, run_key
from stepcredit.study.study_cells import FIRST_TEST_SEED, TUNING_SEEDS
from stepcredit.study.study_presets import find_preset, preset_names
from stepcredit.study.study_store import StudyStore

BLOCK = {"signals": ["noisy"], "arms": ["pass"], "seeds": "100-101"}
PRESET = {"about": "x", "role": "test", "blocks": [BLOCK]}


@pytest.mark.parametrize("name", preset_names())
def test_presets_of_the_package_are_sound(name: str) -> None:
    preset = find_preset(name, None)
    cells = preset.cells()
    assert cells or preset.left_out
    allowed = TUNING_SEEDS if preset.role == "tuning" else range(FIRST_TEST_SEED, 1000)
    assert all(cell.seed in allowed for cell in cells)
    assert all(c.settings.seed == c.settings.warm.seed == c.seed for c in cells)
    answers = {c.settings.evaluation_problems * c.settings.evaluation_samples for c in cells}
    assert all(number >= 2048 for number in answers)
    assert {c.key for c in preset.slice().cells()} <= {c.key for c in cells}
    assert all(c.label.split(":")[0].split(" [")[0] for c in cells)


def test_runs_of_one_preset_differ_and_shared_ones_are_shared() -> None:
    found = find_preset("main", None).cells()
    main = {(c.label, c.signal, c.seed): c.key for c in found if c.task == "arithmetic"}
    k = {(c.label, c.signal, c.seed): c.key for c in find_preset("k", None).cells()}
    assert main["pass", "noisy", 100] == k["pass", "noisy", 100]
    assert main["grpo", "noisy", 100] == main["grpo", "hackable", 100]
    own = {key for place, key in main.items() if place[0] != "grpo"}
    assert len(own) == len(main) - sum(place[0] == "grpo" for place in main)
    assert len(set(k.values())) == len(k)


def test_the_key_reads_resolved_settings_only() -> None:
    plain = LabSettings(compare=None)
    same = [
        replace(plain, fields={"k": 0.7}),
        replace(plain, fields={"clip": 5.0, "chunks": "auto"}),
        replace(plain, compare="grpo"),
    ]
    other = [
        replace(plain, fields={"k": 0.5}),
        replace(plain, seed=1),
        replace(plain, learning_rate=1e-4),
        replace(plain, warm=replace(plain.warm, target=0.44)),
        replace(plain, signal_fields={"filler": 0.7}),
        replace(plain, method="pass-min"),
    ]
    assert {run_key(settings) for settings in same} == {run_key(plain)}
    keys = [run_key(settings) for settings in [plain, *other]]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "8d6b62650c260531"),
        ({"seed": 100}, "ade8a9940d815ac9"),
        ({"method": "grpo"}, "86480258b06c4f8a"),
        ({"method": "pass-min", "signal": "hackable", "updates": 240}, "75febc841f197eb8"),
        ({"method": "pure", "learning_rate": 4e-5}, "e3ca1c7937be983a"),
        ({"task_fields": {"operations": "6-10"}}, "b05331ccc42ad25f"),
    ],
)
def test_a_new_setting_of_the_lab_changes_no_key(changes: dict, key: str) -> None:
    """The stores of earlier versions hold these keys."""
    assert run_key(LabSettings(compare=None, **changes)) == key


def test_in_the_answers_preset_an_arm_with_all_outcomes_is_a_run_of_the_plain_settings() -> None:
    cells = find_preset("answers", None).cells()
    keys = {(cell.label, cell.signal): cell.key for cell in cells if cell.seed == 100}
    assert {signal for label, signal in keys if label == "grpo"} == {"answered-10"}
    main = [cell for cell in find_preset("main", None).cells() if cell.seed == 100]
    noisy = {cell.label: cell.key for cell in main if cell.signal == "noisy"}
    for label in ("grpo", "pure", "pass", "pass-min"):
        assert keys[f"{label}:all", "answered-0"] == keys[f"{label}:all", "answered-10"]
        assert keys[f"{label}:all", "answered-0"] == noisy[label]
    assert len(set(keys.values())) == 4 + 4 + 3


def test_the_defaults_that_keys_leave_out_are_those_of_this_version() -> None:
    """Keys hold what differs from these. Raise `RUN_VERSION` if one of them changes."""
    plain, known = (
        LabSettings(compare=None),
        {
            "method": "pass",
            "signal": "noisy",
            "signal_fields": {},
            "updates": 120,
            "prompts": 12,
            "group_size": 8,
            "minibatches": 2,
            "learning_rate": 1.2e-4,
            "schedule": "constant",
            "beta1": 0.9,
            "beta2": 0.95,
            "clip_ratio": 0.2,
            "max_grad_norm": 1.0,
            "loss": "dapo",
            "weights": (1.0, 1.0, 0.3),
            "clip": 5.0,
            "max_new_tokens": 56,
            "evaluation_problems": 256,
            "evaluation_samples": 8,
            "threads": 1,
            "answered": 1.0,
        },
    )
    assert RUN_VERSION == 1
    assert {name: getattr(plain, name) for name in known} == known
    assert {name: sc.estimator("pass").__dict__[name] for name in ("k", "gamma", "scope")} == {
        "k": 0.7,
        "gamma": 1.0,
        "scope": "fused",
    }


def test_a_tuned_preset_takes_the_chosen_settings(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    chosen = {"pass": {"fields": {"k": 1.0}, "lab": {"learning_rate": 6e-5}}}
    path.write_text(yaml.safe_dump({"chosen": {"arithmetic": chosen, "multihop": {}}}))
    found = find_preset("main", path).cells()
    cells = {c.label: c.settings for c in found if c.task == "arithmetic"}
    assert cells["pass"].fields == {"k": 1.0}
    assert cells["pass:sum"].fields == {"k": 0.0}
    assert cells["pass"].learning_rate == cells["pass:sum"].learning_rate == 6e-5
    assert cells["pass-min"].learning_rate == cells["grpo"].learning_rate == 1.2e-4


def test_on_the_multihop_task_pass_reads_tokens_and_the_others_steps() -> None:
    cells = {c.label: c.settings for c in find_preset("main", None).cells() if c.signal == "g-opd"}
    assert cells["pass"].signal == cells["pass:sum"].signal == "g-opd"
    steps = ("pass:steps", "pure", "pure-sum", "pass-min", "grpo-process", "reward-shaping")
    assert {cells[label].signal for label in steps} == {"g-opd-steps"}


def test_the_teacher_of_the_multihop_task_is_one_for_all_seeds() -> None:
    cells = find_preset("main", None).cells()
    own = {
        task: [c.settings for c in cells if c.settings.task == task]
        for task in ("arithmetic", "multihop")
    }
    assert {settings.teacher.seed for settings in own["multihop"]} == {0}
    assert len({settings.warm.seed for settings in own["multihop"]}) >= 10
    assert all(settings.teacher.seed == settings.seed for settings in own["arithmetic"])


def test_the_order_of_the_study_names_every_preset() -> None:
    assert sorted(study_order()) == preset_names()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"role": "tuning"}, "seeds: 100 is no tuning seed: those are 0 to 9"),
        ({"role": "trial"}, "role: expected one of tuning, test, got 'trial'"),
        ({"about": None}, "about: is missing"),
        ({"arm": 1}, "arm: no such field"),
        ({"seeds": [3]}, "seeds: 3 is no test seed: those are 100 and above"),
        ({"seeds": "many"}, "block 1: seeds: expected a list of seeds or FIRST-LAST, got 'many'"),
        ({"arms": ["passs"]}, "block 1: arm passs: like: no such arm, did you mean 'pass'?"),
        ({"arms": ["pass", "pass"]}, "block 1: arms: two arms have one label"),
        ({"arms": [{"x": {"fields": {}}}]}, "block 1: arm x: method: is missing"),
        (
            {"arms": [{"x": {"like": "pass", "fields": {"k": -1}}}]},
            "arm x: k: expected a number of at least 0, got -1",
        ),
        ({"arms": [{"x": {"method": "no"}}]}, "arm x: "),
        ({"signals": ["loud"]}, "arm pass: signal: expected one of exact, noisy"),
        ({"lab": {"colour": 1}}, "arm pass: colour: the lab has no such setting"),
    ],
)
def test_a_bad_preset_is_one_clear_line(changes: dict, line: str, tmp_path: Path) -> None:
    given = {**PRESET, "blocks": [{**BLOCK}]}
    for name, value in changes.items():
        where = given["blocks"][0] if name in ("seeds", "arms", "signals", "lab") else given
        where[name] = value
        if value is None:
            del where[name]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(given))
    result = CliRunner().invoke(app, ["run", str(path), "--store", str(tmp_path / "s.sqlite")])
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("preset own: ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "mian"], "mian: no preset of this name, did you mean 'main'?"),
        (["run", "no.yaml"], "no.yaml: No such file or directory"),
        (["run", "main", "--tuned", "no.yaml"], "no.yaml: no such file: run `stepcredit study"),
        (["tune", "main", "--output", "x"], "evidence/tuned.yaml: no such file"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    StudyStore(path, create=True).close()
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 99")
    base.commit()
    base.close()
    with pytest.raises(StepCreditError, match="has format 99, and this version reads format 1"):
        StudyStore(path)
    other = tmp_path / "other.sqlite"
    base = sqlite3.connect(other)
    base.execute("CREATE TABLE x (y)")
    base.commit()
    base.close()
    with pytest.raises(StepCreditError, match="is not the store of a study"):
        StudyStore(other)
    with pytest.raises(StepCreditError, match="no such file"):
        StudyStore(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("hello, this is no database at all" * 50)
    with pytest.raises(StepCreditError, match="file is not a database"):
        StudyStore(tmp_path / "text.sqlite")
