"""A study of tiny runs; as a script, `python micro_study.py STORE CACHE` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from tests.lab.micro import MICRO_WARM

from stepcredit.study.study_cells import Arm, Block, Preset
from stepcredit.study.study_runner import RunOptions, StudyTally, run_study
from stepcredit.study.study_store import StudyStore

MICRO_LAB = {
    "updates": 4,
    "prompts": 2,
    "group_size": 4,
    "evaluation_problems": 8,
    "max_new_tokens": 40,
    "warm": MICRO_WARM,
}
MICRO = Preset(
    "micro",
    "Two methods on two signals.",
    "tuning",
    (
        Block(
            "arithmetic",
            {name: {"signal": name} for name in ("noisy", "hackable")},
            (Arm("grpo", "grpo"), Arm("pass", "pass"), Arm("k", "pass", {"k": 0.7})),
            (0, 1),
            MICRO_LAB,
        ),
    ),
)
"""12 cells; 6 runs, as GRPO reads no signal and two arms have one setting."""


def run_micro(path: Path, cache: Path, preset: Preset = MICRO, workers: int = 2) -> StudyTally:
    """Run the study, and return what became of its runs."""
    with StudyStore(path, create=True) as store:
        console = Console(stderr=True, width=120)
        options = RunOptions(workers=workers, cache_dir=cache)
        return run_study(preset.name, preset.cells(), store, options, console)


if __name__ == "__main__":
    run_micro(Path(sys.argv[1]), Path(sys.argv[2]))
