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
    requests = _requests(record)
    count = sum(map(len, requests))
    metrics = {name: fields[name] for name in fields if name not in _READ}
    if count > 1:
        context.note("{n} to a document with several: its metrics are of all, not of each", record)
        metrics = dict.fromkeys(metrics)
    if len(requests) > 1:
        context.note("{n} to a document with several requests: each is a group", record)
    doc = fields["doc"] if isinstance(fields.get("doc"), dict) else {}
    question = next((doc[name] for name in _QUESTIONS if isinstance(doc.get(name), str)), None)
    for number, texts in enumerate(requests):
        asked = _asked(fields, number)
        own = question if len(requests) == 1 else None
        for text in texts:
            yield LoggedResponse(
                record,
                key=(repr(fields.get("doc_id")), repr(fields.get("doc_hash")), number),
                parts=context.parts(text, record, "resps"),
                prompt=own or context.question(asked, record, "arguments"),
                asked=asked,
                rewards=metrics,
                default_outcome="exact_match" if "exact_match" in metrics else None,
                row={"doc_id": fields.get("doc_id"), **_answer(fields)},
                has_id=True,
            )


def _requests(record: Record) -> list[list[str | None]]:
    """The responses to each request of a document; null is an empty response.

    Raises:
        RowError: they are no texts.
    """
    found = record.needed("resps", list)
    while len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    requests = found if found and all(isinstance(each, list) for each in found) else [found]
    if not all(each is None or isinstance(each, str) for texts in requests for each in texts):
        reason = "expected texts: log-likelihoods of choices are no responses"
        raise record.fault(reason, "resps")
    if _is_choice(requests):
        raise record.fault("log-likelihoods of choices are no responses", "resps")
    return requests


def _is_choice(requests: list[list[str | None]]) -> bool:
    """Whether requests are pairs of a number and whether it is the greedy choice, as texts."""
    return all(len(each) == 2 and each[1] in ("True", "False") for each in requests)


def _asked(fields: Mapping[str, Any], number: int) -> str:
    """The text that the model was given in a request."""
    given = fields.get("arguments")
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, list) and number < len(given):
        given = given[number]
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
