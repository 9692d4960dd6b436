"""Reads a study's store: the runs of each preset, with their evaluations and curves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stepcredit.study.single_run import ADDED_CURVE, ADDED_FIGURES, CURVE, FIGURES
from stepcredit.study.study_store import StudyStore


@dataclass(frozen=True)
class SplitRecord:
    """An evaluation as it is stored.

    Args:
        samples: answers per problem.
        correct: right answers to each problem.
        figures: means by name; None where the task has no such figure.
    """

    samples: int
    correct: np.ndarray
    figures: Mapping[str, float | None]

    @property
    def pass_at_1(self) -> float:
        """Share of the answers that are right."""
        return float(self.correct.mean() / self.samples)


@dataclass(frozen=True)
class Run:
    """One run in its place in a preset.

    Args:
        preset, label, task, signal, seed: its place.
        key: its key.
        status: "done", "failed" or "waiting".
        error: why it failed.
        settings: its resolved settings.
        costs: seconds, tokens and calls by name.
        origin: number of the machine and version of the code that made it; None until it is done.
        before, after: evaluations by split, of the warm start and of the final policy; None until
            it is done.
        curve: its learning curve, row by row.
    """

    preset: str
    label: str
    task: str
    signal: str
    seed: int
    key: str
    status: str
    error: str | None
    settings: Mapping[str, Any]
    costs: Mapping[str, float]
    origin: int | None
    before: Mapping[str, SplitRecord] | None
    after: Mapping[str, SplitRecord] | None
    curve: Sequence[Mapping[str, float | None]]

    @property
    def pass_at_1(self) -> float:
        """Final pass@1 on the distribution that the run was trained on."""
        return self.record("after").pass_at_1

    def record(self, when: str, split: str | None = None) -> SplitRecord:
        """The evaluation "before" or "after" on a split; None: the first, as trained on."""
        found = self.before if when == "before" else self.after
        assert found, f"{self.key} is not done"
        return found[split or next(iter(found))]

    def figures(self, when: str, split: str | None = None) -> dict[str, float]:
        """The figures of an evaluation that are not None, pass@1 from the counts."""
        record = self.record(when, split)
        known = {name: value for name, value in record.figures.items() if value is not None}
        return {**known, "pass_at_1": record.pass_at_1}


def unique_runs(runs: Iterable[Run]) -> list[Run]:
    """Each run once, where several places share it."""
    return list({run.key: run for run in runs}.values())


class StudyData:
    """All runs of a store.

    Args:
        store: the store.
    """

    def __init__(self, store: StudyStore) -> None:
        self._rows = {row["key"]: row for row in store.rows("SELECT * FROM run")}
        self._parts = store.rows("SELECT * FROM part ORDER BY preset, position")
        self._curves = _by(store.rows('SELECT * FROM curve ORDER BY key, "update"'), "key")
        evaluations = store.rows("SELECT * FROM evaluation ORDER BY owner, position")
        self._evaluations = _by(evaluations, "owner")
        self._added = store.added_figures()
        self.origins = [dict(row) for row in store.rows("SELECT * FROM origin ORDER BY id")]

    @cached_property
    def runs(self) -> list[Run]:
        """Every place of every preset; a run that several presets share is there several times."""
        return [self._run(part) for part in self._parts]

    @property
    def presets(self) -> list[str]:
        """Names of the presets in the store."""
        return list(dict.fromkeys(run.preset for run in self.runs))

    @property
    def finished(self) -> list[Run]:
        """Every finished run once."""
        return unique_runs(self.finished_places)

    @property
    def finished_places(self) -> list[Run]:
        """Every place of every preset whose run is finished."""
        return [run for run in self.runs if run.status == "done"]

    def cell_runs(self, preset: str, **place: str) -> list[Run]:
        """The runs of a preset with this label, task or signal, done or not."""
        found = [run for run in self.runs if run.preset == preset]
        return [r for r in found if all(vars(r)[name] == value for name, value in place.items())]

    def _run(self, part: sqlite3.Row) -> Run:
        row = self._rows.get(part["key"])
        done = row is not None and row["status"] == "done"
        place = {n: part[n] for n in ("preset", "label", "task", "signal", "seed", "key")}
        return Run(
            **place,
            status="waiting" if row is None else row["status"],
            error=None if row is None else row["error"],
            settings={} if row is None else json.loads(row["settings"]),
            costs={name: row[name] for name in COSTS} if row is not None and done else {},
            origin=row["origin"] if row is not None and done else None,
            before=self._splits(row["start"]) if row is not None and done else None,
            after=self._splits(part["key"]) if done else None,
            curve=[self._curve_row(r) for r in self._curves.get(part["key"], [])],
        )

    def _splits(self, owner: str) -> dict[str, SplitRecord]:
        return {row["split"]: self._record(row) for row in self._evaluations[owner]}

    def _record(self, row: sqlite3.Row) -> SplitRecord:
        correct = np.frombuffer(row["correct"], np.uint8)
        figures = {name: row[name] for name in FIGURES}
        added = self._added.get((row["owner"], "evaluation", row["position"]), {})
        figures |= {name: added.get(name) for name in ADDED_FIGURES}
        return SplitRecord(row["samples"], correct, figures)

    def _curve_row(self, row: sqlite3.Row) -> dict[str, float | None]:
        added = self._added.get((row["key"], "curve", row["update"]), {})
        figures = {name: row[name] for name in CURVE}
        figures |= {name: added.get(name) for name in ADDED_CURVE}
        return {"update": row["update"], **figures}


COSTS = (
    *("cpu_seconds", "wall_seconds", "tokens"),
    *("signal_calls", "teacher_calls", "monte_carlo_calls"),
)


def _by(rows: Sequence[sqlite3.Row], name: str) -> dict[str, list[sqlite3.Row]]:
    found: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found
