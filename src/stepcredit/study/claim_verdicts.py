"""Decides claims by the runs of a store: the paired difference against the margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan

import numpy as np

from stepcredit.evals.intervals import rate_upper_bound
from stepcredit.study.claims import StudyClaim
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.paired_runs import (
    arm_runs,
    counted_runs,
    difference_strata,
    distinct_runs,
    pair_difference,
    paired_runs,
)
from stepcredit.study.rule_standings import GOOD, rival_labels, rule_standing
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_statistics import (
    Estimate,
    crossed_mean,
    holm_adjusted,
    rate_estimate,
    sign_flip_p,
)

NOT_RUN = "not run yet"


@dataclass(frozen=True)
class ClaimVerdict:
    """What the runs say of a claim.

    Args:
        claim: the claim.
        verdict: "held", "not held", "undecided" or "not run yet".
        estimate: the paired difference or the rate; None where there is none.
        differences: one paired difference per seed and cell, to be drawn as dots.
        note: what else belongs to it, such as the upper bound of a rate of 0.
        p: adjusted p-value of a primary claim; None: it has none.
        missing: runs of the claim's presets that are not done.
        not_begun: those of the claim's presets of which no run is planned in the store.
    """

    claim: StudyClaim
    verdict: str
    estimate: Estimate | None = None
    differences: tuple[float, ...] = ()
    note: str = ""
    p: float | None = None
    missing: int = 0
    not_begun: tuple[str, ...] = ()

    @property
    def interim(self) -> str:
        """Why the verdict may still change: "" if all runs are done, or none is."""
        if self.verdict == NOT_RUN:
            return ""
        reasons = [f"{self.missing} runs are missing"] * bool(self.missing)
        return "; ".join([*reasons, *(f"{name} is not run yet" for name in self.not_begun)])


def decide(claims: Sequence[StudyClaim], data: StudyData) -> list[ClaimVerdict]:
    """The verdict on every claim, with p-values adjusted over the primary ones.

    Args:
        claims: the claims.
        data: the runs.
    """
    found = [_with_missing(decide_one(claim, data), data) for claim in claims]
    tested = [i for i, v in enumerate(found) if v.claim.primary and v.p is not None]
    adjusted = holm_adjusted([found[i].p or 0.0 for i in tested])
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = replace(found[i], p=p)
    return found


def decide_one(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on one claim; its p-value is not adjusted, and missing runs are not counted."""
    if claim.kind == "most":
        return _most(claim, data)
    if claim.metric == "collapse":
        return _collapse(claim, data)
    pairs = paired_runs(claim, data)
    if not pairs:
        return ClaimVerdict(claim, NOT_RUN)
    strata = difference_strata(pairs, claim.metric, claim.split)
    estimate = crossed_mean(strata)
    per_seed = np.concatenate([matrix.mean(axis=1) for matrix in strata])
    dots = [
        float(pair_difference(a, b, claim.metric, claim.split).mean())
        for cell in pairs.values()
        for a, b in cell
    ]
    p = None
    if claim.primary and claim.kind == "greater":
        p = sign_flip_p(per_seed, claim.margin)
    verdict = interval_verdict(estimate, claim.kind, claim.margin)
    return ClaimVerdict(claim, verdict, estimate, tuple(dots), p=p)


def interval_verdict(estimate: Estimate, kind: str, margin: float) -> str:
    """Held, not held or undecided, by an interval.

    Args:
        estimate: the figure with its interval.
        kind: "greater", "less" or "tied".
        margin: the margin.

    Example:
        >>> interval_verdict(Estimate(0.05, 0.01, 0.09, 10), "greater", 0.0)
        'held'
        >>> interval_verdict(Estimate(0.05, 0.01, 0.09, 10), "tied", 0.03)
        'undecided'
    """
    low, high = estimate.low, estimate.high
    if isnan(low) or isnan(high):
        return "undecided"
    if kind == "less":
        return interval_verdict(replace(estimate, low=-high, high=-low), "greater", -margin)
    held, lost = low > margin, high < margin
    if kind == "tied":
        held, lost = -margin <= low and high <= margin, low > margin or high < -margin
    return "held" if held else "not held" if lost else "undecided"


def _with_missing(found: ClaimVerdict, data: StudyData) -> ClaimVerdict:
    """The verdict with what of its presets is not run yet."""
    claim = found.claim
    labels = {*claim.compare, *(rival_labels(claim, data) if claim.kind == "most" else ())}
    runs = [run for run in counted_runs(claim, data) if run.label in labels]
    missing = sum(run.status != "done" for run in runs)
    not_begun = tuple(name for name in claim.presets if name not in data.presets)
    return replace(found, missing=missing, not_begun=not_begun)


def _collapse(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on how often an arm collapses; a run that several presets share counts once."""
    runs = distinct_runs(arm_runs(claim, claim.compare[0], data))
    if not runs:
        return ClaimVerdict(claim, NOT_RUN)
    fallen = [run for run in runs if has_collapsed(run)]
    estimate = rate_estimate(len(fallen), len(runs))
    starts, lost = ({(run.task, run.seed) for run in some} for some in (runs, fallen))
    counted = collapse_count(len(fallen), len(runs))
    note = f"{counted}; of their warm starts {collapse_count(len(lost), len(starts))}"
    verdict = "not held" if fallen else "held"
    if claim.kind != "never":
        verdict = interval_verdict(estimate, claim.kind, claim.margin)
    return ClaimVerdict(claim, verdict, estimate, note=note)


def collapse_count(events: int, runs: int) -> str:
    """How many collapsed, with the upper bound of the rate.

    Example:
        >>> collapse_count(0, 40)
        '0 of 40 collapsed, 95 % upper bound 0.072'
    """
    bound = rate_upper_bound(events, runs)
    return f"{events} of {runs} collapsed, 95 % upper bound {bound:.3f}"


def _most(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on "best or tied in most cells"."""
    standing = rule_standing(claim, claim.compare[0], data)
    if not standing.cells:
        return ClaimVerdict(claim, NOT_RUN)
    good, all_cells = standing.count(GOOD), len(standing.cells)
    verdict = "held" if good > all_cells / 2 else "not held"
    note = f"best or tied in {good} of {all_cells} cells; {'; '.join(map(str, standing.cells))}"
    return ClaimVerdict(claim, verdict, note=note)
