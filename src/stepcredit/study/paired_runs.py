"""The runs that a claim compares, in pairs of one seed, and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepcredit.evals import pass_at_k
from stepcredit.study.claims import StudyClaim
from stepcredit.study.study_data import Run, StudyData, unique_runs
from stepcredit.study.study_statistics import Matrix

PER_PROBLEM = ("pass_at_1", "pass_at_8")
Place = tuple[str, str]
"""(task, signal): one cell of a table."""


def counted_runs(claim: StudyClaim, data: StudyData) -> list[Run]:
    """The runs, done or not, of the claim's presets, task and signals."""
    return [
        run
        for preset in claim.presets
        for run in data.cell_runs(preset)
        if claim.task in (None, run.task) and (claim.signals is None or run.signal in claim.signals)
    ]


def arm_runs(claim: StudyClaim, label: str, data: StudyData) -> dict[Place, dict[int, Run]]:
    """The finished runs of an arm that count for a claim, by cell and seed."""
    found: dict[Place, dict[int, Run]] = {}
    for run in counted_runs(claim, data):
        if run.label == label and run.status == "done":
            found.setdefault((run.task, run.signal), {})[run.seed] = run
    return found


def distinct_runs(cells: Mapping[Place, Mapping[int, Run]]) -> list[Run]:
    """All runs of these cells; one that several cells share, once."""
    return unique_runs(run for cell in cells.values() for run in cell.values())


def paired_runs(claim: StudyClaim, data: StudyData) -> dict[Place, list[tuple[Run, Run]]]:
    """The finished pairs of runs that a claim compares, by cell and in the order of their seeds.

    Within a task only seeds count that every cell has, so that each cell has the same seeds. CPU
    times are compared only on seeds for which one machine made the runs of all cells of the task
    with one version of the code.
    """
    ours, theirs = (arm_runs(claim, label, data) for label in claim.compare)
    places = [place for place in ours if place in theirs]
    found: dict[Place, list[tuple[Run, Run]]] = {}
    for place in places:
        cells = [by[other] for by in (ours, theirs) for other in places if other[0] == place[0]]
        seeds = sorted(set.intersection(*(set(cell) for cell in cells)))
        if claim.metric == "cpu_ratio":
            seeds = [seed for seed in seeds if len({cell[seed].origin for cell in cells}) == 1]
        if seeds:
            found[place] = [(ours[place][seed], theirs[place][seed]) for seed in seeds]
    return found


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


def problem_figures(
    run: Run, metric: str, split: str | None = None, when: str = "after"
) -> np.ndarray:
    """pass@1 or pass@8 of a run's final policy, or of its warm start, on each problem."""
    record = run.record(when, split)
    k = 1 if metric == "pass_at_1" else min(8, record.samples)
    return np.asarray(pass_at_k(record.correct.astype(np.int64), record.samples, k))
