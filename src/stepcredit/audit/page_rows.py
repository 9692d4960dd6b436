"""The responses that the audit's page shows: their texts, streams and every stage, packed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from stepcredit.audit.audit_report import AuditReport
from stepcredit.audit.colour_layers import FINAL, ColourLayers
from stepcredit.audit.explained_groups import explained_groups
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.packed_columns import LARGEST_PLACE, ColumnPacker
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
METHODS_EXPLAINED = 4
"""Methods whose stages the page holds; three of them stand side by side."""
TOKENS_SHOWN, TOKEN_CHARACTERS, TEXT_CHARACTERS = 2_000, 200, 4_000
"""Of one response: tokens; characters of a token, and of a prompt or a text."""
DIGITS = 3
"""Digits of the numbers in the list of responses."""
Column = NDArray[Any]


@dataclass(frozen=True)
class PageRows:
    """The shown responses, in the file's order.

    Args:
        rows: of each what the list shows, as plain values, and in "packed" its texts and numbers as
            `ColumnPacker` writes them. All text is as `visible_text` gives it.
        layers: what tokens can be coloured by, with scales over these responses.
    """

    rows: list[dict[str, Any]]
    layers: list[dict[str, Any]]


def page_rows(report: AuditReport, most_bytes: int) -> PageRows:
    """The shown responses: at most `MOST_SHOWN`, in at most `most_bytes`, and at least one.

    Example:
        >>> from stepcredit.audit.audit_report import audit
        >>> batch = LoggedBatch.of([{"group": 1, "tokens": ["a", "b"], "outcome": 1.0}])
        >>> [row["length"] for row in page_rows(audit(batch, {}, checks={}), 10_000).rows]
        [2]
    """
    given = report.given
    group = given.batch.rollouts.group_index.numpy()
    means = mean_advantages(given.advantages)
    places = {name: group_places(values, group) for name, values in means.items()}
    flips = rank_flips(places, len(group))
    cited = [place.row for finding in report.findings for place in finding.places[:5]]
    chosen = rows_by_interest(cited, means, flips, group)[:MOST_SHOWN]
    shown = _ShownResponses.of(given.batch, given.methods, chosen)
    rows: list[dict[str, Any]] = []
    layers, size = ColourLayers(), 0
    for row in chosen:
        data = {
            **shown.listed(row),
            "flip": float(flips[row]),
            "means": {
                visible_text(name): float(f"{values[row]:.{DIGITS}g}")
                for name, values in means.items()
            },
            "places": {visible_text(name): float(values[row]) for name, values in places.items()},
        }
        columns = shown.columns(row)
        data["packed"] = _packed(columns)
        size += len(escaped_json(data)) + 1
        if rows and size > most_bytes:
            break
        columns.add_to(layers)
        rows.append(data)
    return PageRows(sorted(rows, key=lambda data: data["row"]), layers.as_json())


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


@dataclass(frozen=True, eq=False)
class _Columns:
    """What the page shows of one response, before it is packed.

    Args:
        texts: its tokens, prompt and text, as plain values.
        steps: the last token of each step; None: not known.
        streams: {name: (last token of each score, or None: one per token; scores)}.
        methods: {name: (last token of each chunk, or None: each token is one; {stage: values})}.
    """

    texts: dict[str, Any]
    steps: list[int] | None
    streams: dict[str, tuple[list[int] | None, Column]]
    methods: dict[str, tuple[list[int] | None, dict[str, Column]]]

    def add_to(self, layers: ColourLayers) -> None:
        """Add the values to the layers that tokens can be coloured by."""
        for name, (_, values) in self.streams.items():
            layers.add("stream", name, "", values)
        for method, (_, stages) in self.methods.items():
            for name, values in stages.items():
                layers.add("stage", name, method, values)


def _packed(columns: _Columns) -> str:
    packer = ColumnPacker()

    def places(ends: list[int] | None) -> list[int] | None:
        return None if ends is None else packer.add_places(ends)

    fields: dict[str, Any] = {**columns.texts, "steps": places(columns.steps)}
    fields["streams"] = {
        name: {"ends": places(ends), "values": packer.add(values)}
        for name, (ends, values) in columns.streams.items()
    }
    fields["methods"] = {
        method: {
            "ends": places(ends),
            "stages": {name: packer.add(values) for name, values in stages.items()},
        }
        for method, (ends, stages) in columns.methods.items()
    }
    return packer.packed(fields)


@dataclass(frozen=True, eq=False)
class _ShownResponses:
    """Gives what the page shows of each of the chosen responses.

    Args:
        batch: the responses.
        step_ends: the last trained token of each step, by response; None: not known.
        explained: each method's explanation of the chosen rows' groups, and the rows in it.
    """

    batch: LoggedBatch
    step_ends: list[list[int]] | None
    explained: Mapping[str, tuple[Explanation, list[int]]]

    @classmethod
    def of(
        cls, batch: LoggedBatch, methods: Mapping[str, Estimator], chosen: list[int]
    ) -> _ShownResponses:
        """What is needed to show the chosen rows."""
        ends = step_boundaries(batch.rollouts)
        by_row = None
        if ends is not None:
            by_row = [x.tolist() for x in torch.split(ends.values, ends.counts.tolist())]
        return cls(batch, by_row, _explanations(methods, batch.rollouts, chosen))

    def listed(self, row: int) -> dict[str, Any]:
        """What the list of responses shows of one."""
        given = self.batch.rows[row]
        return {
            "row": row,
            "line": given.line,
            "group": visible_text(str(given.group)),
            "outcome": None if given.outcome is None else float(given.outcome),
            "format_ok": given.format_ok,
            "length": given.length,
            "steps": None if self.step_ends is None else len(self.step_ends[row]),
        }

    def columns(self, row: int) -> _Columns:
        """All of one response."""
        given = self.batch.rows[row]
        streams = {name: _stream(s.values, s.ends) for name, s in given.streams.items()}
        streams |= {f"{name}_logprobs": _stream(x, None) for name, x in given.logprobs.items()}
        return _Columns(
            {"prompt": _cut(given.fields.get("prompt")), **_texts(self.batch, row)},
            None if self.step_ends is None else _kept_ends(self.step_ends[row]),
            {visible_text(name): found for name, found in streams.items()},
            {visible_text(name): _chunks(*x, row) for name, x in self.explained.items()},
        )


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


def _stream(values: list[float], ends: list[int] | None) -> tuple[list[int] | None, Column]:
    kept = None if ends is None else _kept_ends(ends)
    return kept, np.array(values[: TOKENS_SHOWN if kept is None else len(kept)])


def _kept_ends(ends: list[int]) -> list[int]:
    """The ends of those pieces that begin within `TOKENS_SHOWN`."""
    kept = ends[: sum(end < TOKENS_SHOWN - 1 for end in ends) + 1]
    return [min(end, LARGEST_PLACE) for end in kept]


def _explanations(
    methods: Mapping[str, Estimator], rollouts: Rollouts, chosen: list[int]
) -> dict[str, tuple[Explanation, list[int]]]:
    """Each method's explanation of the chosen rows' groups, with the rows that it holds."""
    first = list(methods.items())[:METHODS_EXPLAINED]
    return {name: explained_groups(method, rollouts, chosen) for name, method in first}


def _chunks(
    explained: Explanation, rows: list[int], row: int
) -> tuple[list[int] | None, dict[str, Column]]:
    """The ends of a response's chunks, and every stage with the advantage."""
    place = bisect_left(rows, row)
    span = explained.chunks_of(slice(place, place + 1))
    ends = _kept_ends(explained.last[span].tolist())
    span = slice(span.start, span.start + len(ends))
    columns = {**explained.stages, FINAL: explained.advantage}
    values = {visible_text(name): column[span].numpy() for name, column in columns.items()}
    is_token = ends == list(range(len(ends)))
    return None if is_token else ends, values
