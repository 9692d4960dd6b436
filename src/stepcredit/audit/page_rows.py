"""The responses that the audit's page shows, as plain values: texts, streams and every stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from stepcredit.audit.audit_report import AuditReport
from stepcredit.audit.explained_groups import explained_groups
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.shown_figures import visible_text
from stepcredit.audit.shown_rows import (
    group_places,
    mean_advantages,
    rank_flips,
    rows_by_interest,
)
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.explanation import Explanation
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.data.rollouts import Rollouts

MOST_SHOWN = 200
"""Responses on the page."""
DATA_BYTES = 4_000_000
"""Bytes of the responses on the page; with scripts and plots it stays below 5 MB."""
METHODS_EXPLAINED = 3
"""Methods whose stages the page holds: as many as stand side by side."""
TOKENS_SHOWN, TOKEN_CHARACTERS, TEXT_CHARACTERS = 2_000, 200, 4_000
"""Of one response: tokens; characters of a token, and of a prompt or a text."""
DIGITS = 3
"""Digits of the numbers that the page shows."""


def page_rows(report: AuditReport) -> list[dict[str, Any]]:
    """The shown responses in the file's order, within `MOST_SHOWN` and `DATA_BYTES`.

    Returns:
        Per response its place, texts, streams, and per method the chunks, stages and advantages.
        Texts are as `visible_text` gives them.

    Example:
        >>> from stepcredit.audit.audit_report import audit
        >>> batch = LoggedBatch.of([{"group": 1, "tokens": ["a", "b"], "outcome": 1.0}])
        >>> [row["tokens"] for row in page_rows(audit(batch, {}, checks={}))]
        [['a', 'b']]
    """
    given = report.given
    group = given.batch.rollouts.group_index.numpy()
    means = mean_advantages(given.advantages)
    places = {name: group_places(values, group) for name, values in means.items()}
    flips = rank_flips(places, len(group))
    cited = [place.row for finding in report.findings for place in finding.places[:5]]
    chosen = rows_by_interest(cited, means, flips, group)[:MOST_SHOWN]
    explained = _explanations(given.methods, given.batch.rollouts, chosen)
    ends = _step_ends(given.batch)
    shown: list[dict[str, Any]] = []
    size = 0
    for row in chosen:
        data = {
            **_response(given.batch, row, ends),
            "flip": float(flips[row]),
            "means": {name: float(f"{values[row]:.{DIGITS}g}") for name, values in means.items()},
            "places": {name: float(values[row]) for name, values in places.items()},
            "methods": {name: _chunks(*each, row) for name, each in explained.items()},
        }
        size += len(escaped_json(data))
        if shown and size > DATA_BYTES:
            break
        shown.append(data)
    return sorted(shown, key=lambda data: data["row"])


def escaped_json(value: Any) -> str:
    """JSON that can stand in a script element: no text in it ends the element.

    Example:
        >>> escaped_json("</script>&\\u2028")
        '"\\\\u003c/script\\\\u003e\\\\u0026\\\\u2028"'
    """
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def rounded_values(values: Tensor | np.ndarray) -> list[float] | float:
    """Numbers with `DIGITS` digits; one number where all are equal.

    Example:
        >>> rounded_values(torch.tensor([0.123456, 0.0])), rounded_values(torch.tensor([2.0, 2.0]))
        ([0.123, 0.0], 2.0)
    """
    numbers = np.asarray(values, dtype=np.float64)
    size = np.abs(numbers)
    place = DIGITS - 1 - np.floor(np.log10(np.where(size > 0, size, 1.0)))
    small, large = 10.0 ** np.maximum(place, 0), 10.0 ** np.maximum(-place, 0)
    found = (np.round(numbers * small / large) * large / small).tolist()
    return found[0] if found and len(set(found)) == 1 else found


def _response(batch: LoggedBatch, row: int, ends: list[list[int]] | None) -> dict[str, Any]:
    given = batch.rows[row]
    outcome = given.outcome
    streams = {name: _stream(s.values, s.ends) for name, s in given.streams.items()}
    ratios = {f"{name}_logprobs": _stream(x, None) for name, x in given.logprobs.items()}
    return {
        "row": row,
        "line": given.line,
        "group": visible_text(str(given.group)),
        "outcome": None if outcome is None else float(outcome),
        "format_ok": given.format_ok,
        "length": given.length,
        "steps": None if ends is None else _kept_ends(ends[row]),
        "prompt": _cut(given.fields.get("prompt")),
        **_texts(batch, row),
        "streams": {visible_text(name): found for name, found in {**streams, **ratios}.items()},
    }


def _texts(batch: LoggedBatch, row: int) -> dict[str, Any]:
    """The tokens of a response with those that aren't trained; its text where it has no tokens."""
    given = batch.rows[row]
    tokens, mask = given.fields.get("tokens"), given.mask
    if not isinstance(tokens, list):
        return {"tokens": None, "mask": None, "text": _cut(batch.texts[row])}
    if mask is None:
        return {"tokens": [_token(token) for token in tokens[:TOKENS_SHOWN]], "mask": None}
    trained = np.cumsum(mask)
    last = int(np.searchsorted(trained, TOKENS_SHOWN, side="right"))
    last = min(last, 2 * TOKENS_SHOWN, len(tokens))
    return {
        "tokens": [_token(token) for token in tokens[:last]],
        "mask": "".join(map(str, mask[:last])),
    }


def _token(text: str) -> str:
    shown = visible_text(text[:TOKEN_CHARACTERS])
    more = len(text) - TOKEN_CHARACTERS
    return f"{shown}… ({more:,} more characters)" if more > 0 else shown


def _cut(text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    more = len(text) - TEXT_CHARACTERS
    shown = visible_text(text[:TEXT_CHARACTERS])
    return f"{shown}… ({more:,} more characters)" if more > 0 else shown


def _stream(values: list[float], ends: list[int] | None) -> dict[str, Any]:
    kept = None if ends is None else _kept_ends(ends)
    count = TOKENS_SHOWN if kept is None else len(kept)
    return {"ends": kept, "values": rounded_values(np.array(values[:count]))}


def _kept_ends(ends: list[int]) -> list[int]:
    """The ends of those pieces that begin within `TOKENS_SHOWN`."""
    return ends[: sum(end < TOKENS_SHOWN - 1 for end in ends) + 1]


def _step_ends(batch: LoggedBatch) -> list[list[int]] | None:
    ends = step_boundaries(batch.rollouts)
    if ends is None:
        return None
    return [x.tolist() for x in torch.split(ends.values, ends.counts.tolist())]


def _explanations(
    methods: Mapping[str, Estimator], rollouts: Rollouts, chosen: list[int]
) -> dict[str, tuple[Explanation, list[int]]]:
    """Each method's explanation of the chosen rows' groups, with the rows that it holds."""
    first = list(methods.items())[:METHODS_EXPLAINED]
    return {name: explained_groups(method, rollouts, chosen) for name, method in first}


def _chunks(explained: Explanation, rows: list[int], row: int) -> dict[str, Any]:
    """The ends of a response's chunks (None: each token is one), every stage and the advantage."""
    place = bisect_left(rows, row)
    span = explained.chunks_of(slice(place, place + 1))
    ends = _kept_ends(explained.last[span].tolist())
    span = slice(span.start, span.start + len(ends))
    columns = {**explained.stages, "advantage": explained.advantage}
    values = {visible_text(name): rounded_values(column[span]) for name, column in columns.items()}
    is_token = ends == list(range(len(ends)))
    return {"ends": None if is_token else ends, "stages": values}
