"""Writes a signal's scores into a rollout file; all other bytes of the file are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stepcredit._moved import reads_old_keyword
from stepcredit.data.files.batches import Batch
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.rows import check_row
from stepcredit.data.rules import NAME_TAKEN, RESERVED_NAMES
from stepcredit.errors import RolloutError, SettingError, SignalError, StepCreditError
from stepcredit.signals.responses import Response
from stepcredit.signals.row_scores import LOGPROB_FIELDS, RowReader, members, refuse_taken
from stepcredit.signals.signal import Grain, Signal, in_order

PreparedRow = tuple[Response, dict[str, Any]]
"""A row's response, and the members that the row lacked."""
BATCH_TOKENS = 4_000_000
"""Tokens scored at once: many, so that a server is kept busy and lengths pack well."""


@dataclass(frozen=True)
class Scoring:
    """Which signal scores a file, and under which name the scores are written.

    Args:
        signal: the signal that scores.
        reader: how a row becomes a response.
        stream: `process`, a log-prob field, or another stream's name.
        replace: whether an existing stream of that name is replaced.

    Raises:
        SettingError: log-probs of a signal that scores steps; or a name that is taken.
    """

    signal: Signal
    reader: RowReader = RowReader()
    stream: str = "process"
    replace: bool = False

    def __post_init__(self) -> None:
        if self.stream in LOGPROB_FIELDS and self.signal.grain == "steps":
            reason = f"{self.signal.name} scores steps, log-probs are one per token"
            raise SettingError(reason, field=self.stream)
        if self.stream in LOGPROB_FIELDS and self.signal.may_leave_out:
            reason = "holds a log-prob of every token: leave unscorable at 'refuse'"
            raise SettingError(reason, field=self.stream)
        if self.stream in RESERVED_NAMES:
            raise SettingError(NAME_TAKEN, field=self.stream)


@reads_old_keyword("told", "progress")
def score_file(
    path: str | Path,
    output: str | Path,
    scoring: Scoring,
    *,
    progress: Callable[[int, int], None] | None = None,
    left_out: Callable[[Counter[str]], None] | None = None,
) -> int:
    """Write a file's rows with a signal's scores, in the same order.

    All rows are checked before the first one is scored.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".
        output: as `path`; it may be the same file.
        scoring: what is scored, and where the scores go.
        progress: called with the number of rows scored and the number of all rows.
        left_out: called at the end with how many responses are "unscored", and how many are "cut":
            scored up to a step before their last. It is not called where there are none.

    Returns:
        Rows written.

    Raises:
        RowError: the first row that can't be scored; the output does not change then.
        SignalError: a model or server that failed, by `FILE:LINE`.
        FileError: a file that can't be read or written.
    """
    name, prepared, tally = str(path), dict[int, PreparedRow](), Counter[str]()

    def prepare(fields: dict[str, Any], line: int) -> dict[str, Any]:
        row = scoring.reader.with_tokens(fields)
        check_row(row)
        refuse_taken(row, scoring.signal.grain, scoring.stream, replace=scoring.replace)
        added = {field: row[field] for field in row.keys() - fields.keys()}
        prepared[line] = scoring.reader.response(row, f"{name}:{line}"), added
        return row

    def taken(batch: Batch) -> list[PreparedRow]:
        return [prepared.pop(row.line) for row in batch.rows]

    def count(done: int, batch: Batch) -> int:
        return done + len(taken(batch))

    with RolloutFile(path, prepare=prepare, batch_tokens=BATCH_TOKENS) as file:
        rows, done = file.fold(int, count), 0

        def compute(batch: Batch) -> list[Mapping[str, Any]]:
            nonlocal done
            before, done = done, done + len(batch.rows)
            report = progress and partial(_report, progress, before, rows)
            return _scored(batch, taken(batch), scoring, report, tally)

        written = file.annotate(output, compute)
    if left_out is not None and tally:
        left_out(tally)
    return written


def read_responses(path: str | Path, reader: RowReader) -> list[Response]:
    """The responses of a file's rows, in order, as a signal would score them.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".
        reader: how a row becomes a response.

    Raises:
        RowError: the first row that can't be read.
        FileError: a file that can't be read.
    """
    found: list[Response] = []

    def prepare(fields: dict[str, Any], line: int) -> dict[str, Any]:
        row = reader.with_tokens(fields)
        check_row(row)
        found.append(reader.response(row, f"{path}:{line}"))
        return row

    with RolloutFile(path, prepare=prepare) as file:
        for _ in file.rows():
            pass
    return found


def _report(progress: Callable[[int, int], None], before: int, rows: int, done: int) -> None:
    progress(before + done, rows)


def _scored(
    batch: Batch,
    prepared: list[PreparedRow],
    scoring: Scoring,
    progress: Callable[[int], None] | None,
    tally: Counter[str],
) -> list[Mapping[str, Any]]:
    responses = [response for response, _ in prepared]
    grain, stream = scoring.signal.grain, scoring.stream
    try:
        scores = in_order(responses, scoring.signal.checked(responses), progress)
        fields: list[Mapping[str, Any]] = [
            added | members(row.fields, response, values, grain, stream)
            for row, (response, added), values in zip(batch.rows, prepared, scores, strict=True)
        ]
    except RolloutError as error:
        raise _in_file(error, batch, responses) from None
    tally.update(_left_out(responses, scores, grain))
    return fields


def _left_out(responses: list[Response], scores: list[list[float]], grain: Grain) -> Iterator[str]:
    """One "unscored" or "cut" for each response that does not have all its scores."""
    for response, values in zip(responses, scores, strict=True):
        if not values:
            yield "unscored"
        elif grain == "steps" and len(values) < len(response.steps or ()):
            yield "cut"


def _in_file(error: RolloutError, batch: Batch, responses: list[Response]) -> StepCreditError:
    """The error about a response, restated for its line of the file."""
    for row, response in zip(batch.rows, responses, strict=True):
        if response.name == error.place:
            path = response.name.removesuffix(f":{row.line}")
            return error.at_line(path, row.line)
    return SignalError(str(error))
