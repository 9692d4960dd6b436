"""The tables of the page: one row per arm and signal, all from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

import numpy as np

from stepcredit.evals.intervals import rate_upper_bound
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.study.collapse import has_collapsed, has_lost_pass_at_1
from stepcredit.study.equal_tokens import equal_tokens_difference
from stepcredit.study.paired_runs import pair_difference, problem_figures
from stepcredit.study.single_run import ADDED_CURVE, CURVE
from stepcredit.study.study_data import Run, StudyData
from stepcredit.study.study_statistics import (
    LEVEL,
    Estimate,
    Matrix,
    crossed_iqm,
    crossed_mean,
    probability_of_improvement,
)

REFERENCE = "grpo"
"""The arm that others are compared with, where a preset has it; else the preset's first arm."""
WARM_START_LABEL = "warm start"
STDS = ("process_std", "outcome_std", "format_std")


@dataclass(frozen=True)
class ArmRow:
    """One arm on one signal.

    Args:
        label: the arm, or "warm start".
        runs: its finished runs.
        pass_at_1, iqm, pass_at_8: final figures over seeds and problems.
        length, fillers, turns, step_accuracy: final means over seeds; None where the task has no
            such figure.
        collapsed: number of runs that collapsed.
        lost: how many of them by their pass@1; the others by their length alone.
        learning_rate: of the runs.
        upper_bound: the one-sided 95 % upper bound of the rate of collapse.
        difference: paired difference of pass@1 to the reference arm; None for the reference.
        dots: that difference for each seed.
        fallen: whether the run of each dot has collapsed.
        improvement: probability that a run ends above one of the reference arm.
        equal_tokens: paired difference while training, at equal sampled tokens.
        splits: pass@1 on each further split of the evaluation.
        costs: mean CPU seconds, tokens and calls of a run.
        stds: mean std of each stream over a run.
    """

    label: str
    runs: int
    pass_at_1: Estimate
    iqm: Estimate
    pass_at_8: Estimate
    length: float | None
    fillers: float | None
    collapsed: int = 0
    lost: int = 0
    learning_rate: float | None = None
    upper_bound: float = 0.0
    difference: Estimate | None = None
    dots: tuple[float, ...] = ()
    improvement: float | None = None
    splits: tuple[tuple[str, Estimate], ...] = ()
    costs: tuple[tuple[str, float], ...] = ()
    stds: tuple[tuple[str, float], ...] = ()
    turns: float | None = None
    fallen: tuple[bool, ...] = ()
    equal_tokens: Estimate | None = None
    step_accuracy: float | None = None


@dataclass(frozen=True)
class CellTable:
    """All arms of a preset on one signal of one task.

    Args:
        preset, task, signal: its place.
        reference: the arm that others are compared with.
        start: the warm starts.
        rows: the arms, in the preset's order.
        planned: runs that the preset has here.
        done: runs that are finished.
    """

    preset: str
    task: str
    signal: str
    reference: str
    start: ArmRow
    rows: tuple[ArmRow, ...]
    planned: int
    done: int


@lru_cache(maxsize=64)
def cell_tables(preset: str, data: StudyData) -> tuple[CellTable, ...]:
    """The tables of a preset: one per task and signal that has finished runs.

    They are kept, since their bootstraps take seconds and a report shows them in several pages.

    Args:
        preset: its name.
        data: the runs, which do not change.
    """
    runs = data.cell_runs(preset)
    places = dict.fromkeys((run.task, run.signal) for run in runs)
    tables = [
        _table(preset, *place, [r for r in runs if (r.task, r.signal) == place]) for place in places
    ]
    return tuple(table for table in tables if table is not None)


def _table(preset: str, task: str, signal: str, runs: Sequence[Run]) -> CellTable | None:
    done = [run for run in runs if run.status == "done"]
    labels = list(dict.fromkeys(run.label for run in done))
    if not labels:
        return None
    reference = REFERENCE if REFERENCE in labels else labels[0]
    by_label = {label: [run for run in done if run.label == label] for label in labels}
    rows = tuple(arm_row(label, by_label[label], by_label[reference]) for label in labels)
    start = start_row(list({run.seed: run for run in done}.values()))
    return CellTable(preset, task, signal, reference, start, rows, len(runs), len(done))


def arm_row(label: str, runs: Sequence[Run], reference: Sequence[Run]) -> ArmRow:
    """The figures of an arm on one signal.

    Args:
        label: the arm.
        runs: its finished runs.
        reference: those of the arm that it is compared with.
    """
    row = _policy_row(label, runs, "after")
    theirs = {run.seed: run for run in reference}
    pairs = [(run, theirs[run.seed]) for run in runs if run.seed in theirs]
    collapsed = sum(map(has_collapsed, runs))
    row = replace(
        row,
        collapsed=collapsed,
        lost=sum(map(has_lost_pass_at_1, runs)),
        learning_rate=runs[0].settings["lab"].get("learning_rate", LabSettings.learning_rate),
        upper_bound=rate_upper_bound(collapsed, len(runs)),
        costs=_mean_costs(runs),
        stds=_mean_stds(runs),
    )
    if not pairs or label == reference[0].label:
        return row
    differences = np.array([pair_difference(a, b, "pass_at_1") for a, b in pairs])
    return replace(
        row,
        difference=crossed_mean([differences]),
        dots=tuple(differences.mean(axis=1).tolist()),
        fallen=tuple(has_collapsed(run) for run, _ in pairs),
        improvement=_improvement(runs, reference),
        equal_tokens=equal_tokens_difference(pairs),
    )


