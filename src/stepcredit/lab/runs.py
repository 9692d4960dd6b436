"""The folder of a run: the paths in it, and logs that can be cut back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError

LOGS = ("metrics", "rollouts", "timing")


@dataclass(frozen=True)
class RunFolder:
    """`runs/NAME/`: config, logs, checkpoints and figures of a run.

    Args:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, runs_dir: Path, name: str | None, default: str) -> RunFolder:
        """Create a folder; without a name, the first free one of NAME, NAME-2, ... of the default.

        Raises:
            FileError: the named folder exists, or the folder cannot be made.
        """
        path = runs_dir / (name or default)
        number = 1
        while name is None and path.exists():
            number += 1
            path = runs_dir / f"{default}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            reason = "exists: choose another --name, or continue it with --resume"
            raise FileError(reason, field=str(path)) from None
        except OSError as error:
            raise FileError(error.strerror or str(error), field=str(path)) from None
        return cls(path)

    @property
    def config(self) -> Path:
        """Path of the settings."""
        return self.path / "config.json"

    @property
    def warm_start(self) -> Path:
        """Path of the policy from which every method starts."""
        return self.path / "warm_start"

    @property
    def teacher(self) -> Path:
        """Path of the teacher, for methods that read log-probs."""
        return self.path / "teacher"

    @property
    def curves(self) -> Path:
        """Path of the plot."""
        return self.path / "curves.png"

    @property
    def summary(self) -> Path:
        """Path of the figures in the closing table."""
        return self.path / "summary.json"

    @property
    def progress(self) -> Path:
        """Path of the record of the run's progress."""
        return self.path / "progress.json"

    def checkpoint(self, label: str, *, first: bool) -> Path:
        """Path of a method's final policy: `checkpoint` for the first, else `checkpoint-LABEL`."""
        return self.path / ("checkpoint" if first else f"checkpoint-{label}")

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints to resume from, kept until the run is finished."""
        return self.path / "checkpoints"

    def working(self, label: str) -> Path:
        """Folder of one method's checkpoints to resume from."""
        return self.checkpoints / label

    def log(self, name: str) -> Path:
        """Path of one of `LOGS`, in JSON Lines."""
        return self.path / f"{name}.jsonl"

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a log; numpy arrays become lists, and float32 the shortest decimals."""
        option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        with file_errors(str(self.log(name))), self.log(name).open("ab") as file:
            file.write(b"".join(orjson.dumps(row, option=option) for row in rows))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """All rows of a log."""
        path = self.log(name)
        if not path.exists():
            return []
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]

    def sizes(self) -> dict[str, int]:
        """Size of each log in bytes."""
        return {n: self.log(n).stat().st_size if self.log(n).exists() else 0 for n in LOGS}

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Truncate each log to the given size in bytes."""
        for name, size in sizes.items():
            if self.log(name).exists():
                os.truncate(self.log(name), size)
