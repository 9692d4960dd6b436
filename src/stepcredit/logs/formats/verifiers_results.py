"""`results.jsonl` of verifiers and prime-rl: one line per response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.logs.logged_fields import first_of
from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_IDS = ("example_id", "id")
_READ = ("prompt", "completion", "answer", "example_id")


def fits_verifiers(fields: Mapping[str, Any]) -> bool:
    """A prompt, a completion and the id of its example."""
    named = {"prompt", "completion"} <= fields.keys() and "step" not in fields
    return named and ("example_id" in fields or {"reward", "task"} <= fields.keys())


def read_verifiers(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The response of a row; its group is that of its example."""
    fields, asked, said = record.fields, record.needed("prompt"), record.there("completion")
    example = first_of(fields, _IDS)
    row = {} if fields.get("answer") in (None, "") else {"answer": fields["answer"]}
    yield LoggedResponse(
        record,
        key=(repr(fields.get("task")), repr(example), repr(asked)),
        parts=context.parts(said, record, "completion", asked),
        prompt=context.question(asked, record),
        asked=asked,
        rewards={name: fields[name] for name in fields if name not in _READ},
        default_outcome="reward",
        row=row if example is None else {**row, "example_id": example},
        has_id=example is not None,
    )


VERIFIERS = LogFormat(
    "verifiers-results",
    "verifiers and prime-rl, `results.jsonl`",
    "`prompt`, `completion` (texts or messages), `answer`, `reward`, `example_id`",
    "token ids, training steps",
    fits_verifiers,
    read_verifiers,
    ("results.jsonl", "*.jsonl"),
)
