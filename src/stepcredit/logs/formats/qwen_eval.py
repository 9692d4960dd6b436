"""Outputs of Qwen2.5-Math's evaluation: lists of `code`, `pred` and `score` per question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.logs.logged_fields import first_of
from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_QUESTIONS = frozenset({"question", "problem", "prompt"})
_LISTS = ("code", "pred", "score", "report")


def fits_qwen_eval(fields: Mapping[str, Any]) -> bool:
    """A question and a list of code with its predictions or scores."""
    lists = isinstance(fields.get("code"), list)
    return lists and bool(_QUESTIONS & fields.keys()) and bool({"pred", "score"} & fields.keys())


def read_qwen_eval(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The responses to a question, which are a group."""
    fields, codes = record.fields, record.needed("code", list)
    name = next((each for each in ("problem", "prompt") if each in fields), "question")
    asked = record.needed("question" if fields.get("question") is not None else name)
    for name in _LISTS:
        values = fields.get(name)
        if isinstance(values, list) and len(values) != len(codes):
            raise record.fault(f"{len(values)} values, but {len(codes)} of code", name)
    gold = first_of(fields, ("gt", "answer"))
    for index, text in enumerate(codes):
        if text is not None and not isinstance(text, str):
            raise record.fault("expected a string", f"code[{index}]")
        own = {name: values[index] for name, values in fields.items() if _is_list(name, values)}
        yield LoggedResponse(
            record,
            key=record.line,
            parts=context.parts(text, record, "code"),
            prompt=context.question(asked, record, "question"),
            asked=asked,
            rewards=own,
            default_outcome="score" if "score" in own else None,
            row={"idx": fields.get("idx")} | ({} if gold is None else {"answer": gold}),
            has_id=True,
        )


def _is_list(name: str, values: Any) -> bool:
    return name in ("pred", "score") and isinstance(values, list)


QWEN_EVAL = LogFormat(
    "qwen-eval",
    "Qwen2.5-Math's evaluation and its relatives",
    "`question`, lists of `code`, `pred`, `score`; `gt` (as `answer`)",
    "token ids, training steps",
    fits_qwen_eval,
    read_qwen_eval,
)
