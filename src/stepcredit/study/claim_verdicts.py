"""Decides claims by the runs of a store: the paired difference against the margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from statistics import fmean

import numpy as np

from stepcredit.evals import pass_at_k
from stepcredit.evals.intervals import rate_upper_bound
from stepcredit.study.claims import StudyClaim
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.study_data import Run, StudyData
from stepcredit.study.study_statistics import (
    Estimate,
    Matrix,
    crossed_mean,
    holm_adjusted,
    rate_estimate,
    sign_flip_p,
)

NOT_RUN = "not run yet"
PER_PROBLEM = ("pass_at_1", "pass_at_8")
Place = tuple[str, str]
"""(task, signal): one cell of a table."""


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
    """

    claim: StudyClaim
    verdict: str
    estimate: Estimate | None = None
    differences: tuple[float, ...] = ()
    note: str = ""
    p: float | None = None
    missing: int = 0


def decide(claims: Sequence[StudyClaim], data: StudyData) -> list[ClaimVerdict]:
    """The verdict on every claim, with p-values adjusted over the primary ones.

    Args:
        claims: the claims.
        data: the runs.
    """
    found = [decide_one(claim, data) for claim in claims]
    tested = [i for i, v in enumerate(found) if v.claim.primary and v.p is not None]
    adjusted = holm_adjusted([found[i].p or 0.0 for i in tested])
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = replace(found[i], p=p)
    return found


def decide_one(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on one claim; its p-value is not adjusted yet."""
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
    return ClaimVerdict(claim, verdict, estimate, tuple(dots), p=p, missing=_missing(claim, data))


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


def paired_runs(claim: StudyClaim, data: StudyData) -> dict[Place, list[tuple[Run, Run]]]:
    """The finished pairs of runs that a claim compares, by cell and in the order of their seeds.

    Within a task only seeds count that every cell has, so that each cell has the same seeds.
    """
    ours, theirs = (arm_runs(claim, label, data) for label in claim.compare)
    places = [place for place in ours if place in theirs]
    found: dict[Place, list[tuple[Run, Run]]] = {}
    for place in places:
        cells = [by[other] for by in (ours, theirs) for other in places if other[0] == place[0]]
        seeds = sorted(set.intersection(*(set(cell) for cell in cells)))
        if seeds:
            found[place] = [(ours[place][seed], theirs[place][seed]) for seed in seeds]
    return found


def arm_runs(claim: StudyClaim, label: str, data: StudyData) -> dict[Place, dict[int, Run]]:
    """The finished runs of an arm that count for a claim, by cell and seed."""
    found: dict[Place, dict[int, Run]] = {}
    for run in _counted(claim, data):
        if run.label == label and run.status == "done":
            found.setdefault((run.task, run.signal), {})[run.seed] = run
    return found


def _counted(claim: StudyClaim, data: StudyData) -> list[Run]:
    """The runs, done or not, of the claim's presets, task and signals."""
    return [
        run
        for preset in claim.presets
        for run in data.cell_runs(preset)
        if claim.task in (None, run.task) and (claim.signals is None or run.signal in claim.signals)
    ]


def _missing(claim: StudyClaim, data: StudyData) -> int:
    labels = {*claim.compare, *(_rivals(claim, data) if claim.kind == "most" else ())}
    runs = [run for run in _counted(claim, data) if run.label in labels]
    return sum(run.status != "done" for run in runs)


def difference_strata(
    pairs: Mapping[Place, Sequence[tuple[Run, Run]]], metric: str, split: str | None
) -> list[Matrix]:
    """For each task the (seed, problem) matrix of the mean difference over its signals."""
    tasks = list(dict.fromkeys(task for task, _ in pairs))
    return [
        np.mean(
            [
                [pair_difference(a, b, metric, split) for a, b in cell]
                for (own, _), cell in pairs.items()
                if own == task
            ],
            axis=0,
        )
        for task in tasks
    ]


def pair_difference(a: Run, b: Run, metric: str, split: str | None = None) -> np.ndarray:
    """The difference of two runs: per problem for pass@k, else one number."""
    if metric == "cpu_ratio":
        return np.array([a.costs["cpu_seconds"] / b.costs["cpu_seconds"] - 1])
    if metric in PER_PROBLEM:
        return problem_figures(a, metric, split) - problem_figures(b, metric, split)
    figure = "length" if metric == "length_ratio" else metric
    ours, theirs = (run.figures("after", split)[figure] for run in (a, b))
    if metric == "length_ratio":
        return np.array([ours / theirs - 1])
    return np.array([ours - theirs])


def problem_figures(run: Run, metric: str, split: str | None = None) -> np.ndarray:
    """pass@1 or pass@8 of a run on each problem."""
    record = run.record("after", split)
    k = 1 if metric == "pass_at_1" else min(8, record.samples)
    return np.asarray(pass_at_k(record.correct.astype(np.int64), record.samples, k))


def _collapse(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on how often an arm collapses; a run that several presets share counts once."""
    cells = arm_runs(claim, claim.compare[0], data)
    runs = list({run.key: run for cell in cells.values() for run in cell.values()}.values())
    if not runs:
        return ClaimVerdict(claim, NOT_RUN)
    events = sum(map(has_collapsed, runs))
    estimate = rate_estimate(events, len(runs))
    bound = f"95 % upper bound {rate_upper_bound(events, len(runs)):.3f}"
    note = f"{events} of {len(runs)} collapsed, {bound}"
    verdict = "held" if events == 0 else "not held"
    if claim.kind != "never":
        verdict = interval_verdict(estimate, claim.kind, claim.margin)
    return ClaimVerdict(claim, verdict, estimate, note=note, missing=_missing(claim, data))


def _most(claim: StudyClaim, data: StudyData) -> ClaimVerdict:
    """The verdict on "best or tied in most cells"."""
    ours = arm_runs(claim, claim.compare[0], data)
    rivals = {label: arm_runs(claim, label, data) for label in _rivals(claim, data)}
    good, lines = 0, []
    for place, own in ours.items():
        found = _against_best(own, {n: by[place] for n, by in rivals.items() if place in by}, claim)
        if found is None:
            continue
        label, estimate = found
        fine = estimate.low > 0 or interval_verdict(estimate, "tied", claim.margin) == "held"
        good += fine
        interval = f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"
        mark = "best or tied" if fine else "not"
        lines.append(f"{place[0]}, {place[1]}: {interval} to {label}: {mark}")
    if not lines:
        return ClaimVerdict(claim, NOT_RUN)
    verdict = "held" if good > len(lines) / 2 else "not held"
    note = f"{good} of {len(lines)} cells; {'; '.join(lines)}"
    return ClaimVerdict(claim, verdict, note=note, missing=_missing(claim, data))


def _rivals(claim: StudyClaim, data: StudyData) -> list[str]:
    """The other methods of a claim's presets; a label with a colon is a variant of one."""
    labels = {run.label for run in _counted(claim, data) if ":" not in run.label}
    return sorted(labels - set(claim.compare))


def _against_best(
    own: Mapping[int, Run], rivals: Mapping[str, Mapping[int, Run]], claim: StudyClaim
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
    matrix = [pair_difference(own[seed], rivals[best][seed], claim.metric) for seed in common[best]]
    return best, crossed_mean([np.array(matrix)])
