"""The anchor: PASS, PASS-min and GRPO on a real small model, from the file of its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from stepcredit.errors import StepCreditError
from stepcredit.evals import mean_interval
from stepcredit.settings.yaml_files import yaml_mapping
from stepcredit.study.study_presets import check_names
from stepcredit.study.study_statistics import Estimate

ANCHOR = Path("evidence/anchor.json")
REFERENCE = "grpo"
SETTINGS = {
    "model": "model",
    "sft_steps": "supervised steps",
    "steps": "RL steps",
    "responses_per_step": "responses per step",
    "learning_rate": "learning rate",
    "answers": "answers per evaluation",
    "hardware": "hardware",
}
"""What the runs have in common, and what stands over each on the page."""
START = "start"
"""In place of a method's name: the supervised start that all runs share."""
FIGURES = ("pass_at_1", "length")


@dataclass(frozen=True)
class AnchorRow:
    """The supervised start, or one method.

    Args:
        method: its name, or `START`.
        pass_at_1, length: means over the seeds; length in tokens per answer.
        each: pass@1 of each seed.
        difference: of pass@1 to `REFERENCE`, paired by seed; None for itself and the start.
    """

    method: str
    pass_at_1: float
    length: float
    each: tuple[float, ...]
    difference: Estimate | None


@dataclass(frozen=True)
class Anchor:
    """The runs of an anchor.

    Args:
        settings: what they have in common: `SETTINGS`.
        runs: one mapping per run, with `method`, `seed`, `FIGURES`, and, but for the start,
            `seconds_per_step`.
    """

    settings: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """The seeds, each once."""
        return sorted({run["seed"] for run in self.runs})

    @property
    def hours(self) -> float:
        """Hours of the training steps."""
        seconds = sum(run.get("seconds_per_step", 0) for run in self.runs)
        return float(seconds * self.settings["steps"] / 3600)

    def rows(self) -> list[AnchorRow]:
        """The start, then one row per method, in the order of the runs."""
        return [self._row(method) for method in dict.fromkeys(run["method"] for run in self.runs)]

    def _row(self, method: str) -> AnchorRow:
        runs = self._by_seed(method)
        each, other = (
            [by_seed[seed]["pass_at_1"] for seed in self.seeds]
            for by_seed in (runs, self._by_seed(REFERENCE))
        )
        plain = method in (START, REFERENCE)
        return AnchorRow(
            method,
            pass_at_1=fmean(each),
            length=fmean(run["length"] for run in runs.values()),
            each=tuple(each),
            difference=None if plain else paired_difference(each, other),
        )

    def _by_seed(self, method: str) -> dict[int, Mapping[str, Any]]:
        return {run["seed"]: run for run in self.runs if run["method"] == method}


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean difference of pairs, with the 95 % interval of Student's t.

    Args:
        first, second: one value per pair, at least two.

    Example:
        >>> found = paired_difference([0.5, 0.7, 0.6], [0.4, 0.5, 0.3])
        >>> [round(float(x), 3) for x in (found.value, found.low, found.high)]
        [0.2, -0.048, 0.448]
    """
    found = mean_interval(np.subtract(first, second))
    return Estimate(found.mean, found.low, found.high, len(first))


def read_anchor(path: Path = ANCHOR) -> Anchor:
    """Read the file that `examples/smollm2_anchor.py --output` wrote.

    Args:
        path: the file, JSON.

    Raises:
        FileError: it is missing, or is no mapping.
        StepCreditError: it lacks a setting or a figure, or a method lacks a seed of another one.
    """
    content = yaml_mapping(path)  # JSON is YAML
    try:
        check_names(content, {*SETTINGS, "runs"}, (*SETTINGS, "runs"))
        runs = content.pop("runs")
        _check_runs(runs)
        _check_pairs(runs)
    except StepCreditError as error:
        raise error.at(place=str(path)) from error.__cause__
    return Anchor(content, runs)


def _check_runs(runs: Any) -> None:
    """Refuse what is no list of runs with numbers."""
    if not isinstance(runs, list):
        raise StepCreditError("expected a list", field="runs")
    needed = ("method", "seed", *FIGURES)
    for run in runs:
        check_names(run, {*needed, "seconds_per_step"}, needed)
        for name in FIGURES:
            if not isinstance(run[name], int | float):
                raise StepCreditError(f"expected a number, got {run[name]!r}", field=name)


def _check_pairs(runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that are not one per method and seed, with the start and the reference."""
    methods = {run["method"] for run in runs}
    for name in (START, REFERENCE):
        if name not in methods:
            raise StepCreditError(f"no run of {name}", field="runs")
    seeds = {run["seed"] for run in runs}
    if len(seeds) < 2:
        raise StepCreditError("an interval needs at least two seeds", field="runs")
    pairs = [(run["method"], run["seed"]) for run in runs]
    wanted = {(method, seed) for method in methods for seed in seeds}
    if len(pairs) != len(wanted) or set(pairs) != wanted:
        raise StepCreditError("expected one run per method and seed", field="runs")
