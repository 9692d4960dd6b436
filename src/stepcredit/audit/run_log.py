"""Where the steps of a run are: in a folder of files, in one file's column, or behind an `@`."""

from __future__ import annotations

from pathlib import Path

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.logged_step import LoggedStep, RunLog
from stepcredit.audit.step_column import StepColumn
from stepcredit.audit.step_files import StepFiles
from stepcredit.errors import FileError, SettingError
from stepcredit.logs.log_files import ANY_FILES
from stepcredit.logs.log_formats import name_of_log
from stepcredit.logs.logged_response import RewardColumns

RUN_FILES = ("rollouts.jsonl", "rollouts.jsonl.gz", "rollouts.parquet")
"""Files that hold all steps of a run in its folder."""
EXPECTED = "rollouts.jsonl, rollouts-STEP.jsonl, completions_STEP.parquet or STEP.jsonl"
MOST_LISTED = 12
"""Steps that a message names."""


def run_log(
    path: str | Path, format: str | None = None, columns: RewardColumns | None = None
) -> RunLog | None:
    """The steps of a run in a folder.

    Args:
        path: a folder that `stepcredit train`, our TRL trainer, TRL or verl writes, or one that
            holds a single file with a step column.
        format: the format of its files, as `stepcredit convert` names it; None: what they look
            like.
        columns: the reward columns of a log that has several.

    Returns:
        None where the path is a file, or a folder of another kind of logs.

    Raises:
        FileError: the folder holds no rollouts.
    """
    place = Path(path)
    if not place.is_dir():
        return None
    for name in RUN_FILES:
        if (place / name).is_file():
            return StepColumn(place / name, format, columns, shown=str(path))
    if StepFiles.found_in(place):
        return StepFiles(place, format, columns)
    files = [each for pattern in ANY_FILES for each in place.glob(pattern)]
    files = [each for each in files if not each.name.startswith(".")]
    if len(files) == 1:
        log = StepColumn(files[0], format, columns, shown=str(path))
        if log.has_steps():
            return log
    if format is None:
        _check_log(place)
    return None


def _check_log(place: Path) -> None:
    """Refuse a folder that holds neither the rollouts of a run nor a log.

    Raises:
        FileError: it says which files of a run are known, and where some are.
    """
    try:
        name_of_log(place)
    except FileError:
        reason = f"no rollouts of a run in this folder: expected {EXPECTED}"
        raise FileError(f"{place}: {reason}{_hint(place)}") from None


def _hint(place: Path) -> str:
    """A folder inside that holds rollouts."""
    inner = sorted(each for each in place.iterdir() if each.is_dir())
    found = (each for each in inner if StepFiles.found_in(each) or _holds_run(each))
    first = next(found, None)
    return "" if first is None else f"; {first} holds some"


def _holds_run(place: Path) -> bool:
    return any((place / name).is_file() for name in RUN_FILES)


def batch_of(
    path: str, format: str | None = None, columns: RewardColumns | None = None
) -> LoggedBatch:
    """The responses of a file, of a log, or of one step of a run.

    Args:
        path: a file or a folder; of a run's folder the last step is taken; or `RUN@STEP` or
            `RUN@POLICY:STEP`, where STEP is a number, `first` or `last`, and RUN is a run's folder
            or a file with a step column.
        format: the log's format, as `stepcredit convert` names it; None: what it looks like.
        columns: the reward columns of a log that has several.

    Raises:
        FileError: it can't be read, or there is no such step; then it names those that there are.
        RowError: a row breaks a rule of the format.
    """
    run, at, wanted = path.rpartition("@")
    if not at or Path(path).exists():
        if run_log(path, format, columns) is None:
            return LoggedBatch.read(path, format, columns)
        run, wanted = path, "last"
    if not Path(run).exists():
        raise FileError(f"{run}: no such file or folder")
    log = run_log(run, format, columns) or StepColumn(Path(run), format, columns)
    steps = log.steps()
    step = _named_step(steps, wanted)
    if step is None:
        raise FileError(f"{run}: has no step {wanted}: its steps are {_listed(steps)}")
    batch = step.read()
    if batch is None:
        raise FileError(f"{step.place}: step {step.name} repeats the step before it")
    return LoggedBatch(batch.rows, f"{run}@{_label(step, steps)}")


def _label(step: LoggedStep, steps: list[LoggedStep]) -> str:
    """A step as it is named behind the `@`: with its policy, where the run has several."""
    has_several = len({each.name.policy for each in steps}) > 1
    return f"{step.name.policy}:{step.name.label}" if has_several else step.name.label


def _listed(steps: list[LoggedStep]) -> str:
    names = [_label(each, steps) for each in steps]
    return ", ".join(names if len(names) <= MOST_LISTED else [*names[:2], "...", *names[-2:]])


def _named_step(steps: list[LoggedStep], wanted: str) -> LoggedStep | None:
    policy, colon, number = wanted.rpartition(":")
    kept = [each for each in steps if not colon or each.name.policy == policy]
    if number in ("first", "last") and kept:
        return kept[0 if number == "first" else -1]
    found = [each for each in kept if each.name.label == number]
    if len(found) > 1:
        policies = ", ".join(_label(each, found) for each in found)
        raise SettingError(f"@{wanted}: several policies have this step: expected {policies}")
    return found[0] if found else None
