"""Each run of the presets with lab settings of their own, in a tiny size."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

pytest.importorskip("trl")

from tests.study.micro_study import MICRO_LAB

from stepcredit.study.single_run import RunResult, run_once
from stepcredit.study.study_cells import Cell
from stepcredit.study.study_presets import find_preset

Runs = dict[tuple[str, str], RunResult]


def first_seed(preset: str) -> list[Cell]:
    """The cells of the first seed, each run once."""
    cells = {cell.key: cell for cell in reversed(find_preset(preset, None).slice().cells())}
    return [cell for cell in cells.values() if cell.seed == 100]


def tiny_runs(preset: str, folder: Path, labels: tuple[str, ...] = ()) -> Runs:
    """The runs of a preset's first seed, or of some arms, with the settings of the micro study."""
    return {
        (cell.label, cell.signal): run_once(
            replace(cell.settings, **{**MICRO_LAB, "updates": 2, "prompts": 4, "seed": 1}),
            folder / "cache",
            folder / "run",
            lambda _: None,
        )
        for cell in first_seed(preset)
        if not labels or cell.label in labels
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Runs:
    """The runs of the preset `answers`; seed 1 has an outcome for some of the eight prompts."""
    labels = ("grpo", "pure", "pass", "pass-min")
    return tiny_runs("answers", tmp_path_factory.mktemp("answers"), labels)


def test_the_answers_preset_runs_without_outcomes(answers: Runs) -> None:
    assert len(answers) == 4 + 3
    for (label, signal), found in answers.items():
        assert found.signal_calls == (0 if label.startswith("grpo") else 2 * 4 * 4)
        assert all(0 <= row["pass_at_1"] <= 1 for row in found.curve), (label, signal)
        if signal == "answered-0" and label in ("pass", "pass-min"):
            assert found.curve[0]["outcome_std"] == 0


def test_the_no_prm_preset_counts_the_answers_that_were_continued(tmp_path: Path) -> None:
    found = tiny_runs("no-prm", tmp_path, ("pass", "grpo"))
    calls = {place: run.monte_carlo_calls for place, run in found.items()}
    continued = calls.pop(("pass", "monte-carlo"))
    assert continued > 0
    assert continued % 4 == 0
    assert set(calls.values()) == {0}
    assert {signal for label, signal in found if label == "pass"} == {
        "monte-carlo",
        "answer-progress",
        "shared-prefix",
    }


def test_in_the_no_prm_preset_the_arms_on_the_prm_are_runs_of_main() -> None:
    main = [cell for cell in find_preset("main", None).cells() if cell.seed == 100]
    noisy = {cell.label: cell.key for cell in main if cell.signal == "noisy"}
    for cell in find_preset("no-prm", None).cells():
        if cell.seed == 100 and cell.label.endswith(":prm"):
            assert cell.key == noisy[cell.label.removesuffix(":prm")]
