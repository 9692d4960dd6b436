"""One file with the rollouts of all steps of a run, whose rows name their step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.logged_step import (
    LoggedStep,
    StepName,
    StepState,
    is_half_written,
    step_state,
)
from stepcredit.data.files.jsonl import file_errors, parse
from stepcredit.data.files.lines import Line, Source
from stepcredit.errors import FileError, RolloutError, RowError
from stepcredit.logs.conversion import LogConversion
from stepcredit.logs.log_formats import kind_of_file, log_format, name_of_log
from stepcredit.logs.logged_response import RewardColumns

STEP_FIELDS = ("step", "global_step", "update", "gen_step")
"""Fields of a row that may hold its step, the first that the file's first row has."""
POLICY_FIELD = "method"
"""Beside `update`: `stepcredit train` trains one policy per method, and names it here."""


@dataclass
class _Block:
    """The rows of a step that stand together in a file: their lines, and what can't be read."""

    name: StepName
    rows: list[Any] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    first: int = 0
    last: int = 0


class StepColumn:
    """One file with the rollouts of all steps, whose rows name their step.

    Args:
        path: the file.
        format: its format; None: what it looks like.
        columns: the reward columns of a log that has several.
        shown: the path for reports; "": the file's.
    """

    def __init__(
        self,
        path: Path,
        format: str | None = None,
        columns: RewardColumns | None = None,
        *,
        shown: str = "",
    ) -> None:
        self.path = shown or str(path)
        self._file, self._format, self._columns = str(path), format, columns
        self._seen: tuple[int, int] | None = None
        self._blocks: list[_Block] = []
        self._notes: list[str] = []

    def has_steps(self) -> bool:
        """Whether the file's first row names its step."""
        if self._is_log():
            return any(block.name.number >= 0 for block in self._log_blocks())
        first = next(_parsed(self._file), None)
        return first is not None and step_field(first[1]) is not None

    def is_begun(self) -> bool:
        """Whether the file holds a whole line."""
        with file_errors(self._file):
            return Path(self._file).stat().st_size > 0 and not is_half_written(Path(self._file))

    def steps(self) -> list[LoggedStep]:
        """The steps in the file; rows of a step that appear again later replace the earlier ones.

        Raises:
            FileError: the file can't be read, or has no step column.
            RowError: no row can be read; it names the first.
        """
        with file_errors(self._file):
            stat = Path(self._file).stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
        if stamp != self._seen:
            self._notes = []
            blocks = list(self._log_blocks() if self._is_log() else self._line_blocks())
            self._blocks, self._seen = self._last_of_each(blocks), stamp
        newest = max((block.last for block in self._blocks), default=0)
        state = step_state(Path(self._file), stat.st_mtime)
        return [
            self._step(block, "whole" if block.last < newest else state) for block in self._blocks
        ]

    def notes(self) -> list[str]:
        """What was accepted but a user should know, one line each."""
        return list(dict.fromkeys(self._notes))

    def _step(self, block: _Block, state: StepState) -> LoggedStep:
        place = f"{self._file}, lines {block.first} to {block.last}"
        texts = tuple(hash(row.raw) if isinstance(row, Line) else repr(row) for row in block.rows)
        stamp = (block.first, len(block.rows), len(block.errors), hash(texts))
        return LoggedStep(block.name, place, stamp, state, partial(self._read, block))

    def _read(self, block: _Block) -> LoggedBatch:
        if block.errors:
            raise block.errors[0]
        if self._is_log():
            return LoggedBatch.of(block.rows, self._file)
        return LoggedBatch.of_lines(block.rows, self._file)

    def _is_log(self) -> bool:
        return self._format is not None or kind_of_file(self._file) is not None

    def _log_blocks(self) -> Iterator[_Block]:
        """The steps of a log of another tool, by its groups' labels `STEP/NUMBER`."""
        format = log_format(self._format or name_of_log(self._file))
        log = LogConversion(self._file, format, self._columns)
        rows = list(enumerate(log.rows(), start=1))
        self._notes += log.notes()
        for label, members in groupby(rows, lambda row: str(row[1]["group"]).rpartition("/")[0]):
            held = list(members)
            number = int(label) if label.isdecimal() else -1
            lines = [line for line, _ in held]
            yield _Block(StepName(number), [row for _, row in held], [], lines[0], lines[-1])

    def _line_blocks(self) -> Iterator[_Block]:
        """The steps of a file of rollouts; a line that can't be read spoils those around it."""
        rows = list(_named_rows(self._file))
        if not any(isinstance(found, StepName) for _, found in rows):
            empty = FileError(f"{self._file}: there are no rollouts in it")
            raise next((found for _, found in rows if isinstance(found, RowError)), empty)
        blocks: list[_Block] = []
        waiting: list[RowError] = []
        for line, found in rows:
            if isinstance(found, RowError):
                waiting.append(found)
                if blocks:
                    blocks[-1].errors.append(found)
                continue
            if not blocks or blocks[-1].name != found:
                blocks.append(_Block(found, first=line.number, errors=waiting))
            waiting = []
            blocks[-1].rows.append(line)
            blocks[-1].last = line.number
        yield from blocks

    def _last_of_each(self, blocks: Iterable[_Block]) -> list[_Block]:
        """Each step once, by policy and number; of a step that appears again, the last rows."""
        found: dict[StepName, _Block] = {}
        for block in blocks:
            before = found.get(block.name)
            if before is not None:
                note = f"{self._file}: step {block.name} stands in lines {before.first} to "
                note += (
                    f"{before.last} and again from line {block.first}: the later rows are audited"
                )
                self._notes.append(note)
            found[block.name] = block
        policies = {name.policy: at for at, name in reversed(list(enumerate(found)))}
        return sorted(found.values(), key=lambda b: (policies[b.name.policy], b.name))


