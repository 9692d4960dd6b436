"""`samples_*.jsonl` of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_QUESTIONS = ("question", "problem", "query", "prompt", "input")
_READ = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics")


def fits_lm_eval(fields: Mapping[str, Any]) -> bool:
    """A document and the responses to it."""
    return {"doc", "resps"} <= fields.keys()


def first_filter(records: list[Record], context: ReadingContext) -> list[Record]:
    """The rows of the first filter: the harness writes a document again for each filter."""
    kept = next((each.fields["filter"] for each in records if "filter" in each.fields), None)
    same = [each for each in records if each.fields.get("filter", kept) == kept]
    if len(same) < len(records):
        left = next(each for each in records if each.fields.get("filter", kept) != kept)
        what = f"rows of other filters than {kept!r} hold the same responses: left out"
        context.note(what, left)
    return same


def read_lm_eval(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The responses to a document, which are a group; metrics of one response are its rewards."""
    fields = record.fields
    found = record.needed("resps", list)
    while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        reason = "expected texts: log-likelihoods of choices are no responses"
        raise record.fault(reason, "resps")
    metrics = {name: fields[name] for name in fields if name not in _READ}
    if len(found) > 1:
        context.note("{n} to a document with several: its metrics are of all, not of each", record)
        metrics = dict.fromkeys(metrics)
    doc = fields["doc"] if isinstance(fields.get("doc"), dict) else {}
    question = next((doc[name] for name in _QUESTIONS if isinstance(doc.get(name), str)), None)
    asked = _asked(fields)
    for text in found:
        yield LoggedResponse(
            record,
            key=(repr(fields.get("doc_id")), repr(fields.get("doc_hash"))),
            parts=context.parts(text, record, "resps"),
            prompt=question or context.question(asked, record, "arguments"),
            asked=asked,
            rewards=metrics,
            default_outcome="exact_match" if "exact_match" in metrics else None,
            row={"doc_id": fields.get("doc_id"), **_answer(fields)},
            has_id=True,
        )


def _asked(fields: Mapping[str, Any]) -> str:
    """The text that the model was given."""
    given = fields.get("arguments")
    while isinstance(given, dict | list) and given:
        given = next(iter(given.values())) if isinstance(given, dict) else given[0]
    return given if isinstance(given, str) else ""


def _answer(fields: Mapping[str, Any]) -> dict[str, Any]:
    target = fields.get("target")
    return {} if target is None or target == "" else {"answer": target}


LM_EVAL = LogFormat(
    "lm-eval-samples",
    "lm-evaluation-harness, `samples_*.jsonl`",
    "`doc`, `resps`, `target` (as `answer`), the metrics of single responses",
    "token ids, training steps, rewards of each of several responses",
    fits_lm_eval,
    read_lm_eval,
    ("samples_*.jsonl", "*.jsonl"),
    first_filter,
)
