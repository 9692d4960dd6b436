"""The results of a study in one SQLite file, small enough to commit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.data.files.sqlite_file import SQLiteFile
from stepcredit.errors import FileError
from stepcredit.study.run_key import resolved_settings
from stepcredit.study.single_run import (
    ADDED_CURVE,
    ADDED_FIGURES,
    CURVE,
    FIGURES,
    EvaluatedSplit,
    RunResult,
)
from stepcredit.study.study_cells import Cell

STUDY_ID = 0x53435354
"""SQLite's application id of these files."""
STUDY_FORMAT = 1
"""Version of the tables, from 1."""
DIGITS = 4
"""Digits kept behind the decimal point."""
LONGEST_ERROR = 300
_TABLES = f"""
CREATE TABLE origin (
  id INTEGER PRIMARY KEY, hardware TEXT, versions TEXT, git_commit TEXT,
  UNIQUE (hardware, versions, git_commit)
);
CREATE TABLE run (
  key TEXT PRIMARY KEY, task TEXT, method TEXT, signal TEXT, seed INTEGER, settings TEXT,
  status TEXT, error TEXT, start TEXT, origin INTEGER REFERENCES origin,
  cpu_seconds REAL, wall_seconds REAL, tokens INTEGER,
  signal_calls INTEGER, teacher_calls INTEGER, monte_carlo_calls INTEGER
) WITHOUT ROWID;
CREATE TABLE part (
  preset TEXT, position INTEGER, label TEXT, task TEXT, signal TEXT, seed INTEGER, key TEXT,
  PRIMARY KEY (preset, position)
) WITHOUT ROWID;
CREATE TABLE curve (
  key TEXT, "update" INTEGER, {", ".join(f"{name} REAL" for name in CURVE)},
  PRIMARY KEY (key, "update")
) WITHOUT ROWID;
CREATE TABLE evaluation (
  owner TEXT, position INTEGER, split TEXT, samples INTEGER, correct BLOB,
  {", ".join(f"{name} REAL" for name in FIGURES)},
  PRIMARY KEY (owner, position)
) WITHOUT ROWID;
"""
_ADDED_TABLE = """
CREATE TABLE IF NOT EXISTS added_figure (
  owner TEXT, kind TEXT, place INTEGER, name TEXT, value REAL,
  PRIMARY KEY (owner, kind, place, name)
) WITHOUT ROWID
"""
"""Figures that have no column: those of a curve by update, those of an evaluation by position.

It is made with its first row, so that a store is not changed by being read.
"""

_SAME_ORIGIN = """
SELECT mine.id FROM main.origin mine JOIN other.origin theirs
  USING (hardware, versions, git_commit) WHERE theirs.id = run.origin
"""
_MERGE = (
    "INSERT OR IGNORE INTO main.origin (hardware, versions, git_commit) "
    "SELECT hardware, versions, git_commit FROM other.origin",
    "DELETE FROM main.run WHERE status = 'failed' "
    "AND key IN (SELECT key FROM other.run WHERE status = 'done')",
    "INSERT OR IGNORE INTO main.run SELECT key, task, method, signal, seed, settings, status, "
    f"error, start, ({_SAME_ORIGIN}), cpu_seconds, wall_seconds, tokens, signal_calls, "
    "teacher_calls, monte_carlo_calls FROM other.run",
    "INSERT INTO main.part SELECT * FROM other.part "
    "WHERE preset NOT IN (SELECT preset FROM main.part)",
    "INSERT OR IGNORE INTO main.curve SELECT * FROM other.curve",
    "INSERT OR IGNORE INTO main.evaluation SELECT * FROM other.evaluation",
)
"""Takes over what another store, attached as `other`, has besides."""


@dataclass(frozen=True)
class Origin:
    """Where runs were made.

    Args:
        hardware: the processor and its number of cores.
        versions: of Python and the libraries, in one line.
        git_commit: the commit of the checkout, with "+" if files differed from it; "" outside one.
    """

    hardware: str
    versions: str
    git_commit: str


