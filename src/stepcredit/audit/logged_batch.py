"""`LoggedBatch`: logged responses as the checks read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.credit.metrics.text_statistics import cut_steps
from stepcredit.data.files.batches import Batch, kind_faults
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.rows import Row, check_row
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import FileError, RolloutError, RowError
from stepcredit.logs.log_formats import kind_of_file
from stepcredit.logs.read_log import read_log

STEP_LABELS = ("step_labels", "kinds")
"""Fields of the truth about steps, the first that a row has: one label per step."""
STEP_VALUES = "step_values"
"""Field of Monte-Carlo values: the chance of a right outcome before the first step, and after each
step; one number more than steps."""
RIGHT, WRONG, FILLER = "right", "wrong", "filler"
_LABELS = {True: RIGHT, False: WRONG, -1: WRONG}  # 1 and 0 are True and False


@dataclass(frozen=True, eq=False)
class LoggedBatch:
    """Logged responses: the rollouts, and what the log says of each.

    Args:
        rows: the checked rows, in the log's order.
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
    def read(cls, path: str | Path, format: str | None = None) -> LoggedBatch:
        """The batch of a file of rollouts, or of any log that `stepcredit convert` reads.

        Args:
            path: a file, or a log's folder.
            format: the log's format, a name of `stepcredit convert`; None: what it looks like.

        Raises:
            FileError: the file can't be read, or holds no response.
            RowError: a row breaks a rule, or its streams are of another kind than the others'.
        """
        is_log = format is not None or Path(path).is_dir() or kind_of_file(path) is not None
        if is_log:
            rows = list(_checked(read_log(path, format), str(path)))
        else:
            with RolloutFile(path) as file:
                rows = list(file.rows())
        return cls._of_rows(rows, str(path))

    @classmethod
    def _of_rows(cls, rows: list[Row], source: str) -> LoggedBatch:
        if not rows:
            raise FileError("holds no response", field=source)
        for line, error in kind_faults(rows, "the file"):
            raise error.at_line(source, line)
        return cls(rows, source)

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

        It is read from the first field of `STEP_LABELS` that a row has: words as they stand, and
        True or 1 as right, False, 0 or -1 as wrong. None where no row has such a field, or the
        steps' ends are unknown.

        Raises:
            RowError: a row has another number of labels than of steps.
        """
        return self._per_step(_labels_of, more=0)

    @cached_property
    def step_values(self) -> list[list[float | None]] | None:
        """Monte-Carlo values: before the first step, and after each; None where no row has them.

        Raises:
            RowError: a row has not one value more than steps.
        """
        return self._per_step(_values_of, more=1)

    def line(self, row: int) -> int:
        """The line of a response in the file, from 1."""
        return self.rows[row].line

    def _per_step(self, read: Any, more: int) -> Any:
        found = [read(row.fields) for row in self.rows]
        counts = self.step_counts
        if counts is None or all(items is None for _, items in found):
            return None
        table = []
        for row, (name, items), count in zip(self.rows, found, counts, strict=True):
            if items is None:
                items = [None] * (count + more)
            if len(items) != count + more:
                reason = f"has {len(items)} values, expected {count + more} for {count} steps"
                raise RolloutError(reason, field=name).at_line(self.source, row.line)
            table.append(items)
        return table


def _checked(rows: Any, source: str) -> Iterator[Row]:
    for position, fields in enumerate(rows):
        try:
            yield check_row(dict(fields), position=position, line=position + 1)
        except RowError:
            raise
        except RolloutError as error:
            raise error.at_line(source, position + 1) from None


def _text(row: Row) -> str | None:
    text = row.fields.get("text")
    if isinstance(text, str):
        return text
    return None if row.tokens is None else "".join(row.tokens)


def _labels_of(fields: Mapping[str, Any]) -> tuple[str, list[str | None] | None]:
    for name in STEP_LABELS:
        given = fields.get(name)
        if isinstance(given, list):
            return name, [x if isinstance(x, str) or x is None else _LABELS.get(x) for x in given]
    return STEP_LABELS[0], None


def _values_of(fields: Mapping[str, Any]) -> tuple[str, list[float | None] | None]:
    given = fields.get(STEP_VALUES)
    if not isinstance(given, list):
        return STEP_VALUES, None
    return STEP_VALUES, [float(x) if isinstance(x, int | float) else None for x in given]
