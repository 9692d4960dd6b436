"""Reads rollout files in batches of whole groups, and writes them again with new members.

A file is read line by line; a group ends where the label changes, and memory holds a few batches.
If the label of an ended group appears again, reading starts over with an index of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from stepcredit.data.advantages import Advantages
from stepcredit.data.files.atomic import check_writable, folder_of, is_streamed, replacing
from stepcredit.data.files.batches import (
    BATCH_TOKENS,
    Batch,
    GroupBatcher,
    group_faults,
    group_label,
)
from stepcredit.data.files.ended_groups import EndedGroups
from stepcredit.data.files.faults import Faults
from stepcredit.data.files.file_tally import FileTally
from stepcredit.data.files.held_rows import held_rows
from stepcredit.data.files.jsonl import file_errors, parse
from stepcredit.data.files.limits import weight
from stepcredit.data.files.lines import Line, Progress, Source
from stepcredit.data.files.results import by_row
from stepcredit.data.files.rows import Row, check_row
from stepcredit.data.files.splice import add_members, with_members
from stepcredit.data.files.spool import Spool
from stepcredit.data.files.trajectory_rows import complete_parts
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import FileError, RolloutError, RowError

State = TypeVar("State")
Prepare = Callable[[dict[str, Any], int], dict[str, Any]]
Compute = Callable[[Batch], Iterable[Mapping[str, Any]]]
Finish = Callable[[], None] | None


class _GroupsNotContiguousError(Exception):
    """The label of a group that has ended appears again."""


class _ComputeFailedError(Exception):
    """An error of the system in what computes the new members, which no file is to blame for."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(str(error))