def _named_rows(file: str) -> Iterator[tuple[Line, StepName | RowError]]:
    """Each line of a file of rollouts, with its step or what is wrong with it.

    Raises:
        FileError: the file's first row names no step.
    """
    column = None
    for line, fields in _parsed(file):
        if isinstance(fields, RowError):
            yield line, fields
            continue
        column = column or step_field(fields)
        if column is None:
            names = ", ".join(STEP_FIELDS)
            raise FileError(f"{file}: no row names its step: expected a field of {names}")
        try:
            yield line, step_name(fields, column)
        except RolloutError as error:
            yield line, error.at_line(file, line.number)


def _parsed(file: str) -> Iterator[tuple[Line, Mapping[str, Any] | RowError]]:
    """Each line of a file, and the object in it or what is wrong with it.

    Raises:
        RowError: the lines, which are kept, pass the limit on memory.
    """
    size = 0
    with Source(file) as source:
        for line in source.lines():
            size += len(line.raw)
            if size > source.limits.held_bytes:
                what = f"the lines up to here take {size} bytes of memory"
                error = RolloutError(source.limits.passed("held_bytes", what))
                raise error.at_line(file, line.number)
            try:
                fields = parse(line.raw)
                if not isinstance(fields, dict):
                    raise RolloutError("expected an object")
            except RolloutError as error:
                yield line, error.at_line(file, line.number)
            else:
                yield line, fields


def step_field(fields: Mapping[str, Any] | RowError) -> str | None:
    """The field of a row that holds its step; None where it has none.

    Example:
        >>> step_field({"group": 1, "update": 20}), step_field({"group": 1})
        ('update', None)
    """
    if isinstance(fields, RowError):
        return None
    return next((name for name in STEP_FIELDS if name in fields), None)


def step_name(fields: Mapping[str, Any], column: str) -> StepName:
    """The step of a row.

    Args:
        fields: of the row.
        column: the field that holds the step.

    Raises:
        RolloutError: the field is missing, or is no whole number.

    Example:
        >>> step_name({"update": 20, "method": "pass"}, "update")
        StepName(number=20, part=0, policy='pass')
        >>> step_name({"step": "7"}, "step").number
        7
    """
    if column not in fields:
        raise RolloutError("missing: expected the step's number", field=column)
    given = fields[column]
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not float(given).is_integer():
        raise RolloutError(f"expected the step's number, got {given!r:.40}", field=column)
    policy = fields.get(POLICY_FIELD) if column == "update" else None
    return StepName(int(given), policy=policy if isinstance(policy, str) else "")
