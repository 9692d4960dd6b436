"""Reads files of step-labelled rows; a bad row is refused, or skipped and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stepcredit.data.files.json_items import json_items
from stepcredit.data.files.lines import Source
from stepcredit.errors import FileError, RolloutError, RowError, SettingError
from stepcredit.prm.labelled.label_fields import Labelled, LabelOptions
from stepcredit.prm.labelled.label_formats import FORMATS, recognized
from stepcredit.prm.labelled.labelled_rows import LabelledRow

BAD_ROWS = ("refuse", "skip")


class LabelledFile(NamedTuple):
    """Rows, and the faults of those that were skipped."""

    rows: list[LabelledRow]
    faults: list[RowError]


def read_labelled(
    paths: Sequence[str | Path],
    format: str = "auto",
    options: LabelOptions | None = None,
    bad: str = "refuse",
) -> LabelledFile:
    """Step-labelled rows of any of the published formats.

    Args:
        paths: `.jsonl`, `.json` (a list, or objects over several lines), `.gz` or `.parquet` files,
            or "-" for standard input.
        format: one of `label_formats.FORMATS`, or `auto`: each row's format by its fields.
        options: how labels are read where a format leaves a choice.
        bad: `refuse` a row that breaks a rule, or `skip` it.

    Returns:
        `LabelledFile`: rows in the files' order, and one error per skipped row.

    Raises:
        RowError: the first bad row, `FILE:LINE: FIELD: reason`, and how many more there are.
        FileError: a file that can't be read, or files without a row.
        SettingError: an unknown format, or `bad` is neither.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> _ = path.write_text('{"prompt": "1+1?", "completions": ["2"], "labels": [true]}')
        >>> [row.labels for row in read_labelled([path]).rows]
        [(1,)]

    Source: the formats' cards: github.com/openai/prm800k; arXiv 2312.08935 (Math-Shepherd),
    2501.03124 (PRMBench), 2412.06559 (ProcessBench); TRL's documentation; github.com/RLHFlow/
    RLHF-Reward-Modeling; github.com/openreasoner/openr (MATH-APS).
    """
    for given, known, field in ((format, ("auto", *FORMATS), "format"), (bad, BAD_ROWS, "bad")):
        if given not in known:
            raise SettingError(f"expected one of {', '.join(known)}, got {given!r}", field=field)
    rows: list[LabelledRow] = []
    faults: list[RowError] = []
    seen: set[str] = set()
    for path in paths:
        for labelled, place in _labelled(str(path), format, options or LabelOptions(), faults):
            if labelled.once and labelled.key in seen:
                continue
            if labelled.once:
                seen.add(labelled.key)
            steps = tuple(step.strip() for step in labelled.steps)
            question, labels = labelled.question.strip(), tuple(labelled.labels)
            rows.append(LabelledRow(question, steps, labels, place, labelled.key))
    if faults and bad == "refuse":
        first = faults[0]
        raise first.at_line(first.path, first.line, more=len(faults) - 1)
    if not rows:
        raise FileError("no step-labelled row", field=", ".join(map(str, paths)))
    return LabelledFile(rows, faults)


def _labelled(
    path: str, format: str, options: LabelOptions, faults: list[RowError]
) -> Iterator[tuple[Labelled, str]]:
    """Each row of a file, with its FILE:LINE; errors are added to `faults`."""
    with Source(path) as source:
        for number, row in json_items(source):
            try:
                found = [_checked(one) for one in _of_row(row, format, options)]
            except RolloutError as error:
                faults.append(error.at_line(path, number))
                continue
            for labelled in found:
                yield labelled, f"{path}:{number}"


def _of_row(row: Any, format: str, options: LabelOptions) -> Iterator[Labelled]:
    if isinstance(row, RolloutError):
        raise row
    if not isinstance(row, dict):
        raise RolloutError(f"expected a JSON object, got {type(row).__name__}")
    return FORMATS[recognized(row) if format == "auto" else format](row, options)


def _checked(labelled: Labelled) -> Labelled:
    """Refuse a row that no signal can score."""
    if not labelled.question.strip():
        raise RolloutError("is empty", field="question")
    if not labelled.steps:
        raise RolloutError("has no step", field="steps")
    for index, step in enumerate(labelled.steps, start=1):
        if not step.strip():
            raise RolloutError(f"step {index} is empty", field="steps")
    return labelled
