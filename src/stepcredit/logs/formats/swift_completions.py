"""ms-swift's `completions.jsonl`: one line per generation, each column a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.logs.logged_fields import first_of
from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_IDS = ("prompt_id", "group_id")
_STEPS = ("gen_step", "global_step", "step")


def fits_swift(fields: Mapping[str, Any]) -> bool:
    """Lists of prompts and of completions, as many of the one as of the other."""
    prompts, completions = fields.get("prompt"), fields.get("completion")
    if not isinstance(prompts, list) or not isinstance(completions, list) or not completions:
        return False
    return len(prompts) == len(completions) and not isinstance(completions[0], dict)


def read_swift(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The responses of a generation; their groups are those of their prompts."""
    for index, fields in enumerate(rows_of_columns(record)):
        prompt = fields.get("prompt")
        if prompt is None:
            raise record.fault("missing", "prompt")
        try:
            parts = context.parts(fields.get("completion"), record, "completion", prompt)
        except RolloutError as error:
            raise record.fault(error.reason, f"completion[{index}]") from None
        step, own_id = first_of(fields, _STEPS), first_of(fields, _IDS)
        yield LoggedResponse(
            record,
            key=(record.line, repr(prompt if own_id is None else own_id)),
            parts=parts,
            prompt=context.question(prompt, record),
            asked=prompt,
            step=record.line if step is None else step,
            rewards={name: fields[name] for name in fields if name not in ("prompt", "completion")},
            row={"answer": fields["solution"]} if fields.get("solution") is not None else {},
            has_id=own_id is not None,
        )


def rows_of_columns(record: Record) -> list[dict[str, Any]]:
    """The rows of a line whose columns are lists; a column that is no list is the same in each.

    Raises:
        RowError: a list of another length than `completion`.
    """
    count = len(record.needed("completion", list))
    for name, values in record.fields.items():
        if isinstance(values, list) and len(values) != count:
            raise record.fault(f"{len(values)} values, but {count} completions", name)
    return [
        {
            name: values[row] if isinstance(values, list) else values
            for name, values in record.fields.items()
        }
        for row in range(count)
    ]


SWIFT = LogFormat(
    "swift-completions",
    "ms-swift, `completions.jsonl`",
    "a line's lists of `prompt`, `completion`, `gen_step`, rewards; `solution`",
    "token ids, groups (by the prompt in a line)",
    fits_swift,
    read_swift,
    ("completions.jsonl", "*.jsonl"),
)