def start_row(runs: Sequence[Run]) -> ArmRow:
    """The figures of the warm starts, one per seed."""
    return _policy_row(WARM_START_LABEL, runs, "before")


def _policy_row(label: str, runs: Sequence[Run], when: str) -> ArmRow:
    """What the policies of some runs are, "before" or "after" training, beside nothing else."""
    one, eight = (score_matrix(runs, name, when=when) for name in ("pass_at_1", "pass_at_8"))
    return ArmRow(
        label,
        len(runs),
        pass_at_1=_share(crossed_mean([one])),
        iqm=_share(crossed_iqm([one])),
        pass_at_8=_share(crossed_mean([eight])),
        length=_mean_figure(runs, "length", when),
        fillers=_mean_figure(runs, "fillers", when),
        splits=_further_splits(runs, when),
        turns=_mean_figure(runs, "turns", when),
        step_accuracy=_mean_figure(runs, "step_accuracy", when),
    )


def _share(found: Estimate) -> Estimate:
    """The estimate of a share, whose interval ends at 0 and 1 at the latest."""
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def score_matrix(
    runs: Sequence[Run],
    metric: str = "pass_at_1",
    split: str | None = None,
    when: str = "after",
) -> Matrix:
    """(seed, problem): a figure of each run, or of its warm start, on each problem."""
    return np.array([problem_figures(run, metric, split, when) for run in runs])


def _mean_figure(runs: Sequence[Run], name: str, when: str) -> float | None:
    values = [value for run in runs if (value := run.figures(when).get(name)) is not None]
    return fmean(values) if values else None


def _improvement(runs: Sequence[Run], reference: Sequence[Run]) -> float:
    ours, theirs = (np.array([run.pass_at_1 for run in some]) for some in (runs, reference))
    return probability_of_improvement(ours, theirs)


def _further_splits(runs: Sequence[Run], when: str) -> tuple[tuple[str, Estimate], ...]:
    splits = list(runs[0].after or ())[1:]
    return tuple(
        (split, _share(crossed_mean([score_matrix(runs, split=split, when=when)])))
        for split in splits
    )


def _mean_costs(runs: Sequence[Run]) -> tuple[tuple[str, float], ...]:
    names = ("cpu_seconds", "tokens", "signal_calls", "teacher_calls", "monte_carlo_calls")
    return tuple((name, fmean(run.costs[name] for run in runs)) for name in names)


def _mean_stds(runs: Sequence[Run]) -> tuple[tuple[str, float], ...]:
    found = []
    for name in STDS:
        values = [row[name] for run in runs for row in run.curve if row[name] is not None]
        found.append((name, fmean(v for v in values if v is not None) if values else 0.0))
    return tuple(found)


@dataclass(frozen=True)
class ArmCurve:
    """The learning curve of an arm: mean over its seeds, with a 95 % band.

    Args:
        label: the arm.
        updates: the updates.
        mean, low, high: by figure of `CURVE` and `ADDED_CURVE`; one that the task does not have is
            absent.
    """

    label: str
    updates: tuple[float, ...]
    mean: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]


def arm_curves(table: CellTable, data: StudyData) -> list[ArmCurve]:
    """The learning curves of a table's arms."""
    place = {"task": table.task, "signal": table.signal}
    return [
        arm_curve(row.label, [run for run in runs if run.status == "done"])
        for row in table.rows
        if (runs := data.cell_runs(table.preset, label=row.label, **place))
    ]


def arm_curve(label: str, runs: Sequence[Run]) -> ArmCurve:
    """The learning curve of an arm; its band is ± t(n - 1) standard errors, none for one seed.

    Args:
        label: the arm.
        runs: its finished runs, of equal length.
    """
    from scipy.stats import t

    mean, low, high = {}, {}, {}
    errors = t.ppf((1 + LEVEL) / 2, len(runs) - 1) / len(runs) ** 0.5 if len(runs) > 1 else 0.0
    for name in (*CURVE, *ADDED_CURVE):
        rows = [[row[name] for row in run.curve] for run in runs]
        if any(value is None for row in rows for value in row):
            continue
        values = np.array(rows, dtype=np.float64)
        half = errors * values.std(axis=0, ddof=min(1, len(runs) - 1))
        mean[name] = values.mean(axis=0)
        low[name], high[name] = mean[name] - half, mean[name] + half
    updates = tuple(float(row["update"] or 0) for row in runs[0].curve)
    return ArmCurve(label, updates, mean, low, high)