class RolloutFile:
    """A file of rollouts, read as often as needed. Use it as a context manager.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-" for standard input.
        progress: called from time to time with the fraction of the file read in this pass.
        prepare: takes a row as read and its line number, and returns the row to check; it may add
            fields that the row lacks, such as tokens.
        batch_tokens: tokens at which a batch is full.
        needs_tokens: refuse a row that does not say how many tokens it has; else its length is 0,
            and its batch can't become `Rollouts`.

    Raises:
        FileError: the file can't be opened.
        MissingExtra: a Parquet file without pyarrow.

    Example:
        >>> import tempfile
        >>> from stepcredit.data.files.writing import write_rollouts
        >>> path = Path(tempfile.mkdtemp()) / "rollouts.jsonl"
        >>> write_rollouts(path, [{"group": "q", "length": 2, "outcome": 1.0}])
        >>> with RolloutFile(path) as file:
        ...     file.fold(lambda: 0, lambda rows, batch: rows + len(batch.rows))
        1
    """

    def __init__(
        self,
        path: str | Path,
        progress: Progress | None = None,
        *,
        prepare: Prepare | None = None,
        batch_tokens: int = BATCH_TOKENS,
        needs_tokens: bool = True,
    ) -> None:
        self._source = Source(path, progress)
        self._prepare, self._batch_tokens = prepare, batch_tokens
        self._needs_tokens = needs_tokens
        self._scattered = False
        self._keeps_lines = False
        self.path = self._source.name
        self._tally = FileTally(self.path)

    def __enter__(self) -> RolloutFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.__exit__(*error)

    def warnings(self) -> list[str]:
        """What the last `fold` or `shape` accepted but a user should know, one line each."""
        return self._tally.row_warnings()

    def group_warnings(self, *, compares: bool = True, gate: bool = True) -> list[str]:
        """What the last `fold` or `shape` saw that leaves no credit in the whole file.

        Args:
            compares: whether responses are compared with others of their group: warn if every
                group has one response.
            gate: whether `format_ok` is read: warn if it is false for all responses.
        """
        return self._tally.group_warnings(compares=compares, gate=gate)

    def held_rows(self) -> list[Row]:
        """Every row in the file's order, together in memory; each is checked alone.

        Raises:
            RowError: the first row that breaks a rule, or that passes a limit on memory.
        """
        return held_rows(self.rows(), self._source.limits, self.path)

    def rows(self) -> Iterator[Row]:
        """Every row in the file's order; each is checked alone, not within its group.

        Raises:
            RowError: the first row that breaks a rule.
        """
        for line in self._source.lines():
            try:
                yield self._checked(line)
            except RolloutError as error:
                raise error.at_line(self.path, line.number) from error.__cause__

    def fold(
        self,
        start: Callable[[], State],
        step: Callable[[State, Batch], State],
        finish: Finish = None,
    ) -> State:
        """Update a state with each batch of whole groups, and return the last state.

        Args:
            start: gives the first state; it is called again if reading starts over.
            step: takes a state and a batch, and gives the next state. A RolloutError that it raises
                is reported with its line in the file; to find the line, the groups of the batch
                are tried one by one.
            finish: called once after the last batch. A RolloutError that it raises is about the
                whole file, and is reported at its first row.

        Returns:
            The last state.

        Raises:
            RowError: the first fault by line, and how many more there are.
            FileError: the file can't be read, or holds no rows.
        """
        try:
            return self._fold(start(), step, finish)
        except _GroupsNotContiguousError:
            self._scattered = True
            return self._fold(start(), step, finish)

    def _fold(
        self,
        state: State,
        step: Callable[[State, Batch], State],
        finish: Finish,
    ) -> State:
        faults = Faults()
        first: int | None = None
        for batch in self._batches(faults):
            line = min(row.line for row in batch.rows)
            first = line if first is None else min(first, line)
            if faults.broken_rows:
                continue
            try:
                state = step(state, batch)
            except RowError:
                raise
            except RolloutError as error:
                _blame(batch, error, partial(step, state), faults)
        faults.throw(self.path)
        if first is None:
            raise FileError(f"{self.path}: there are no rollouts in it")
        if finish is not None:
            self._finish(finish, first)
        return state

    def _finish(self, finish: Callable[[], None], first: int) -> None:
        try:
            finish()
        except RolloutError as error:
            raise error.at_line(self.path, first) from error.__cause__

    def _batches(self, faults: Faults) -> Iterator[Batch]:
        """Batches up to the file's end, or up to a row that is beyond a limit."""
        gathering = GroupBatcher(self._batch_tokens)
        try:
            for group in self._groups(faults):
                yield from gathering.add(group)
        except RowError as error:
            faults.add(error.line, error, breaks_row=True)
        yield from gathering.rest()

    def _groups(self, faults: Faults) -> Iterator[list[Row]]:
        """Groups without a fault. Faults are collected: the file is refused when all are known."""
        ended = EndedGroups()
        group: list[Row] = []
        current: str | None = None
        size = 0
        for row in self._rows(faults):
            label = group_label(row)
            size = row.size + (size if label == current else 0)
            if self._source.is_packed and size > self._source.limits.group_bytes:
                raise self._too_large(size).at_line(self.path, row.line)
            if label == current:
                group.append(row)
                continue
            if label in ended:
                raise _GroupsNotContiguousError
            if group:
                ended.add(group_label(group[0]))
                yield from self._good(group, faults)
            group, current = [row], label
        if group:
            yield from self._good(group, faults)

    def _too_large(self, size: int) -> RolloutError:
        what = f"the rows of its group take {size} bytes of memory"
        return RolloutError(self._source.limits.passed("group_bytes", what), field="group")

    def _good(self, group: list[Row], faults: Faults) -> Iterator[list[Row]]:
        found = complete_parts(group) or group_faults(group, self._source.limits)
        for line, error in found:
            faults.add(line, error, breaks_row=True, of_group=True)
        if not found:
            self._tally.add_group(group)
            yield group

    def _rows(self, faults: Faults) -> Iterator[Row]:
        self._tally = FileTally(self.path)
        lines = self._source.grouped_lines() if self._scattered else self._source.lines()
        for line in lines:
            try:
                row = self._checked(line)
            except RolloutError as error:
                faults.add(line.number, error, breaks_row=True)
            else:
                yield row

    def _checked(self, line: Line) -> Row:
        size = len(line.raw)
        if self._source.is_packed:
            size = weight(line.raw)
            if size > self._source.limits.group_bytes:
                raise self._too_large(size)
        fields = parse(line.raw)
        if self._prepare is not None and isinstance(fields, dict):
            fields = self._prepare(fields, line.number)
        row = check_row(
            fields, position=line.position, line=line.number, needs_tokens=self._needs_tokens
        )
        row.size = size
        if self._keeps_lines:
            row.raw = line.raw
        return row

    def shape(
        self,
        output: str | Path,
        compute: Callable[[Rollouts], Advantages],
        finish: Finish = None,
    ) -> int:
        """Write the file again with the member `advantages` in each row, in the same order.

        Args:
            output: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-"; it may be the input file.
            compute: advantages of a batch of whole groups.
            finish: as for `fold`; called before the output is written.

        Returns:
            Rows written.

        Raises:
            RowError: the first fault; the output is then as it was before.
            FileError: a file that can't be read or written.
        """

        def members(batch: Batch) -> Iterator[dict[str, Any]]:
            for values in by_row(batch.rows, compute(batch.rollouts)):
                yield {"advantages": values}

        self._check_output(output)
        if not self._source.is_parquet and not str(output).endswith(".parquet"):
            rows = self._annotate_in_one_pass(output, members, finish)
            if rows is not None:
                return rows
        return self._annotate_in_two_passes(output, members, finish)

    def annotate(
        self,
        output: str | Path,
        compute: Compute,
        finish: Finish = None,
    ) -> int:
        """Write the file again with further members in each row, in the same order.

        Args:
            output: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-"; it may be the input file.
            compute: gives the new members of each row of a batch of whole groups; they replace the
                row's members of the same name. A RowError that it raises is reported unchanged.
            finish: as for `fold`; called before the output is written.

        Returns:
            Rows written.

        Raises:
            RowError: the first fault; the output is then as it was before.
            FileError: a file that can't be read or written.
        """
        self._check_output(output)
        return self._annotate_in_two_passes(output, compute, finish)

    def select(self, output: str | Path, keep: Callable[[int], bool]) -> int:
        """Write some of the rows again, unchanged and in the same order.

        Args:
            output: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".
            keep: whether the row with so many rows before it is written.

        Returns:
            Rows written.

        Raises:
            FileError: a file that can't be read or written, or no rows into a Parquet file.
        """
        self._check_output(output)
        written = 0

        def chosen() -> Iterator[bytes]:
            nonlocal written
            written = 0
            for position, _, raw in self._source.lines():
                if keep(position):
                    written += 1
                    yield raw + b"\n"

        with replacing(output) as out:
            if not str(output).endswith(".parquet"):
                out.writelines(chosen())
                return written
            from stepcredit.data.files.parquet import from_lines, select_rows

            if self._source.is_parquet:
                return select_rows(self.path, keep, out)
            from_lines(chosen, out, str(output))
            return written

    def _check_output(self, output: str | Path) -> None:
        """Refuse an output that can't be written, before the work for it begins."""
        if self._source.is_parquet and not str(output).endswith(".parquet"):
            from stepcredit.data.files.parquet import check_json_output

            check_json_output(self.path)
        check_writable(output)

    def _annotate_in_one_pass(
        self, output: str | Path, compute: Compute, finish: Finish
    ) -> int | None:
        """Write each row as soon as its batch is computed, if the rows come in the file's order.

        The new members of rows that come in another order wait in a temporary file; the lines of
        these rows are then read again.

        Returns:
            Rows written. None if nothing was written: the output is not a file that can be
            replaced, so it must not be begun before all rows are known to be good, or the groups
            are not contiguous.
        """
        if self._scattered or is_streamed(output):
            return None
        self._keeps_lines = True
        try:
            with replacing(output) as out, Spool(folder_of(output)) as later:
                step = partial(self._write_batch, _not_of_the_output(compute), out, later)
                written = self._fold(0, step, finish)
                later.flush()
                rows = max(written, len(later))
                out.writelines(self._lines(later, written, rows))
            return rows
        except _ComputeFailedError as failed:
            raise failed.error from None
        except _GroupsNotContiguousError:
            self._scattered = True
            return None
        finally:
            self._keeps_lines = False

    def _write_batch(
        self, compute: Compute, out: IO[bytes], later: Spool, written: int, batch: Batch
    ) -> int:
        """Write the rows that are next in the file's order, and keep the members of the others.

        Returns:
            Rows written so far.
        """
        for row, members in zip(batch.rows, compute(batch), strict=True):
            piece = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
            if row.position == written:
                replaced = [name for name in members if name in row.fields]
                out.write(add_members(row.raw, replaced, piece) + b"\n")
                written += 1
            else:
                later.put(row.position, piece)
        return written

    def _annotate_in_two_passes(self, output: str | Path, compute: Compute, finish: Finish) -> int:
        """Keep all new members in a temporary file, then read the file again and write it."""
        with file_errors(str(output)):
            spool = Spool(folder_of(output))

        def start() -> Spool:
            spool.clear()
            return spool

        def step(kept: Spool, batch: Batch) -> Spool:
            for row, members in zip(batch.rows, compute(batch), strict=True):
                piece = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
                with file_errors(str(output)):
                    kept.put(row.position, piece)
            return kept

        with spool:
            self.fold(start, step, finish)
            with file_errors(str(output)):
                spool.flush()
            with replacing(output) as out:
                self._write(spool, out, str(output))
            return len(spool)

    def _write(self, spool: Spool, out: IO[bytes], name: str) -> None:
        rows = len(spool)
        if not name.endswith(".parquet"):
            out.writelines(self._lines(spool, 0, rows))
        elif self._source.is_parquet:
            from stepcredit.data.files.parquet import replace_columns

            replace_columns(self.path, lambda: map(spool.get, range(rows)), out)
        else:
            from stepcredit.data.files.parquet import from_lines

            from_lines(lambda: self._lines(spool, 0, rows), out, name)

    def _lines(self, spool: Spool, first: int, rows: int) -> Iterator[bytes]:
        """The lines from row `first` to row `rows` - 1 with their new members, read again."""
        if first == rows:
            return
        position = -1
        for position, _, raw in islice(self._source.lines(), rows):
            if position >= first:
                yield with_members(raw, spool.get(position)) + b"\n"
        if position < rows - 1:
            raise FileError(f"{self.path}: lost rows while it was read")


def _not_of_the_output(compute: Compute) -> Compute:
    """The same, whose errors of the system are not taken for those of the file being written."""

    def guarded(batch: Batch) -> Iterable[Mapping[str, Any]]:
        try:
            return list(compute(batch))
        except OSError as error:
            raise _ComputeFailedError(error) from error

    return guarded


def _blame(
    batch: Batch, failure: RolloutError, step: Callable[[Batch], object], faults: Faults
) -> None:
    """Find the rows for which `step` fails, by trying group after group."""
    before = faults.count
    for group in batch.groups():
        try:
            step(group)
        except RolloutError as error:
            faults.add(group.rows[error.row or 0].line, error, of_group=True)
    if faults.count == before:
        faults.add(batch.rows[0].line, failure)
