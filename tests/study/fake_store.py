"""A store of invented runs, for the page: no training, but every stage after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stepcredit.keys import keyed_generator
from stepcredit.study.single_run import CURVE, EvaluatedSplit, RunResult
from stepcredit.study.study_cells import Cell, Preset
from stepcredit.study.study_store import Origin, StudyStore

PROBLEMS, SAMPLES, START = 256, 8, 0.42
ORIGIN = Origin("2 x test", "Python 3, torch 2", "abc")
GAINS = {"pass": 0.12, "pass-min": 0.13, "pass:sum": 0.02, "reward-shaping": 0.12}


def fill_store(
    path: Path,
    preset: Preset,
    gains: Mapping[str, float],
    collapse: str = "",
    cells: Sequence[Cell] | None = None,
) -> None:
    """Write one invented run per cell; an arm's pass@1 ends `gains` above the warm start's.

    Runs of the arm `collapse` end far below it, at 1.8 times its length. Without `cells` they are
    all those of the preset.
    """
    with StudyStore(path, create=True) as store:
        cells = preset.cells() if cells is None else cells
        store.plan(preset.name, cells)
        for cell in cells:
            store.add(
                cell, invented(cell, gains.get(cell.label, 0.05), cell.label == collapse), ORIGIN
            )


def invented(cell: Cell, gain: float, collapsed: bool) -> RunResult:
    """A run whose problems have a difficulty of their own, and whose seed has an effect."""
    difficulty = keyed_generator(0, "difficulty").normal(0, 0.15, PROBLEMS)
    generator = keyed_generator(cell.seed, cell.key)
    effect = keyed_generator(cell.seed, "warm").normal(0, 0.02)
    before = evaluated(np.clip(START + effect + difficulty, 0, 1), cell.seed, 28.0, 0.5)
    splits = ["2 hops", "3 hops", "4 hops"] if cell.task == "multihop" else ["held-out"]
    level = 0.1 if collapsed else START + effect + gain + generator.normal(0, 0.02)
    length = 50.0 if collapsed else 28.0
    after = evaluated(np.clip(level + difficulty, 0, 1), generator.integers(1 << 30), length, 0.1)
    curve = [
        {"update": 10 * i, **dict.fromkeys(CURVE, START + gain * i / 12), "teacher_kl": None}
        for i in range(1, 13)
    ]
    if cell.task == "agent":
        curve = [{**row, "turns": 6.0 - i / 12} for i, row in enumerate(curve, 1)]
        before, after = (_with_turns(one, t) for one, t in ((before, 6.0), (after, 5.0)))
    every = [[replace(one, split=split) for split in splits] for one in (before, after)]
    start = f"{cell.task}{cell.seed}"
    return RunResult(start, *every, curve, 30.0, 35.0, 300_000, 11_520, 0)


def _with_turns(found: EvaluatedSplit, turns: float) -> EvaluatedSplit:
    return replace(found, figures={**found.figures, "turns": turns})


def evaluated(chance: np.ndarray, seed: int, length: float, fillers: float) -> EvaluatedSplit:
    """Answers drawn with each problem's chance of being right."""
    correct = np.random.default_rng(seed).binomial(SAMPLES, chance)
    figures = {
        "pass_at_1": correct.mean() / SAMPLES,
        "pass_at_8": float((correct > 0).mean()),
        "length": length,
        "fillers": fillers,
        "step_accuracy": None,
        "format": 0.9,
    }
    return EvaluatedSplit("held-out", SAMPLES, tuple(correct.tolist()), figures)


def scores(path: Path, label: str, signal: str) -> dict[int, np.ndarray]:
    """Each seed's share of right answers by problem, read without any code of the study."""
    base = sqlite3.connect(path)
    rows = base.execute(
        "SELECT part.seed, evaluation.correct FROM part JOIN evaluation ON owner = part.key "
        "WHERE preset = 'main' AND task = 'arithmetic' AND label = ? AND signal = ?",
        (label, signal),
    ).fetchall()
    base.close()
    return {seed: np.frombuffer(blob, np.uint8) / SAMPLES for seed, blob in rows}
