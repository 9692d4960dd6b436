"""Where an interrupted run goes on: the newest whole checkpoint, the logs cut back to it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from stepcredit.data.files.atomic import write_json
from stepcredit.errors import FileError
from stepcredit.lab.runs import RunFolder

MARK = "progress.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Progress:
    """How far a run had come when it was written.

    Attributes:
        finished: labels of the methods trained to the end.
        sizes: bytes of each log then.
    """

    finished: list[str]
    sizes: dict[str, int]

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read it back.

        Raises:
            FileError: when it is not there or damaged.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise FileError("no such file: nothing to resume", field=str(path)) from None
        except (ValueError, TypeError) as error:
            raise FileError(f"not the progress of a run: {error}", field=str(path)) from None


def mark(folder: RunFolder, finished: list[str], checkpoint: Path | None = None) -> None:
    """Note how far the run has come, in a checkpoint just saved or for the run as a whole.

    A checkpoint without the mark is not whole, and is never resumed from.
    """
    path = folder.progress if checkpoint is None else checkpoint / MARK
    Progress(finished, folder.sizes()).save(path)


def newest_checkpoint(working: Path) -> Path | None:
    """The marked checkpoint of the latest step; those not marked are removed."""
    found: dict[int, Path] = {}
    for path in working.glob("checkpoint-*"):
        matched = _CHECKPOINT.fullmatch(path.name)
        if matched is None:
            continue
        if (path / MARK).is_file():
            found[int(matched[1])] = path
        else:
            shutil.rmtree(path)
    return found[max(found)] if found else None


def restore(folder: RunFolder, labels: list[str]) -> tuple[list[str], Path | None]:
    """Cut the logs back to the newest state that can be gone on from.

    Args:
        folder: the run's.
        labels: its methods, in order.

    Returns:
        the methods finished, and the checkpoint the next one goes on from (None: its start).

    Raises:
        FileError: when the folder holds no run.
    """
    progress = Progress.load(folder.progress)
    waiting = [label for label in labels if label not in progress.finished]
    checkpoint = newest_checkpoint(folder.working(waiting[0])) if waiting else None
    if checkpoint is not None:
        progress = Progress.load(checkpoint / MARK)
    folder.cut(progress.sizes)
    return progress.finished, checkpoint
