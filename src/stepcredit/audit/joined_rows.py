"""One row per trajectory, so that every check counts a trajectory as one response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from stepcredit.data.files.batches import group_label
from stepcredit.data.files.rows import Row, check_row
from stepcredit.data.files.trajectory_rows import complete_parts, trajectories_of_rows
from stepcredit.data.inputs import LOGPROBS
from stepcredit.data.masking import row_tokens_to_response
from stepcredit.data.trajectories import flat

_LISTS = (
    *("tokens", "token_ids", "token_scores", "step_scores", "step_states"),
    *(f"{name}_logprobs" for name in LOGPROBS),
)
"""Fields with one item per token or step: the items of the parts follow one another."""


def joined_rows(
    rows: Sequence[Row], source: str, per_step: Sequence[str] = (), around_steps: str = ""
) -> list[Row]:
    """One row per trajectory, in the order of their first rows.

    Args:
        rows: checked rows of whole groups, in any order.
        source: the file's name, for messages.
        per_step: further fields with one item per step.
        around_steps: a field with one item before the first step, and one after each step.

    Raises:
        RowError: parts that disagree, or of which some lack a stream.

    Example:
        >>> part = {"group": 1, "trajectory": "a", "length": 2, "text": "so"}
        >>> rows = [check_row(part), check_row(part | {"outcome": 1.0, "text": "it is"})]
        >>> [whole] = joined_rows(rows, "log")
        >>> whole.length, whole.part_ends, whole.outcome, whole.fields["text"]
        (4, [1, 3], 1.0, 'so\\nit is')
    """
    if all(row.trajectory is None for row in rows):
        return list(rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_label(row), []).append(row)
    whole = []
    for group in groups.values():
        for line, error in complete_parts(group):
            raise error.at_line(source, line)
        for parts in trajectories_of_rows(group):
            whole.append(_joined(parts, per_step, around_steps) if len(parts) > 1 else parts[0])
    return sorted(whole, key=lambda row: row.position)


def _joined(parts: list[Row], per_step: Sequence[str], around_steps: str) -> Row:
    """The rows of one trajectory as one row, at the place of the first."""
    first = parts[0]
    sizes = [row.length if row.mask is None else len(row.mask) for row in parts]
    fields = first.fields | _shared(parts) | _masks(parts, sizes)
    fields |= _lists(parts, (*_LISTS, *per_step)) | _steps(parts, sizes, around_steps)
    row = check_row(fields, position=first.position, line=first.line)
    row.size = sum(part.size for part in parts)
    row.part_ends = [end - 1 for end in accumulate(part.length for part in parts)]
    return row


def _shared(parts: list[Row]) -> dict[str, Any]:
    """What belongs to the whole trajectory: its length, its rewards, how it ended and its text."""
    known = parts[0]
    fields: dict[str, Any] = {"length": sum(row.length for row in parts)}
    fields |= {"outcome": known.outcome, "format": known.format, "format_ok": known.format_ok}
    fields |= _ending(parts)
    texts = [row.fields.get("text") for row in parts]
    return fields if None in texts else fields | {"text": "\n".join(map(str, texts))}


def _ending(parts: list[Row]) -> dict[str, Any]:
    """Whether a trajectory was cut off: where one of its parts was, as in the metrics of training.

    A field that no part has is absent.
    """
    found: dict[str, Any] = {}
    cut = [row.fields["truncated"] for row in parts if "truncated" in row.fields]
    if cut:
        found["truncated"] = any(each is True for each in cut)
    reasons = [row.fields["finish_reason"] for row in parts if "finish_reason" in row.fields]
    if reasons:
        found["finish_reason"] = "length" if "length" in reasons else reasons[-1]
    return found


def _lists(parts: list[Row], names: Iterable[str]) -> dict[str, Any]:
    """The parts' values of tokens and steps, one after the other."""
    return {name: flat(rows) for name in names if (rows := _all(parts, name)) is not None}


def _steps(parts: list[Row], sizes: list[int], around_steps: str) -> dict[str, Any]:
    """Where steps end, what stands around them, and the further streams."""
    fields: dict[str, Any] = {}
    ends, around = _all(parts, "step_ends"), _all(parts, around_steps)
    if ends is not None:
        fields["step_ends"] = _moved(ends, sizes)
    if around is not None:
        fields[around_steps] = around[0] + flat([row[1:] for row in around[1:]])
    if parts[0].fields.get("signals"):
        fields["signals"] = _signals([row.fields.get("signals", {}) for row in parts], sizes)
    return fields


def _all(parts: Iterable[Row], name: str) -> list[list[Any]] | None:
    """A list that every part has; None where one has none."""
    rows = [row.fields.get(name) for row in parts]
    lists = [row for row in rows if isinstance(row, list)]
    return lists if len(lists) == len(rows) else None


def _moved(ends: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[int]:
    """Step ends of the parts, counted through the trajectory."""
    starts = [0, *accumulate(sizes)]
    return [end + start for row, start in zip(ends, starts, strict=False) for end in row]


def _signals(rows: list[Mapping[str, Any]], sizes: list[int]) -> dict[str, Any]:
    """The parts' further streams; a stream without values has none in any part."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        own = [row.get(name, {}) for row in rows]
        keys = [key for key in ("scores", "advantages") if key in own[0]]
        found[name] = {key: flat([row.get(key, []) for row in own]) for key in keys}
        if "ends" in own[0]:
            found[name]["ends"] = _moved([row.get("ends", []) for row in own], sizes)
    return found


def _masks(parts: list[Row], sizes: list[int]) -> dict[str, Any]:
    """Which tokens are trained, and the advantages that the log holds of them."""
    masks = [row.mask or [1] * size for row, size in zip(parts, sizes, strict=True)]
    fields: dict[str, Any] = {}
    if any(row.mask is not None for row in parts):
        fields["loss_mask"] = flat(masks)
    stored = [_stored(row, mask) for row, mask in zip(parts, masks, strict=True)]
    if None not in stored:
        fields["advantages"] = flat([values or [] for values in stored])
    return fields


def _stored(row: Row, mask: list[int]) -> list[float] | None:
    """A row's logged advantages over its response tokens; TRL logs a single one for all of them."""
    values, scalar = row.fields.get("advantages"), row.fields.get("advantage")
    if isinstance(values, list):
        whole = len(values) == len(mask)
        return values if whole else row_tokens_to_response(np.array(values), mask).tolist()
    if isinstance(scalar, bool) or not isinstance(scalar, int | float):
        return None
    return [float(scalar)] * len(mask)
