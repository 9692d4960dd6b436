"""A run's folder with one file of rollouts per step."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.logged_step import LoggedStep, StepName, step_state
from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError
from stepcredit.logs.conversion import LogConversion
from stepcredit.logs.log_files import records_of
from stepcredit.logs.log_formats import kind_of_file, log_format, name_of_log
from stepcredit.logs.logged_response import RewardColumns

STEP_FILES = (
    re.compile(r"rollouts-(?P<step>\d+)(?:-(?P<part>\d+))?\.jsonl(?:\.gz)?"),
    re.compile(r"completions_(?P<step>\d+)\.parquet"),
    re.compile(r"(?P<step>\d+)\.(?:jsonl|jsonl\.gz|parquet)"),
    re.compile(r"(?:[^.]*_)?(?<!eval_)(?P<step>\d+)\.pt"),
)
"""Names of files that hold one step: of our TRL trainer, of TRL, of verl, and of slime."""


class StepFiles:
    """A folder with one file per step.

    Args:
        path: the folder.
        format: the format of the files; None: what the first looks like.
        columns: the reward columns of a log that has several.
    """

    def __init__(
        self, path: Path, format: str | None = None, columns: RewardColumns | None = None
    ) -> None:
        self.path, self._format, self._columns = str(path), format, columns
        self._conversion: LogConversion | None = None
        self._notes: dict[str, None] = {}

    @staticmethod
    def found_in(path: Path) -> dict[StepName, list[Path]]:
        """The files of each step in a folder, in the steps' order; of one kind of names."""
        names = sorted(each for each in path.iterdir() if each.is_file())
        for pattern in STEP_FILES:
            found: dict[StepName, list[Path]] = {}
            for file in names:
                match = pattern.fullmatch(file.name)
                if match is not None:
                    part = int(match.groupdict().get("part") or 0)
                    found.setdefault(StepName(int(match["step"]), part), []).append(file)
            if found:
                return dict(sorted(found.items()))
        return {}

    def steps(self) -> list[LoggedStep]:
        """The files by their steps; of two files of one step, the one written last.

        Raises:
            FileError: the folder can't be read.
        """
        with file_errors(self.path):
            found = self.found_in(Path(self.path))
            return [self._step(name, files) for name, files in found.items()]

    def notes(self) -> list[str]:
        """What was accepted but a user should know, one line each."""
        converted = [] if self._conversion is None else self._conversion.notes()
        return [*self._notes, *converted]

    def _step(self, name: StepName, files: list[Path]) -> LoggedStep:
        stats = {file: file.stat() for file in files}
        newest = max(files, key=lambda file: stats[file].st_mtime_ns)
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            note = f"{self.path}: {names} are both step {name}: {newest.name}, written last, is"
            self._notes[f"{note} audited"] = None
        stat = stats[newest]
        stamp = (str(newest), stat.st_size, stat.st_mtime_ns)
        read = partial(self._read, str(newest))
        return LoggedStep(name, str(newest), stamp, step_state(newest, stat.st_mtime), read)

    def _read(self, file: str) -> LoggedBatch | None:
        if self._format is None and self._conversion is None and kind_of_file(file) is None:
            return LoggedBatch.read(file)
        if self._conversion is None:
            format = log_format(self._format or name_of_log(file))
            self._conversion = LogConversion(self.path, format, self._columns)
        notes = self._conversion.context.notes
        before = notes.rows_left_out
        rows = list(self._conversion.rows_of_file(file))
        if rows:
            return LoggedBatch.of(rows, file)
        if notes.rows_left_out > before:
            raise FileError(f"{file}: none of its responses can be used")
        if next(iter(records_of(file)), None) is None:
            raise FileError(f"{file}: there are no rollouts in it")
        return None
