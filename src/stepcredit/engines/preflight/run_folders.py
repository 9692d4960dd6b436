"""Checks of the folders that a run writes into: write access, and room for the checkpoints."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.filesize import decimal

from stepcredit.errors import EngineError

MOMENTS = 2
"""Adam's, per parameter, beside the parameter itself."""


def check_folder_writable(folder: str | Path, setting: str) -> str:
    """Refuse a folder that can't be made or written to. Nothing is left behind.

    Args:
        folder: it need not exist yet; then the nearest folder above it that exists is tried.
        setting: the setting that names it.

    Raises:
        EngineError: names the setting.

    Example:
        >>> check_folder_writable(tempfile.gettempdir(), "output_dir") == tempfile.gettempdir()
        True
    """
    there = existing_part(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = f"{folder} can't be written: {there}: {error.strerror}"
        raise EngineError(reason, field=setting) from error
    return str(folder)


def existing_part(folder: str | Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = Path(folder).expanduser().absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path


def size_on_disk(folders: Iterable[Path]) -> int:
    """Bytes of all files in some folders."""
    files = (path for folder in folders for path in folder.rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())


def checkpoint_size(trained_bytes: int, moments: int = MOMENTS) -> int:
    """Bytes of one checkpoint: the trained weights and the optimizer's moments.

        bytes = (1 + moments) x bytes of the trained weights

    Args:
        trained_bytes: of all trained weights.
        moments: numbers that the optimizer keeps per weight, two by Adam.

    Example:
        >>> checkpoint_size(4 * 1000)
        12000
    """
    return (1 + moments) * trained_bytes


def check_disk(
    folder: str | Path,
    trained_bytes: int,
    checkpoints: int,
    setting: str,
    *,
    moments: int = MOMENTS,
    existing: int = 0,
) -> str:
    """Refuse a disk without room for the checkpoints that a run keeps, and the final model.

        all = checkpoints x (1 + moments) x trained bytes
        needed = all - min(existing, all) + trained bytes

    Args:
        folder: where they are written.
        trained_bytes: of all trained weights.
        checkpoints: how many are kept at the same time, the one being written included.
        setting: the setting that names the folder.
        moments: numbers that the optimizer keeps per weight; 0: it is not saved.
        existing: bytes of the run's checkpoints that are on the disk already.

    Raises:
        EngineError: names the setting, what is needed and what is free.
    """
    kept = checkpoints * checkpoint_size(trained_bytes, moments)
    needed = kept - min(existing, kept) + trained_bytes
    each = f"{1 + moments} x {decimal(trained_bytes)}"
    what = f"{checkpoints} checkpoints of {each} and the model"
    return check_room(folder, needed, what, setting, more=existing > 0)


def check_room(
    folder: str | Path, needed: int, what: str, setting: str, *, more: bool = False
) -> str:
    """Refuse a disk without room for what a run writes.

    Args:
        folder: where it is written.
        needed: bytes, beside what is there already.
        what: what is written, in the plural.
        setting: the setting that names the folder.
        more: whether a part of it is there already.

    Returns:
        What is needed and what is free.

    Raises:
        EngineError: names the setting, what is needed and what is free.

    Example:
        >>> check_room("/", 5_000_000, "2 checkpoints", "output_dir").startswith(
        ...     "2 checkpoints take 5.0 MB, and ")
        True
    """
    free = shutil.disk_usage(existing_part(folder)).free
    size = f"{decimal(needed)} more" if more else decimal(needed)
    said = f"{what} take {size}, and {decimal(free)} are free"
    if needed > free:
        raise EngineError(f"{said}: keep fewer, or name another disk", field=setting)
    return said


def kept_checkpoints(steps: int | None, every: float | None, limit: int | None) -> int:
    """How many checkpoints are on the disk at the same time.

    Args:
        steps: of the whole run; None: not known, so that two are counted.
        every: a checkpoint is written after so many steps; below 1: a share of the run; None or 0:
            never.
        limit: the most that are kept; one more is there while it is written. None: all are kept.

    Example:
        >>> kept_checkpoints(100, 20, None), kept_checkpoints(100, 20, 2), kept_checkpoints(9, 0, 2)
        (5, 3, 0)
    """
    if not every:
        return 0
    if every < 1:
        steps, every = int(1 / every), 1
    written = 2 if steps is None else -(-steps // int(every))
    return written if limit is None else min(written, limit + 1)
