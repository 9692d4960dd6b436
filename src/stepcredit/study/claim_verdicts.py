"""Decides claims by the runs of a store: the paired difference against the margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepcredit.evals.intervals import rate_upper_bound
from stepcredit.study.claims import StudyClaim
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.method_standings import GOOD, method_standing, rival_labels
from stepcredit.study.paired_runs import (
    Place,
    arm_runs,
    counted_runs,
    difference_strata,
    distinct_runs,
    paired_runs,
)
from stepcredit.study.study_data import Run, StudyData
from stepcredit.study.study_statistics import (
    TIE,
    Estimate,
    crossed_mean,
    holm_adjusted,
    interval_verdict,
    rate_estimate,
    sign_flip_p,
)

NOT_RUN = "not run yet"
FEW_SIGNALS = 4
"""A difference over at most so many signals is also shown signal by signal."""


@dataclass(frozen=True)
class ClaimVerdict:
    """What the runs say of a claim.

    Args:
        claim: the claim.
        verdict: "held", "not held", "undecided" or "not run yet".
        estimate: the paired difference or the rate; None where there is none.
        note: what else belongs to it, such as the upper bound of a rate of 0.
        p: adjusted p-value of a primary claim; None: it has none.
        missing: runs of the claim's presets that are not done.
        not_begun: those of the claim's presets of which no run is planned in the store.
        by_signal: the difference on each signal, if there are two to `FEW_SIGNALS` of them.
    """

    claim: StudyClaim
    verdict: str
    estimate: Estimate | None = None
    note: str = ""
    p: float | None = None
    missing: int = 0
    not_begun: tuple[str, ...] = ()
    by_signal: tuple[tuple[Place, Estimate], ...] = ()

    @property
    def is_tie(self) -> bool:
        """Whether it is undecided, and no difference of pass@1 larger than `TIE` is left."""
        if self.verdict != "undecided" or self.estimate is None or self.claim.metric != "pass_at_1":
            return False
        return interval_verdict(self.estimate, "tied", TIE) == "held"

    @property
    def interim(self) -> str:
        """Why the verdict may still change: "" if all runs are done, or none is."""
        if self.verdict == NOT_RUN:
            return ""
        runs = "1 run is" if self.missing == 1 else f"{self.missing} runs are"
        reasons = [f"{runs} missing"] * bool(self.missing)
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
    p = None
    if claim.primary and claim.kind == "greater":
        p = sign_flip_p(per_seed, claim.margin)
    verdict = interval_verdict(estimate, claim.kind, claim.margin)
    return ClaimVerdict(claim, verdict, estimate, p=p, by_signal=_by_signal(claim, pairs))


def _by_signal(
    claim: StudyClaim, pairs: Mapping[Place, Sequence[tuple[Run, Run]]]
) -> tuple[tuple[Place, Estimate], ...]:
    """The difference on each signal alone, where there are a few."""
    if not 1 < len(pairs) <= FEW_SIGNALS:
        return ()
    return tuple(
        (place, crossed_mean(difference_strata({place: some}, claim.metric, claim.split)))
        for place, some in pairs.items()
    )


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
    note = (
        f"{collapse_count(len(fallen), len(runs))}; counted by warm start, "
        f"{collapse_count(len(lost), len(starts))}"
    )
    verdict = "not held" if fallen else "held"
    if claim.kind != "never":
        verdict = interval_verdict(estimate, claim.kind, claim.margin)
    return ClaimVerdict(claim, verdict, estimate, note=note)


def collapse_count(events: int, runs: int) -> str:
    """How many collapsed, with the upper bound of the rate.

    Example:
        >>> collapse_count(0, 40)
        '0 of 40 with a collapse, 95 % upper bound 0.072'
    """
    bound = rate_upper_bound(events, runs)
    return f"{events} of {runs} with a collapse, 95 % upper bound {bound:.3f}"


def _most(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on "best or tied in most cells"."""
    standing = method_standing(claim, claim.compare[0], data)
    if not standing.cells:
        return ClaimVerdict(claim, NOT_RUN)
    verdict = "held" if standing.is_good_in_most else "not held"
    note = f"{GOOD} in {standing.count(GOOD)} of {standing.all_cells} cells"
    return ClaimVerdict(claim, verdict, note="; ".join([note, *map(str, standing.cells)]))
