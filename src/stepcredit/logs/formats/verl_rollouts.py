"""verl's dumped generations (`trainer.rollout_data_dir`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepcredit.logs.logged_fields import gold_in, response_text
from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_SAMPLE = re.compile(r"(.+)_\d+_\d+")


def fits_verl(fields: Mapping[str, Any]) -> bool:
    """An input and an output, and a score or a gold answer."""
    return {"input", "output"} <= fields.keys() and bool({"score", "gts"} & fields.keys())


def read_verl(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The response of a row; its group is that of its uid, else of its input."""
    fields, asked, text = (
        record.fields,
        record.needed("input", str),
        response_text(record, "output"),
    )
    score = fields.get("score")
    columns = {**fields, "score": score.get("score")} if isinstance(score, dict) else dict(fields)
    for name in ("input", "output", "gts"):
        columns.pop(name, None)
    row: dict[str, Any] = {} if fields.get("gts") is None else {"answer": gold_in(fields["gts"])}
    question = context.question(asked, record, "input")
    if question != asked:
        row["input"] = asked
    uid = fields.get("uid")
    yield LoggedResponse(
        record,
        key=("input", asked) if uid is None else ("uid", _sample(str(uid))),
        parts=context.parts(text, record, "output"),
        prompt=question,
        asked=asked,
        step=fields.get("step", Path(record.path).stem),
        rewards=columns,
        default_outcome="score",
        row=row,
        has_id=uid is not None,
    )


def _sample(uid: str) -> str:
    """SAMPLE of a uid `SAMPLE_ROLLOUT_OUTPUT`; another uid itself."""
    found = _SAMPLE.fullmatch(uid)
    return found[1] if found else uid


VERL = LogFormat(
    "verl-rollouts",
    "verl, into `trainer.rollout_data_dir`",
    "`input`, `output`, `gts` (as `answer`), `score`, `uid`, `step`",
    "token ids, the mask of tools (by marks), before 0.9 the groups (by `input`)",
    fits_verl,
    read_verl,
)
