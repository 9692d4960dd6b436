"""`LoggedBatch`: logged responses as the checks read them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from stepcredit.audit.joined_rows import joined_rows
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.credit.metrics.step_kinds import RIGHT, WRONG
from stepcredit.credit.metrics.text_statistics import cut_steps
from stepcredit.data.files.batches import Batch, kind_faults
from stepcredit.data.files.held_rows import held_rows
from stepcredit.data.files.jsonl import parse
from stepcredit.data.files.limits import Limits, weight
from stepcredit.data.files.lines import Line
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.rows import Row, check_row
from stepcredit.data.masking import row_steps_to_trained
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.rules import counted, fits_float32
from stepcredit.errors import FileError, RolloutError, RowError
from stepcredit.logs.log_formats import GSM8K, kind_of_file, labelled_format, name_of_log
from stepcredit.logs.logged_response import RewardColumns
from stepcredit.logs.read_log import read_log
from stepcredit.prm.labelled.labelled_file import read_labelled
from stepcredit.prm.labelled.labelled_rows import LabelledRow
from stepcredit.signals.offsets import word_tokens
from stepcredit.signals.programs.gsm8k import gsm8k_solutions

STEP_LABELS = ("step_labels", "kinds")
"""Fields of the truth about steps, the first that a row has: one label per step."""
STEP_VALUES = "step_values"
"""Field of Monte-Carlo values: the chance of a right outcome before the first step, and after each
step; one number more than steps."""
Item = TypeVar("Item", str, float)
_Field = tuple[str, list[Item | None] | None]


@dataclass(frozen=True, eq=False)
class LoggedBatch:
    """Logged responses: the rollouts, and what the log says of each.

    The rows of one trajectory are one response, at the place of the first of them.

    Args:
        rows: the checked rows, one per response, in the log's order.
        source: the file's name, for reports.

    Example:
        >>> rows = [{"group": 1, "length": 2, "outcome": 1.0, "text": "a b"}]
        >>> LoggedBatch.of(rows).rollouts.num_rollouts
        1
    """

    rows: list[Row]
    source: str = ""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], source: str = "rows") -> LoggedBatch:
        """The batch of rows that are dictionaries.

        Raises:
            RowError: a row breaks a rule of the format; it names its number, from 1.
        """
        return cls._of_rows(list(_checked(rows, source)), source)

    @classmethod
    def read(
        cls,
        path: str | Path,
        format: str | None = None,
        columns: RewardColumns | None = None,
        tokenizer: Any = None,
    ) -> LoggedBatch:
        """The batch of a file of rollouts, of a log that `stepcredit convert` reads, or of labels.

        Step-labelled rows, such as PRMBench's, become responses with `step_labels`: words are their
        tokens, and rows of one question are a group. They have no scores.

        Args:
            path: a file, or a log's folder.
            format: the log's format, a name of `stepcredit convert`; None: what it looks like.
            columns: the reward columns of a log that has several.
            tokenizer: the policy's, for a log without tokens; None: words are the tokens.

        Raises:
            SettingError: a log whose outcome column must be named.
            FileError: the file can't be read, or holds no response.
            RowError: a row breaks a rule, or its streams are of another kind than the others'.
        """
        rows = _rollout_rows(path) if format is None else None
        if rows is None:
            rows = _checked(_log_rows(path, format, columns, tokenizer), str(path))
        return cls._of_rows(list(rows), str(path))

    @classmethod
    def of_lines(cls, lines: Iterable[Line], source: str) -> LoggedBatch:
        """The batch of some lines of a file of rollouts.

        Raises:
            FileError: there is no line.
            RowError: a row breaks a rule, its streams are of another kind than the others', or the
                rows pass a limit on memory.
        """
        limits = Limits.from_environment(os.path.getsize(source))
        rows = held_rows((_row_of(line, source) for line in lines), limits, source)
        return cls._of_rows(rows, source)

    @classmethod
    def _of_rows(cls, rows: list[Row], source: str) -> LoggedBatch:
        if not rows:
            raise FileError("holds no response", field=source)
        for line, error in kind_faults(rows, "the file"):
            raise error.at_line(source, line)
        return cls(joined_rows(rows, source, STEP_LABELS, STEP_VALUES), source)

    @cached_property
    def rollouts(self) -> Rollouts:
        """The rows as rollouts over trained tokens."""
        return Batch(self.rows).rollouts

    @cached_property
    def texts(self) -> list[str | None]:
        """The text of each response: its field `text`, or its tokens joined; None without both."""
        return [_text(row) for row in self.rows]

    @cached_property
    def steps(self) -> list[list[str]] | None:
        """The text of each step; None unless every row has tokens and the steps' ends are known."""
        ends, tokens = step_boundaries(self.rollouts), [row.tokens for row in self.rows]
        if ends is None or any(row is None for row in tokens):
            return None
        return [
            [str(step) for step in row] for row in cut_steps([row or [] for row in tokens], ends)
        ]

    @cached_property
    def step_counts(self) -> list[int] | None:
        """Steps of each response; None where no stream and no field tells their ends."""
        ends = step_boundaries(self.rollouts)
        return None if ends is None else ends.counts.tolist()

    @cached_property
    def step_labels(self) -> list[list[str | None]] | None:
        """The truth about each step: "right", "wrong", "filler", another word, or None: unknown.

        It is read from the first field of `STEP_LABELS` that a row has: words as they stand, True
        or 1 as right, False, 0 or -1 as wrong, and anything else as unknown. Labels of steps that
        are not trained are left out with their steps. None where no row has such a field, or the
        steps' ends are unknown.

        Raises:
            RowError: a row has another number of labels than of steps.
        """
        return self._per_step(row_labels, more=0)

    @cached_property
    def step_values(self) -> list[list[float | None]] | None:
        """Monte-Carlo values: before the first step, and after each; None where no row has them.

        A value that is no number of float32 is None: unknown.

        Raises:
            RowError: a row has not one value more than steps.
        """
        return self._per_step(_values_of, more=1)

    def line(self, row: int) -> int:
        """The line of a response in the file, from 1."""
        return self.rows[row].line

    def _per_step(
        self, read: Callable[[Mapping[str, Any]], _Field[Item]], more: int
    ) -> list[list[Item | None]] | None:
        """One list per row, of one item per trained step and `more` before the first step."""
        found = [read(row.fields) for row in self.rows]
        counts = self.step_counts
        if counts is None or all(items is None for _, items in found):
            return None
        table: list[list[Item | None]] = []
        for row, (name, items), count in zip(self.rows, found, counts, strict=True):
            unknown: list[Item | None] = [None] * (count + more)
            kept = unknown if items is None else _of_trained(row, items, more)
            if len(kept) != count + more:
                reason = f"has {len(kept)} values, expected {count + more} for {count} steps"
                raise RolloutError(reason, field=name).at_line(self.source, row.line)
            table.append(kept)
        return table


