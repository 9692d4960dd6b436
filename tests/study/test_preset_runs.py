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


def tiny_runs(preset: str, folder: Path) -> Runs:
    """Every run of a preset's first seed with the settings of the micro study."""
    return {
        (cell.label, cell.signal): run_once(
            replace(cell.settings, **{**MICRO_LAB, "updates": 2, "prompts": 4, "seed": 1}),
            folder / "cache",
            folder / "run",
            lambda _: None,
        )
        for cell in first_seed(preset)
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Runs:
    """The runs of the preset `answers`; seed 1 has an outcome for some of the eight prompts."""
    return tiny_runs("answers", tmp_path_factory.mktemp("answers"))


def test_the_answers_preset_runs_without_outcomes(answers: Runs) -> None:
    assert len(answers) == 11
    for (label, signal), found in answers.items():
        assert found.signal_calls == (0 if label.startswith("grpo") else 2 * 4 * 4)
        assert all(0 <= row["pass_at_1"] <= 1 for row in found.curve), (label, signal)
        if signal == "answered-0" and label in ("pass", "pass-min"):
            assert found.curve[0]["outcome_std"] == 0
