"""How a method stands beside all others, signal by signal: best, tied, below, or not shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from stepcredit.study.claims import StudyClaim
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.paired_runs import (
    Place,
    arm_runs,
    counted_runs,
    distinct_runs,
    pair_difference,
)
from stepcredit.study.study_data import Run, StudyData
from stepcredit.study.study_statistics import Estimate, crossed_mean

GOOD, BELOW, UNKNOWN = "best or tied", "below", "not shown"


@dataclass(frozen=True)
class CellStanding:
    """A method on one signal, beside the best of the others.

    Args:
        place: task and signal.
        rival: the other method with the highest mean pass@1 on the common seeds.
        difference: paired difference of pass@1 to it.
        mark: `GOOD`, `BELOW` (the interval is below 0 and no tie) or `UNKNOWN`.
    """

    place: Place
    rival: str
    difference: Estimate
    mark: str

    def __str__(self) -> str:
        found = self.difference
        interval = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        return f"{', '.join(self.place)}: {interval} to {self.rival}: {self.mark}"


@dataclass(frozen=True)
class RuleStanding:
    """A method on all signals.

    Args:
        label: the method's arm.
        cells: one per signal on which it was run beside another.
        runs, collapsed: its runs, and how many of them collapsed.
    """

    label: str
    cells: tuple[CellStanding, ...]
    runs: int
    collapsed: int

    def count(self, mark: str) -> int:
        """The number of cells with a mark."""
        return sum(cell.mark == mark for cell in self.cells)

    @property
    def qualifies(self) -> bool:
        """Whether it never collapsed, and is best or tied in more than half of its cells."""
        return self.collapsed == 0 and self.count(GOOD) > len(self.cells) / 2


def rule_standings(claim: StudyClaim, data: StudyData) -> list[RuleStanding]:
    """How every method of the claim's presets stands, those with most good cells first.

    Args:
        claim: a claim of the kind "most": its presets and margin count.
        data: the runs.
    """
    labels = [*claim.compare, *rival_labels(claim, data)]
    found = [rule_standing(claim, label, data) for label in labels]
    return sorted((one for one in found if one.cells), key=lambda one: -one.count(GOOD))


def rule_standing(claim: StudyClaim, label: str, data: StudyData) -> RuleStanding:
    """How one method stands beside the best other on each signal.

    Args:
        claim: as of `rule_standings`.
        label: the method's arm.
        data: the runs.
    """
    ours = arm_runs(claim, label, data)
    others = {name for name in (*claim.compare, *rival_labels(claim, data)) if name != label}
    rivals = {name: arm_runs(claim, name, data) for name in sorted(others)}
    cells = []
    for place, own in ours.items():
        here = {name: by[place] for name, by in rivals.items() if place in by}
        found = _against_best(own, here, claim.metric)
        if found is not None:
            cells.append(CellStanding(place, *found, mark=_mark(found[1], claim.margin)))
    runs = distinct_runs(ours)
    return RuleStanding(label, tuple(cells), len(runs), sum(map(has_collapsed, runs)))


def _mark(difference: Estimate, margin: float) -> str:
    tied = -margin <= difference.low and difference.high <= margin
    if difference.low > 0 or tied:
        return GOOD
    return BELOW if difference.high < 0 else UNKNOWN


def rival_labels(claim: StudyClaim, data: StudyData) -> list[str]:
    """The other methods of a claim's presets; a label with a colon is a variant of one."""
    labels = {run.label for run in counted_runs(claim, data) if ":" not in run.label}
    return sorted(labels - set(claim.compare))


def _against_best(
    own: Mapping[int, Run], rivals: Mapping[str, Mapping[int, Run]], metric: str
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
    matrix = [pair_difference(own[seed], rivals[best][seed], metric) for seed in common[best]]
    return best, crossed_mean([np.array(matrix)])
