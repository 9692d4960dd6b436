"""Resumes an interrupted run from its newest complete checkpoint; later log lines are cut."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from stepcredit.data.files.atomic import write_json
from stepcredit.errors import FileError
from stepcredit.lab.runs import RunFolder

PROGRESS_FILE = "progress.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Progress:
    """The progress of a run at the time of writing.

    Args:
        finished: labels of the methods that are fully trained.
        sizes: size of each log at that time, in bytes.
    """

    finished: list[str]
    sizes: dict[str, int]

    def save(self, path: Path) -> None:
        """Write the progress atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read the progress from a file.

        Raises:
            FileError: the file is missing or damaged.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise FileError("no such file: nothing to resume", field=str(path)) from None
        except (ValueError, TypeError) as error:
            raise FileError(f"not the progress of a run: {error}", field=str(path)) from None


def mark(folder: RunFolder, finished: list[str], checkpoint: Path | None = None) -> None:
    """Record the progress of the run, in a checkpoint just saved or in the run folder.

    A checkpoint without this record is incomplete, and a run never resumes from it.
    """
    path = folder.progress if checkpoint is None else checkpoint / PROGRESS_FILE
    Progress(finished, folder.sizes()).save(path)


def newest_checkpoint(working: Path) -> Path | None:
    """The latest checkpoint that is complete; incomplete ones are removed."""
    found: dict[int, Path] = {}
    for path in working.glob("checkpoint-*"):
        matched = _CHECKPOINT.fullmatch(path.name)
        if matched is None:
            continue
        if (path / PROGRESS_FILE).is_file():
            found[int(matched[1])] = path
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None


def restore(folder: RunFolder, labels: list[str]) -> tuple[list[str], Path | None]:
    """Cut the logs back to the newest state from which the run can resume.

    Args:
        folder: the run folder.
        labels: labels of the run's methods, in order.

    Returns:
        The finished methods, and the checkpoint from which the next method resumes (None if it
        starts from the warm start).

    Raises:
        FileError: the folder holds no run.
    """
    progress = Progress.load(folder.progress)
    waiting = [label for label in labels if label not in progress.finished]
    checkpoint = newest_checkpoint(folder.working(waiting[0])) if waiting else None
    if checkpoint is not None:
        progress = Progress.load(checkpoint / PROGRESS_FILE)
    folder.cut(progress.sizes)
    return progress.finished, checkpoint
