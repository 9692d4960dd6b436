"""How a method compares with the best of all others, signal by signal.

The best of the others is chosen by the same runs, so "below" is a little too frequent and "best or
tied" a little too rare, and no correction is made for the number of cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from stepcredit.study.claims import StudyClaim
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.page_numbers import difference
from stepcredit.study.paired_runs import (
    Place,
    arm_runs,
    counted_runs,
    distinct_runs,
    pair_difference,
)
from stepcredit.study.study_cells import FIRST_TEST_SEED
from stepcredit.study.study_data import Run, StudyData, unique_runs
from stepcredit.study.study_statistics import Estimate, crossed_mean, interval_verdict

GOOD, BELOW, UNKNOWN = "best or tied", "below", "not shown"


@dataclass(frozen=True)
class CellStanding:
    """A method on one signal, beside the best of the others.

    Args:
        place: task and signal.
        rival: the other method with the highest mean pass@1 on the common seeds.
        difference: paired difference of pass@1 to it.
        mark: `GOOD`: its interval lies above 0, or within the margin of a tie. `BELOW`: it lies
            below 0 and is no tie. `UNKNOWN`: neither.
    """

    place: Place
    rival: str
    difference: Estimate
    mark: str

    def __str__(self) -> str:
        place = ", ".join(self.place)
        return f"{place}: {difference(self.difference)} to {self.rival}: {self.mark}"


@dataclass(frozen=True)
class MethodStanding:
    """A method on all signals.

    Args:
        label: the method's arm.
        cells: one per signal on which it and another method have finished runs.
        all_cells: number of signals of all methods.
        runs, collapsed: its runs, and how many of them collapsed.
        all_runs, all_collapsed: the same over all presets with test seeds, also of other settings.
    """

    label: str
    cells: tuple[CellStanding, ...]
    all_cells: int
    runs: int
    collapsed: int
    all_runs: int
    all_collapsed: int

    def count(self, mark: str) -> int:
        """The number of cells with a mark."""
        return sum(cell.mark == mark for cell in self.cells)

    @property
    def is_good_in_most(self) -> bool:
        """Whether it is best or tied in more than half of all cells, also those it lacks."""
        return self.count(GOOD) > self.all_cells / 2

    @property
    def qualifies(self) -> bool:
        """Whether it is best or tied in most cells, and never collapsed in any preset."""
        return self.is_good_in_most and self.all_collapsed == 0


def method_standings(claim: StudyClaim, data: StudyData) -> list[MethodStanding]:
    """How every method of the claim's presets stands, those with most good cells first.

    Args:
        claim: a claim of the kind "most": its presets and margin count.
        data: the runs.
    """
    labels = [*claim.compare, *rival_labels(claim, data)]
    found = [method_standing(claim, label, data) for label in labels]
    return sorted((one for one in found if one.cells), key=lambda one: -one.count(GOOD))


def method_standing(claim: StudyClaim, label: str, data: StudyData) -> MethodStanding:
    """How one method stands beside the best other on each signal.

    Args:
        claim: as of `method_standings`.
        label: the method's arm.
        data: the runs.
    """
    labels = {*claim.compare, *rival_labels(claim, data)}
    runs = {name: arm_runs(claim, name, data) for name in sorted(labels)}
    places, ours = {place for by in runs.values() for place in by}, runs.pop(label, {})
    cells = []
    for place, own in ours.items():
        compared = _against_best(own, {name: by[place] for name, by in runs.items() if place in by})
        if compared is not None:
            rival, found = compared
            cells.append(CellStanding(place, rival, found, cell_mark(found, claim.margin)))
    own_runs, all_runs = distinct_runs(ours), _test_runs(label, data)
    return MethodStanding(
        label,
        tuple(cells),
        len(places),
        *(len(own_runs), sum(map(has_collapsed, own_runs))),
        *(len(all_runs), sum(map(has_collapsed, all_runs))),
    )


def _test_runs(label: str, data: StudyData) -> list[Run]:
    """The finished runs of an arm on test seeds, in all presets, each once."""
    own = (run for run in data.finished_places if run.label == label)
    return unique_runs(run for run in own if run.seed >= FIRST_TEST_SEED)


def cell_mark(found: Estimate, margin: float) -> str:
    """Best or tied, below, or not shown, by the interval of a paired difference.

    Args:
        found: the difference to the best of the others.
        margin: that of a tie.

    Example:
        >>> cell_mark(Estimate(-0.01, -0.02, -0.005, 10), 0.03)
        'best or tied'
        >>> cell_mark(Estimate(-0.04, -0.07, -0.01, 10), 0.03)
        'below'
    """
    verdicts = [interval_verdict(found, *at) for at in (("greater", 0.0), ("tied", margin))]
    if "held" in verdicts:
        return GOOD
    return BELOW if verdicts[0] == "not held" else UNKNOWN


def rival_labels(claim: StudyClaim, data: StudyData) -> list[str]:
    """The other methods of a claim's presets; a label with a colon is a variant of one."""
    labels = {run.label for run in counted_runs(claim, data) if ":" not in run.label}
    return sorted(labels - set(claim.compare))


def _against_best(
    own: Mapping[int, Run], rivals: Mapping[str, Mapping[int, Run]]
) -> tuple[str, Estimate] | None:
    """The rival with the highest mean on the common seeds, and the paired difference to it."""
    common = {label: sorted(set(own) & set(runs)) for label, runs in rivals.items()}
    common = {label: seeds for label, seeds in common.items() if seeds}
    if not common:
        return None
    means = {
        label: fmean(rivals[label][seed].pass_at_1 for seed in seeds)
        for label, seeds in common.items()
    }
    best = max(means, key=lambda label: means[label])
    pairs = [(own[seed], rivals[best][seed]) for seed in common[best]]
    matrix = [pair_difference(ours, theirs, "pass_at_1") for ours, theirs in pairs]
    return best, crossed_mean([np.array(matrix)])
