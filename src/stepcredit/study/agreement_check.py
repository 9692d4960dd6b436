"""Whether runs that were done again agree with those before, within their intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from stepcredit.errors import StepCreditError
from stepcredit.study.paired_runs import problem_figures
from stepcredit.study.study_data import Run, StudyData
from stepcredit.study.study_statistics import crossed_mean


@dataclass(frozen=True)
class AgreementCheck:
    """Result of a comparison.

    Args:
        lines: one line per arm and signal.
        agrees: whether every arm agrees.
    """

    lines: tuple[str, ...]
    agrees: bool


def check_agreement(mine: StudyData, theirs: StudyData) -> AgreementCheck:
    """Compare the runs that two stores share, arm by arm; their devices may differ.

    An arm agrees if its new mean pass@1 lies in the 95 % interval of the mean before, over the same
    seeds and problems. On the same processor and libraries the numbers are equal.

    Args:
        mine: the new runs.
        theirs: the runs before.

    Raises:
        StepCreditError: no run is in both.
    """
    before = {_settings_without_device(run): run for run in theirs.finished}
    cells: dict[tuple[str, str, str], list[tuple[Run, Run]]] = {}
    for run in mine.finished:
        other = before.get(_settings_without_device(run))
        if other is not None:
            place = (run.task, run.signal, run.label)
            cells.setdefault(place, []).append((run, other))
    if not cells:
        raise StepCreditError("the two stores share no run")
    found = {place: _agrees(pairs) for place, pairs in cells.items()}
    lines = [f"{', '.join(place)}: {line}" for place, (line, _) in found.items()]
    return AgreementCheck(tuple(lines), all(fine for _, fine in found.values()))


def _settings_without_device(run: Run) -> str:
    """What decides the numbers of a run up to the rounding of its device."""
    lab = {name: value for name, value in run.settings["lab"].items() if name != "device"}
    return json.dumps({**run.settings, "lab": lab}, sort_keys=True)


def _agrees(pairs: list[tuple[Run, Run]]) -> tuple[str, bool]:
    """One line, and whether an arm agrees."""
    new, old = (np.array([problem_figures(pair[i], "pass_at_1") for pair in pairs]) for i in (0, 1))
    if np.array_equal(new, old):
        return f"equal, pass@1 {new.mean():.3f} on {len(pairs)} seeds", True
    if len(pairs) < 2:
        raise StepCreditError("an interval needs at least two seeds")
    estimate = crossed_mean([old])
    fine = estimate.low <= new.mean() <= estimate.high
    interval = f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
    word = "agrees" if fine else "does not agree"
    return f"{word}: pass@1 {new.mean():.3f}, before {interval}, {len(pairs)} seeds", fine
