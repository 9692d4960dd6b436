"""Chooses each method's settings on the tuning seeds, by one rule, and writes them to a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import StepCreditError
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.run_key import plain_value
from stepcredit.study.study_cells import Arm, Preset
from stepcredit.study.study_data import StudyData

TUNING = "tuning"
TIE = 0.005
RULE = (
    "For each task and method: of the settings under which no run on a tuning seed collapsed, the "
    "one with the highest mean pass@1 over the tuning seeds on the first signal; of settings "
    f"within {TIE} of it, the first one listed. If every setting collapsed somewhere, the one "
    "with the highest mean."
)


@dataclass(frozen=True)
class Candidate:
    """One setting of a method that was tried.

    Args:
        arm: the method with the setting.
        mean: mean pass@1 over the tuning seeds on the first signal.
        runs: runs that it was tried in.
        collapsed: runs that collapsed.
    """

    arm: Arm
    mean: float
    runs: int
    collapsed: int


def base_label(label: str) -> str:
    """The label of an arm without its point of the grid.

    Example:
        >>> base_label("pass [k=1.0]")
        'pass'
    """
    return label.partition(" [")[0]


def candidates(preset: Preset, data: StudyData) -> dict[str, dict[str, list[Candidate]]]:
    """Every setting that was tried, by task and method.

    Raises:
        StepCreditError: a run of the preset is missing.
    """
    found: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for task in dict.fromkeys(block.task for block in preset.blocks):
        arms = {arm.label: arm for b in preset.blocks if b.task == task for arm in b.arms}
        for arm in arms.values():
            tried = _tried(preset.name, task, arm, data)
            found[task][base_label(arm.label)].append(tried)
    return found


def _tried(preset: str, task: str, arm: Arm, data: StudyData) -> Candidate:
    runs = data.cell_runs(preset, task=task, label=arm.label)
    missing = [run for run in runs if run.after is None]
    if missing or not runs:
        reason = f"{len(missing)} of {len(runs)} runs are missing: run `stepcredit study tune`"
        raise StepCreditError(reason, field=f"{arm.label} on {task}")
    first = [run.pass_at_1 for run in runs if run.signal == runs[0].signal]
    return Candidate(arm, fmean(first), len(runs), sum(map(has_collapsed, runs)))


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
    sound = [one for one in tried if one.collapsed == 0] or list(tried)
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
    figures = {"pass_at_1": round(candidate.mean, 4), "runs": candidate.runs}
    return {**_settings(candidate), **figures, "collapsed": candidate.collapsed}
