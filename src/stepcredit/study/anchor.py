"""The anchor: PASS, PASS-min and GRPO on a real small model, from the file of its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from stepcredit.errors import StepCreditError
from stepcredit.settings.yaml_files import yaml_mapping
from stepcredit.study.study_presets import check_names
from stepcredit.study.study_statistics import Estimate

ANCHOR = Path("evidence/anchor.json")
REFERENCE = "grpo"
SETTINGS = (
    *("model", "sft_steps", "steps", "responses_per_step", "learning_rate", "answers"),
    "hardware",
)
FIGURES = ("before", "after", "length_before", "length_after", "seconds_per_step")


@dataclass(frozen=True)
class AnchorRow:
    """One method.

    Args:
        method: its name.
        before, after: mean pass@1 over the seeds, of the supervised start and of the policy.
        each: pass@1 of the policy of each seed.
        difference: of pass@1 after training to `REFERENCE`, paired by seed; None for itself.
        length_before, length_after: mean tokens per answer.
    """

    method: str
    before: float
    after: float
    each: tuple[float, ...]
    difference: Estimate | None
    length_before: float
    length_after: float


@dataclass(frozen=True)
class Anchor:
    """The runs of an anchor.

    Args:
        settings: what they have in common: `SETTINGS`.
        runs: one mapping per run, with `method`, `seed` and `FIGURES`.
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
        seconds = sum(run["seconds_per_step"] for run in self.runs)
        return float(seconds * self.settings["steps"] / 3600)

    def rows(self) -> list[AnchorRow]:
        """One row per method, in the order of the runs."""
        return [self._row(method) for method in dict.fromkeys(run["method"] for run in self.runs)]

    def _row(self, method: str) -> AnchorRow:
        runs = self._by_seed(method)
        means = {name: fmean(run[name] for run in runs.values()) for name in FIGURES[:-1]}
        each, other = (
            [by_seed[seed]["after"] for seed in self.seeds]
            for by_seed in (runs, self._by_seed(REFERENCE))
        )
        found = None if method == REFERENCE else paired_difference(each, other)
        return AnchorRow(method, each=tuple(each), difference=found, **means)

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
    from scipy.stats import ttest_1samp

    differences = np.subtract(first, second)
    ends = ttest_1samp(differences, 0).confidence_interval(0.95)
    return Estimate(float(differences.mean()), float(ends.low), float(ends.high), len(differences))


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
        for run in content["runs"]:
            check_names(run, {"method", "seed", *FIGURES}, ("method", "seed", *FIGURES))
        runs = content.pop("runs")
        _check_pairs(runs)
    except StepCreditError as error:
        raise error.at(place=str(path)) from error.__cause__
    return Anchor(content, runs)


def _check_pairs(runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that are not one per method and seed, with the reference among the methods."""
    methods = {run["method"] for run in runs}
    if REFERENCE not in methods:
        raise StepCreditError(f"no run of {REFERENCE}", field="runs")
    pairs = [(run["method"], run["seed"]) for run in runs]
    wanted = {(method, seed) for method in methods for seed in {run["seed"] for run in runs}}
    if len(pairs) != len(wanted) or set(pairs) != wanted:
        raise StepCreditError("expected one run per method and seed", field="runs")
