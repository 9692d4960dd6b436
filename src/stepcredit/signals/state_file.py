"""Writes the states of steps into a rollout file; all other bytes of the file are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcredit.data.files.batches import Batch
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.states import FIELD
from stepcredit.errors import RolloutError, SignalError
from stepcredit.signals.row_scores import RowReader
from stepcredit.signals.state_keys import StateFunction, step_keys


def write_states(
    path: str | Path,
    output: str | Path,
    states: StateFunction,
    reader: RowReader,
    *,
    replace: bool = False,
) -> int:
    """Write a file's rows with `step_states` and, where they have none, `step_ends`.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".
        output: as `path`; it may be the same file.
        states: gives the states of a response's steps.
        reader: how a row becomes a response with steps.
        replace: whether states that are there are replaced.

    Returns:
        Rows written.

    Raises:
        RowError: the first row whose states do not fit; the output does not change then.
        SignalError: the function fails on a row.
        FileError: a file that can't be read or written.
    """
    made: dict[int, dict[str, Any]] = {}

    def prepare(fields: dict[str, Any], line: int) -> dict[str, Any]:
        row = reader.with_tokens(fields)
        if FIELD in row and not replace:
            raise RolloutError("is there already: --replace it", field=FIELD)
        try:
            response = reader.response(row)
            own = {FIELD: step_keys(response, states), "step_ends": response.step_ends}
        except SignalError as error:
            raise error.at(place=f"{path}:{line}") from error.__cause__
        _refuse_other_steps(row, own["step_ends"])
        added = {name: row[name] for name in row.keys() - fields.keys()}
        made[line] = {**added, **own}
        return {**row, **own}

    def compute(batch: Batch) -> list[Mapping[str, Any]]:
        return [made.pop(row.line) for row in batch.rows]

    with RolloutFile(path, prepare=prepare) as file:
        return file.annotate(output, compute)


def _refuse_other_steps(row: Mapping[str, Any], ends: Sequence[int]) -> None:
    known = row.get("step_ends")
    if known is not None and list(known) != list(ends):
        reason = f"are {list(known)}, but by --split {list(ends)}: leave --split out"
        raise RolloutError(reason, field="step_ends")
