"""Reads logged responses for an attack, in the way in which `stepcredit score` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.audit.attack.attack_plan import AttackedResponse
from stepcredit.audit.attack.edited_response import Cutter, cutter_for
from stepcredit.audit.logged_batch import row_labels
from stepcredit.credit.metrics.step_kinds import RIGHT, WRONG
from stepcredit.data.files.batches import group_label
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.rows import Row, check_row
from stepcredit.errors import FileError, RolloutError
from stepcredit.logs.log_formats import kind_of_file
from stepcredit.logs.read_log import read_log
from stepcredit.signals.responses import Response
from stepcredit.signals.row_scores import RowReader

_KNOWN = {RIGHT: True, "answer": True, WRONG: False, "bad_answer": False, "malformed": False}


@dataclass(frozen=True)
class AttackedFile:
    """The responses of a file.

    Args:
        rows: in the file's order.
        cutter: makes tokens of new text like those of the file.
    """

    rows: list[AttackedResponse]
    cutter: Cutter


def read_attacked(
    path: str | Path, reader: RowReader | None = None, format: str | None = None
) -> AttackedFile:
    """The responses of a file of rollouts, or of any log that `stepcredit convert` reads.

    Args:
        path: a file, or a log's folder.
        reader: how a row becomes a response; None: the default.
        format: the log's format; None: what it looks like.

    Raises:
        FileError: the file can't be read, or holds no response.
        RowError: a row breaks a rule, can't be split into steps, or shares its trajectory with
            another row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rollouts.jsonl"
        >>> _ = path.write_text('{"group": 1, "text": "2 + 2 = 4.\\\\n\\\\nSo 4."}')
        >>> [row.response.step_texts for row in read_attacked(path).rows]
        [['2 + 2 = 4.\\n\\n', 'So 4.']]
    """
    reader = reader or RowReader()
    given, found = list[Mapping[str, Any]](), list[AttackedResponse]()
    trajectories = set[tuple[str, str]]()
    for row, original in _rows(str(path), reader, format):
        _refuse_parts(row, trajectories, str(path))
        given.append({"tokens": original.get("tokens")})
        found.append(_attacked_response(row, reader, f"{path}:{row.line}"))
    if not found:
        raise FileError("holds no response", field=str(path))
    return AttackedFile(found, cutter_for(given, reader.tokenizer))


def _rows(
    path: str, reader: RowReader, format: str | None
) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    """Each checked row with tokens, and the row as the file has it."""
    if format is None and not Path(path).is_dir() and kind_of_file(path) is None:
        originals = dict[int, Mapping[str, Any]]()

        def prepare(fields: dict[str, Any], line: int) -> dict[str, Any]:
            originals[line] = fields
            return reader.with_tokens(fields)

        with RolloutFile(path, prepare=prepare) as file:
            for row in file.held_rows():
                yield row, originals.pop(row.line)
        return
    for position, fields in enumerate(read_log(path, format, tokenizer=reader.tokenizer)):
        yield _checked_row(fields, position, reader, path), {}  # its tokens are words


def _refuse_parts(row: Row, seen: set[tuple[str, str]], path: str) -> None:
    """Refuse a second row of a trajectory: credited alone, parts would get other advantages."""
    if row.trajectory is None:
        return
    name = (group_label(row), repr(row.trajectory))
    if name in seen:
        reason = "has several rows, and an attack edits responses of one row"
        error = RolloutError(f"{row.trajectory!r} {reason}", field="trajectory")
        raise error.at_line(path, row.line)
    seen.add(name)


def _checked_row(fields: Mapping[str, Any], position: int, reader: RowReader, path: str) -> Row:
    line = position + 1
    try:
        return check_row(reader.with_tokens(fields), position=position, line=line)
    except RolloutError as error:
        raise error.at_line(path, line) from None


def _attacked_response(row: Row, reader: RowReader, name: str) -> AttackedResponse:
    path = name.removesuffix(f":{row.line}")
    try:
        response = reader.response(row.fields, name)
    except RolloutError as error:
        raise error.at_line(path, row.line) from None
    return AttackedResponse(str(row.group), response, row.fields, _truth(row, response))


def _truth(row: Row, response: Response) -> tuple[bool | None, ...]:
    """What the row says of each step; nothing where it has another number of labels than steps."""
    _, labels = row_labels(row.fields)
    if labels is None or len(labels) != len(response.steps or ()):
        return ()
    return tuple(None if label is None else _KNOWN.get(label) for label in labels)
