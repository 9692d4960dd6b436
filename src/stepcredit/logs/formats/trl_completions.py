"""TRL's logged completions (`log_completions=True`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext


def fits_trl(fields: Mapping[str, Any]) -> bool:
    """A step, a prompt and a completion, which is one text or one conversation."""
    if not {"step", "prompt", "completion"} <= fields.keys():
        return False
    completion = fields["completion"]
    return not (isinstance(completion, list) and completion and isinstance(completion[0], str))


def new_rows(records: list[Record], context: ReadingContext) -> list[Record]:
    """The rows of a table, none if it repeats the one before.

    TRL logs a generation again at each of its optimizer steps. The responses of an evaluation
    replace some of training's in a table, which does not say which they are.

    Raises:
        RowError: the table shows signs of an evaluation: responses appended to the table before, or
            a first or last group that is smaller than another.
    """
    seen = ("prompt", "completion", "advantage")
    table = [[each.fields.get(name) for name in seen] for each in records]
    before, context.previous = context.previous, table
    if table == before:
        return []
    if records:
        _check_appended(before, table, records)
        if context.columns.group_size is None:
            _check_sizes([repr(prompt) for prompt, *_ in table], records)
    return records


def _check_appended(before: list[Any], table: list[Any], records: list[Record]) -> None:
    """Refuse a table that continues the one before: a generation of training fills a whole table.

    Equal responses to one prompt are no sign of it, as a policy may write the same again.
    """
    for kept in range(len(table) - 1, 0, -1):
        is_one = all(row[0] == table[0][0] for row in table[: kept + 1])
        if table[:kept] == before[-kept:] and not is_one:
            reason = f"an evaluation's, after {kept} of the table before: leave the file out"
            raise records[kept].fault(reason)


def _check_sizes(keys: list[str], records: list[Record]) -> None:
    """Refuse a table whose first or last group is cut off; one in scattered rows has none."""
    sizes = [len(list(same)) for _, same in groupby(keys)]
    if len(sizes) > len(set(keys)):
        return
    largest = max(sizes, default=0)
    for size, at in ((sizes[:1], 0), (sizes[-1:], len(keys) - sum(sizes[-1:]))):
        if size and size[0] < largest:
            reason = f"{size[0]} responses to this prompt, but {largest} to another: is it cut off "
            reason += "by an evaluation's? leave the file out, or give --group-size"
            raise records[at].fault(reason, "group")


def read_trl(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The response of a row; its group is that of its prompt."""
    fields, step = record.fields, record.needed("step")
    asked, said = record.needed("prompt"), record.there("completion")
    columns = {name: fields[name] for name in fields if name not in ("prompt", "completion")}
    parts = context.parts(said, record, "completion", asked)
    yield LoggedResponse(
        record,
        key=repr(asked),
        parts=parts,
        prompt=context.question(asked, record),
        asked=asked,
        step=step,
        rewards=columns,
    )


TRL = LogFormat(
    "trl-completions",
    "TRL, with `log_completions=True`",
    "`prompt`, `completion` (texts or messages), `step`, the rewards' columns",
    "token ids, gold answers, which responses are an evaluation's",
    fits_trl,
    read_trl,
    ("completions_*.parquet",),
    new_rows,
)