def _rollout_rows(path: str | Path) -> Iterable[Row] | None:
    """The rows of a file of rollouts or of step-labelled rows; None: it is a log."""
    if Path(path).is_dir():
        return None
    if labelled_format(path) is not None:
        return _labelled_rows(path)
    return _file_rows(path) if kind_of_file(path) is None else None


def _row_of(line: Line, source: str) -> Row:
    try:
        row = check_row(parse(line.raw), position=line.position, line=line.number)
    except RolloutError as error:
        raise error.at_line(source, line.number) from error.__cause__
    row.size = weight(line.raw)
    return row


def _file_rows(path: str | Path) -> list[Row]:
    with RolloutFile(path) as file:
        return file.held_rows()


def _log_rows(
    path: str | Path, format: str | None, columns: RewardColumns | None, tokenizer: Any
) -> Iterator[dict[str, Any]]:
    name = format or name_of_log(path)
    if name == GSM8K:
        return gsm8k_solutions(path, tokenizer)
    return read_log(path, name, columns, tokenizer)


def _checked(rows: Iterable[Mapping[str, Any]], source: str) -> Iterator[Row]:
    for position, fields in enumerate(rows):
        try:
            given = {name: _plain(value) for name, value in fields.items()}
            yield check_row(given, position=position, line=position + 1)
        except RowError:
            raise
        except RolloutError as error:
            raise error.at_line(source, position + 1) from None


def _plain(value: Any) -> Any:
    """Lists in place of arrays and tensors."""
    return value.tolist() if isinstance(value, np.ndarray | Tensor) else value


def _labelled_rows(path: str | Path) -> Iterator[Row]:
    labelled = read_labelled([path], bad="skip")
    if labelled.faults:
        count = counted(len(labelled.faults), "row")
        warnings.warn(f"{count} left out, the first: {labelled.faults[0]}", stacklevel=2)
    yield from map(_labelled_row, labelled.rows)


def _labelled_row(row: LabelledRow) -> Row:
    response = row.response
    fields = {
        "group": row.key,
        "prompt": row.question,
        "text": response.text,
        "tokens": word_tokens(response.text),
        "step_ends": list(response.step_ends),
        STEP_LABELS[0]: list(row.labels),
    }
    return check_row(fields, line=int(row.source.rpartition(":")[2]))


def _text(row: Row) -> str | None:
    text = row.fields.get("text")
    if isinstance(text, str):
        return text
    return None if row.tokens is None else "".join(row.tokens)


def _of_trained(row: Row, items: list[Item | None], more: int) -> list[Item | None]:
    """The items of the steps that have a trained token; as they stand where they can't be placed.

    Step truth counts all steps of a response, and the batch's steps only those that are trained.
    """
    ends = row.fields.get("step_ends")
    if row.mask is None or not isinstance(ends, list) or len(items) != len(ends) + more:
        return items
    return items[:more] + row_steps_to_trained(ends, items[more:], row.mask)[1]


def row_labels(fields: Mapping[str, Any]) -> _Field[str]:
    """The labels of a row's steps, and the name of the field that holds them.

    Args:
        fields: of a row.

    Returns:
        None in place of the labels where no field of `STEP_LABELS` has any.

    Example:
        >>> row_labels({"step_labels": [1, False, "filler", None]})
        ('step_labels', ['right', 'wrong', 'filler', None])
    """
    for name in STEP_LABELS:
        given = fields.get(name)
        if isinstance(given, list):
            return name, [_label(x) for x in given]
    return STEP_LABELS[0], None


def _label(given: Any) -> str | None:
    """A word as it stands; True and 1 are right, False, 0 and -1 wrong; else None."""
    if isinstance(given, str):
        return given
    if not isinstance(given, int | float):
        return None
    return RIGHT if given == 1 else WRONG if given in (0, -1) else None


def _values_of(fields: Mapping[str, Any]) -> _Field[float]:
    given = fields.get(STEP_VALUES)
    return STEP_VALUES, [_number(x) for x in given] if isinstance(given, list) else None


def _number(given: Any) -> float | None:
    """A number that float32 can hold; None for anything else."""
    return float(given) if isinstance(given, int | float) and fits_float32(given) else None
