"""The folder a run leaves: where each thing in it is, and lines that can be taken back."""

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
        """A new folder; without a name, the default's first free one (NAME, NAME-2, ...).

        Raises:
            FileError: when the named folder exists, or none can be made.
        """
        path = runs_dir / (name or default)
        number = 1
        while name is None and path.exists():
            number += 1
            path = runs_dir / f"{default}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            reason = "exists: choose another --name, or go on with it by --resume"
            raise FileError(reason, field=str(path)) from None
        except OSError as error:
            raise FileError(error.strerror or str(error), field=str(path)) from None
        return cls(path)

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.json"

    @property
    def warm_start(self) -> Path:
        """The policy every method started from."""
        return self.path / "warm_start"

    @property
    def teacher(self) -> Path:
        """The model that log-probs are taken from, where a method is made of them."""
        return self.path / "teacher"

    @property
    def curves(self) -> Path:
        """The picture."""
        return self.path / "curves.png"

    @property
    def summary(self) -> Path:
        """The closing table's figures."""
        return self.path / "summary.json"

    @property
    def progress(self) -> Path:
        """How far the run has come."""
        return self.path / "progress.json"

    def checkpoint(self, label: str, *, first: bool) -> Path:
        """A method's final policy: `checkpoint` for the first one, else `checkpoint-LABEL`."""
        return self.path / ("checkpoint" if first else f"checkpoint-{label}")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints to resume from are kept while the run lasts."""
        return self.path / "checkpoints"

    def working(self, label: str) -> Path:
        """A method's checkpoints to resume from."""
        return self.checkpoints / label

    def log(self, name: str) -> Path:
        """One of `LOGS`, JSON Lines."""
        return self.path / f"{name}.jsonl"

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to a log; numpy arrays are written as lists, float32 shortest."""
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
        """Bytes of each log."""
        return {n: self.log(n).stat().st_size if self.log(n).exists() else 0 for n in LOGS}

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Take back what each log holds past the given size."""
        for name, size in sizes.items():
            if self.log(name).exists():
                os.truncate(self.log(name), size)