class StudyStore(SQLiteFile):
    """A file of runs by key, in which each finished run is written in one transaction.

    A process that is killed at any time leaves the runs that were finished, whole.

    Args:
        path: the file.
        create: whether a missing file is made.

    Raises:
        FileError: it does not exist, can't be opened, or has another format.

    Example:
        >>> import tempfile
        >>> with StudyStore(Path(tempfile.mkdtemp()) / "study.sqlite", create=True) as store:
        ...     store.statuses()
        {}
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise FileError("no such file: no study was run yet", field=str(path))
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path)
        self._base.row_factory = sqlite3.Row

    def plan(self, preset: str, cells: Sequence[Cell]) -> None:
        """Write down which runs a preset consists of, in place of what was written before."""
        rows = [(preset, i, c.label, c.task, c.signal, c.seed, c.key) for i, c in enumerate(cells)]
        with self.transaction():
            self._base.execute("DELETE FROM part WHERE preset = ?", (preset,))
            self._base.executemany("INSERT INTO part VALUES (?,?,?,?,?,?,?)", rows)

    def check_devices(self, cells: Iterable[Cell]) -> None:
        """Refuse runs on another device than those that are here: a page compares the runs of one.

        Raises:
            FileError: names the devices.
        """
        self._check_one_device({cell.settings.device for cell in cells})

    def devices(self) -> set[str]:
        """The devices of the finished runs: one at most."""
        query = (
            "SELECT DISTINCT coalesce(json_extract(settings, '$.lab.device'), 'cpu') FROM run "
            "WHERE status = 'done'"
        )
        return {row[0] for row in self.rows(query)}

    def _check_one_device(self, more: set[str]) -> None:
        here = self.devices()
        if len(here | more) > 1:
            found = f"has runs on {', '.join(here)}" if here else "has no run yet"
            reason = f"{found}, and gets runs on {', '.join(sorted(more))}"
            raise FileError(f"{reason}: a store is of one device", field=str(self.path))

    def statuses(self) -> dict[str, str]:
        """ "done" or "failed" of each run by key."""
        return {row["key"]: row["status"] for row in self.rows("SELECT key, status FROM run")}

    def forget_failures(self, keys: Iterable[str]) -> None:
        """Delete the records of failed runs, so that they are tried again."""
        with self.transaction():
            self._base.executemany(
                "DELETE FROM run WHERE key = ? AND status = 'failed'", [(key,) for key in keys]
            )

    def add(self, cell: Cell, result: RunResult, origin: Origin) -> bool:
        """Write a finished run.

        Returns:
            Whether it was new; a run that is there already stays as it is.
        """
        with self.transaction():
            costs = (
                *(round(result.cpu_seconds, 1), round(result.wall_seconds, 1), result.tokens),
                *(result.signal_calls, result.teacher_calls, result.monte_carlo_calls),
            )
            new = self._add_run(cell, "done", None, result.start, origin, costs)
            if new:
                self._add_curve(cell.key, result.curve)
                for owner, found in ((result.start, result.before), (cell.key, result.after)):
                    self._add_evaluations(owner, found)
        return new

    def fail(self, cell: Cell, error: str, origin: Origin) -> None:
        """Write that a run failed, and why."""
        with self.transaction():
            line = " ".join(error.split())[:LONGEST_ERROR]
            self._add_run(cell, "failed", line, None, origin, (None,) * 6)

    def merge(self, other: Path) -> int:
        """Take over the runs of another store; a run that is done here stays as it is.

        Args:
            other: the other store's file, which is only read. The plan of a preset that both have
                stays that of this store.

        Returns:
            The number of finished runs that are new.

        Raises:
            FileError: it does not exist, is no store of this format, is this one, or has runs on
                another device.
        """
        if other.exists() and other.samefile(self.path):
            raise FileError("is the store itself", field=str(other))
        with StudyStore(other) as given:  # it refuses what is no store
            self._check_one_device(given.devices())
            has_added = bool(given.added_figures())
        before = list(self.statuses().values()).count("done")
        with self._errors():
            self._base.execute("ATTACH ? AS other", (str(other),))
        try:
            with self.transaction():
                for statement in _MERGE:
                    self._base.execute(statement)
                if has_added:
                    self._base.execute(_ADDED_TABLE)
                    self._base.execute(
                        "INSERT OR IGNORE INTO main.added_figure SELECT * FROM other.added_figure"
                    )
        finally:
            self._base.execute("DETACH other")
        return list(self.statuses().values()).count("done") - before

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows that an SQL query finds."""
        with self._errors():
            return self._base.execute(query, values).fetchall()

    def added_figures(self) -> dict[tuple[str, str, int], dict[str, float]]:
        """The figures that have no column, by owner, kind ("curve" or "evaluation") and place."""
        if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'added_figure'"):
            return {}
        found: dict[tuple[str, str, int], dict[str, float]] = {}
        for owner, kind, place, name, value in self.rows("SELECT * FROM added_figure"):
            found.setdefault((owner, kind, place), {})[name] = value
        return found

    def _add_run(
        self,
        cell: Cell,
        status: str,
        error: str | None,
        start: str | None,
        origin: Origin,
        costs: Sequence[float | None],
    ) -> bool:
        settings = json.dumps(resolved_settings(cell.settings), sort_keys=True, default=list)
        names = (cell.key, cell.task, cell.settings.method, cell.settings.signal, cell.seed)
        row = (*names, settings, status, error, start, self._origin_id(origin), *costs)
        marks = ",".join("?" * len(row))
        return self._base.execute(f"INSERT OR IGNORE INTO run VALUES ({marks})", row).rowcount == 1

    def _origin_id(self, origin: Origin) -> int:
        given = (origin.hardware, origin.versions, origin.git_commit)
        insert = "INSERT OR IGNORE INTO origin (hardware, versions, git_commit) VALUES (?,?,?)"
        self._base.execute(insert, given)
        query = "SELECT id FROM origin WHERE (hardware, versions, git_commit) = (?,?,?)"
        return int(self._base.execute(query, given).fetchone()[0])

    def _add_curve(self, key: str, curve: Sequence[Mapping[str, float | None]]) -> None:
        marks = ",".join("?" * (len(CURVE) + 2))
        rows = [(key, row["update"], *_short(row, CURVE)) for row in curve]
        self._base.executemany(f"INSERT INTO curve VALUES ({marks})", rows)
        places = [(row["update"], row) for row in curve]
        self._add_figures(key, "curve", places, ADDED_CURVE)

    def _add_evaluations(self, owner: str, found: Sequence[EvaluatedSplit]) -> None:
        marks = ",".join("?" * (len(FIGURES) + 5))
        rows = [
            (owner, i, f.split, f.samples, bytes(f.correct), *_short(f.figures, FIGURES))
            for i, f in enumerate(found)
        ]
        self._base.executemany(f"INSERT OR IGNORE INTO evaluation VALUES ({marks})", rows)
        places = [(i, f.figures) for i, f in enumerate(found)]
        self._add_figures(owner, "evaluation", places, ADDED_FIGURES)

    def _add_figures(
        self, owner: str, kind: str, places: Sequence[tuple[Any, Any]], names: Iterable[str]
    ) -> None:
        """Write the figures without a column, where there are any."""
        rows = [
            (owner, kind, place, name, round(float(figures[name]), DIGITS))
            for place, figures in places
            for name in names
            if figures.get(name) is not None
        ]
        if rows:
            self._base.execute(_ADDED_TABLE)
            self._base.executemany("INSERT OR IGNORE INTO added_figure VALUES (?,?,?,?,?)", rows)

    def _prepare(self) -> None:
        self._base.execute("PRAGMA synchronous = FULL")
        with self.transaction():
            mark, form, tables = self._marks()
            if tables == 0 and (mark, form) == (0, 0):
                for statement in _TABLES.split(";\n"):
                    self._base.execute(statement)
                self._base.execute(f"PRAGMA application_id = {STUDY_ID}")
                self._base.execute(f"PRAGMA user_version = {STUDY_FORMAT}")
            elif mark != STUDY_ID:
                raise FileError("is not the store of a study", field=str(self.path))
            elif form != STUDY_FORMAT:
                reason = f"has format {form}, and this version reads format {STUDY_FORMAT} only"
                raise FileError(reason, field=str(self.path))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Inside the block, all is written, or nothing."""
        with self._errors():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Inside the block, errors of SQLite and of the system name the file."""
        try:
            with super()._errors():
                yield
        except FileError:
            raise
        except OSError as error:
            raise FileError(" ".join(str(error).split()), field=str(self.path)) from error


def _short(row: Mapping[str, float | None], names: Iterable[str]) -> list[float | None]:
    """The named figures with `DIGITS` digits."""
    figures = (row[name] for name in names)
    return [None if figure is None else round(float(figure), DIGITS) for figure in figures]
