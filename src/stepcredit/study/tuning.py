"""Chooses each method's settings on the tuning seeds, by one rule, and writes them to a file.

Every setting is run on the first tuning seed. The better half of each method's settings there is
run on the other seeds too (successive halving), and one of these is chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import StepCreditError
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.run_key import plain_value
from stepcredit.study.study_cells import TUNING_SEEDS, Arm, Cell, Preset
from stepcredit.study.study_data import Run, StudyData

TUNING = "tuning"
TIE = 0.005
RULE = (
    "For each task and method: every setting is run on the first tuning seed, and the better half "
    "is kept, those without a collapse first, then by pass@1 on the first signal. The kept ones "
    "are run on the other tuning seeds. Of them, among those under which no run collapsed, the one "
    "with the highest mean pass@1 over the tuning seeds on the first signal is chosen; of settings "
    f"within {TIE} of it, the first one listed. If every kept setting collapsed somewhere, the one "
    "with the highest mean."
)


@dataclass(frozen=True)
class Candidate:
    """One setting of a method that was tried.

    Args:
        arm: the method with the setting.
        mean: mean pass@1 over the seeds it was run on, on the first signal.
        seeds: how many seeds it was run on.
        collapsed: runs that collapsed.
    """

    arm: Arm
    mean: float
    seeds: int
    collapsed: int


def base_label(label: str) -> str:
    """The label of an arm without its point of the grid.

    Example:
        >>> base_label("pass [k=1.0]")
        'pass'
    """
    return label.partition(" [")[0]


def first_round(preset: Preset) -> list[Cell]:
    """The runs of every setting on the first seed."""
    cells = preset.cells()
    return [cell for cell in cells if cell.seed == cells[0].seed]


def both_rounds(preset: Preset, data: StudyData) -> list[Cell]:
    """The first round, and the other seeds of the settings that it keeps.

    Args:
        preset: the tuning preset.
        data: the finished first round.

    Raises:
        StepCreditError: a run of the first round is missing.
    """
    cells = preset.cells()
    first = cells[0].seed
    tried = candidates(preset, data, {first})
    kept = {
        (task, candidate.arm.label)
        for task, methods in tried.items()
        for rows in methods.values()
        for candidate in better_half(rows)
    }
    return [cell for cell in cells if cell.seed == first or (cell.task, cell.label) in kept]


def better_half(tried: Sequence[Candidate]) -> list[Candidate]:
    """The better half of one method's settings, rounded up: what the second round runs.

    Example:
        >>> arms = [Arm("a", "pass"), Arm("b", "pass"), Arm("c", "pass")]
        >>> rows = zip(arms, (0.5, 0.6, 0.7), (1, 1, 1), (0, 0, 1))
        >>> [one.arm.label for one in better_half([Candidate(*row) for row in rows])]
        ['b', 'a']
    """
    ranked = sorted(tried, key=lambda one: (one.collapsed > 0, -one.mean))
    return ranked[: (len(tried) + 1) // 2]


def candidates(
    preset: Preset, data: StudyData, seeds: Collection[int] = TUNING_SEEDS
) -> dict[str, dict[str, list[Candidate]]]:
    """Every setting that was tried, by task and method.

    Args:
        preset: the tuning preset.
        data: its runs.
        seeds: the seeds that are looked at.

    Raises:
        StepCreditError: a run of the preset is missing.
    """
    found: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for task in dict.fromkeys(block.task for block in preset.blocks):
        arms = {arm.label: arm for b in preset.blocks if b.task == task for arm in b.arms}
        for arm in arms.values():
            every = data.cell_runs(preset.name, task=task, label=arm.label)
            tried = _tried(arm, task, [run for run in every if run.seed in seeds])
            found[task][base_label(arm.label)].append(tried)
    return found


def _tried(arm: Arm, task: str, runs: Sequence[Run]) -> Candidate:
    missing = [run for run in runs if run.after is None]
    if missing or not runs:
        reason = f"{len(missing)} of {len(runs)} runs are missing: run `stepcredit study tune`"
        raise StepCreditError(reason, field=f"{arm.label} on {task}")
    first = [run.pass_at_1 for run in runs if run.signal == runs[0].signal]
    seeds = len({run.seed for run in runs})
    return Candidate(arm, fmean(first), seeds, sum(map(has_collapsed, runs)))


def choose(tried: Sequence[Candidate]) -> Candidate:
    """The candidate that `RULE` picks.

    Args:
        tried: the settings of one method, in the order in which they are listed.

    Example:
        >>> arms = [Arm("a", "pass"), Arm("b", "pass"), Arm("c", "pass")]
        >>> means, collapsed = (0.50, 0.503, 0.7), (0, 0, 1)
        >>> choose([Candidate(*row) for row in zip(arms, means, (3, 3, 3), collapsed)]).arm.label
        'a'
    """
    seeds = max(one.seeds for one in tried)
    kept = [one for one in tried if one.seeds == seeds]
    sound = [one for one in kept if one.collapsed == 0] or kept
    best = max(one.mean for one in sound)
    return next(one for one in sound if one.mean >= best - TIE)


def write_tuned(preset: Preset, data: StudyData, path: Path) -> dict[str, dict[str, Candidate]]:
    """Write the chosen settings, and all that were tried, as YAML.

    Args:
        preset: the tuning preset.
        data: its runs.
        path: the file to write.

    Returns:
        The chosen candidate of each task and method.

    Raises:
        StepCreditError: a run is missing.
        FileError: the file can't be written.
    """
    import yaml

    tried = candidates(preset, data)
    chosen = {t: {label: choose(rows) for label, rows in by.items()} for t, by in tried.items()}
    content = {
        "rule": RULE,
        "chosen": {t: {m: _settings(c) for m, c in by.items()} for t, by in chosen.items()},
        "tried": {
            t: {m: [_line(c) for c in rows] for m, rows in by.items()} for t, by in tried.items()
        },
    }
    with file_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, width=100))
    return chosen


def _settings(candidate: Candidate) -> dict[str, Any]:
    return {"fields": plain_value(candidate.arm.fields), "lab": plain_value(candidate.arm.lab)}


def _line(candidate: Candidate) -> dict[str, Any]:
    figures = {"pass_at_1": round(candidate.mean, 4), "seeds": candidate.seeds}
    return {**_settings(candidate), **figures, "collapsed": candidate.collapsed}
