"""Which responses and prompts two files share: what can be compared in pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.metrics.group_averages import Flags, Indices

RESPONSE_IDS = ("id", "response_id", "sample_id", "uid")
"""Fields that may name a response: the first that all rows of both files have, each value once."""
SAME_RESPONSES = 0.9
"""Share of the smaller file's responses that the other must have, so that they are pairs: fewer are
those that happened to be written again, and no fair part of the file."""
SAME_PROMPTS = 0.5
"""Share of the smaller file's prompts that the other must have, so that prompts are pairs."""
FEWEST_PAIRS = 2
PairedBy = Literal["responses", "prompts", ""]


@dataclass(frozen=True, eq=False)
class BatchPairs:
    """What of two batches is compared, and in which pairs.

    Args:
        by: "responses" where both hold the same responses, "prompts" where they hold other
            responses to the same prompts, "" where they share neither.
        rows: the numbers of the same responses in both, in the second's order; none otherwise.
        kept: which responses of each batch are compared.
        units: the prompt of each response, or its group: numbers that mean the same in both batches
            where there are pairs.
        shared: how many units are in both.
    """

    by: PairedBy
    rows: tuple[Indices, Indices]
    kept: tuple[Flags, Flags]
    units: tuple[Indices, Indices]
    shared: int

    @classmethod
    def of(cls, first: LoggedBatch, second: LoggedBatch) -> BatchPairs:
        """The pairs of two batches: the same responses, else the same prompts, else none.

        Example:
            >>> rows = [{"group": x, "prompt": x, "text": x, "length": 1} for x in "23"]
            >>> BatchPairs.of(LoggedBatch.of(rows), LoggedBatch.of(rows[::-1])).by
            'responses'
            >>> others = [{**row, "text": "4"} for row in rows]
            >>> BatchPairs.of(LoggedBatch.of(rows), LoggedBatch.of(others)).by
            'prompts'
        """
        rows = _same_responses(first, second)
        if rows is not None:
            kept = _flags(rows[0], first), _flags(rows[1], second)
            units = _units(rows, first, second)
            return cls("responses", rows, kept, units, len(np.unique(units[0][rows[0]])))
        prompts = [[row.fields.get("prompt") for row in batch.rows] for batch in (first, second)]
        numbers: dict[Hashable, int] = {}
        nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        if all(prompt is not None for own in prompts for prompt in own):
            units = _numbered(prompts[0], numbers), _numbered(prompts[1], numbers)
            both = np.intersect1d(*units)
            if len(both) >= max(FEWEST_PAIRS, SAME_PROMPTS * min(map(_count, units))):
                kept = np.isin(units[0], both), np.isin(units[1], both)
                return cls("prompts", nothing, kept, units, len(both))
        else:
            units = _groups(first), _groups(second)
        every = tuple(np.ones(len(batch.rows), np.bool_) for batch in (first, second))
        return cls("", nothing, (every[0], every[1]), units, 0)

    @property
    def sentence(self) -> str:
        """What is compared, in words.

        Example:
            >>> batch = LoggedBatch.of([{"group": 1, "length": 1}])
            >>> BatchPairs.of(batch, LoggedBatch.of([{"group": 1, "length": 2}])).sentence
            'The files share neither responses nor prompts: groups of one are compared with others.'
        """
        sizes = [f"{int(kept.sum()):,} of {kept.size:,}" for kept in self.kept]
        if not self.by:
            return (
                "The files share neither responses nor prompts: groups of one are compared with "
                "others."
            )
        same = "the same responses" if self.by == "responses" else "the same prompts"
        return (
            f"Paired: {same} in both files, {self.shared:,} prompts; {sizes[0]} responses of the "
            f"first and {sizes[1]} of the second are compared."
        )


def _count(units: Indices) -> int:
    return len(np.unique(units))


def _groups(batch: LoggedBatch) -> Indices:
    return np.asarray(batch.rollouts.group_index.numpy(), np.int64)


def _numbered(keys: Iterable[Hashable], numbers: dict[Hashable, int]) -> Indices:
    """The number of each key; a new key gets the next."""
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _flags(rows: Indices, batch: LoggedBatch) -> Flags:
    flags = np.zeros(len(batch.rows), np.bool_)
    flags[rows] = True
    return flags


def _units(
    rows: tuple[Indices, Indices], first: LoggedBatch, second: LoggedBatch
) -> tuple[Indices, Indices]:
    """The first batch's groups, on both batches; responses without a partner stay alone."""
    groups = _groups(first)
    units = np.full(len(second.rows), -1, np.int64)
    units[rows[1]] = groups[rows[0]]
    return groups, units


def _same_responses(first: LoggedBatch, second: LoggedBatch) -> tuple[Indices, Indices] | None:
    """The numbers of the same responses in both; None where most of them differ."""
    for keys_of in (_ids, _texts, _places):
        keys = keys_of(first, second)
        if keys is None:
            continue
        at = {key: row for row, key in enumerate(keys[0])}
        pairs = [(at[key], row) for row, key in enumerate(keys[1]) if key in at]
        pairs = [(a, b) for a, b in pairs if first.texts[a] == second.texts[b]]
        if len(pairs) >= SAME_RESPONSES * min(len(first.rows), len(second.rows)):
            found = np.array(pairs, np.int64)
            return found[:, 0], found[:, 1]
    return None


Keys = tuple[list[Hashable], list[Hashable]]


def _ids(first: LoggedBatch, second: LoggedBatch) -> Keys | None:
    for name in RESPONSE_IDS:
        keys = [[row.fields.get(name) for row in batch.rows] for batch in (first, second)]
        if all(_are_names(own) for own in keys):
            return keys[0], keys[1]
    return None


def _are_names(keys: list[Hashable]) -> bool:
    return all(isinstance(key, str | int) for key in keys) and len(set(keys)) == len(keys)


def _texts(first: LoggedBatch, second: LoggedBatch) -> Keys | None:
    if any(text is None for batch in (first, second) for text in batch.texts):
        return None
    return _each(_of_text, first), _each(_of_text, second)


def _of_text(batch: LoggedBatch, row: int) -> Hashable:
    fields = batch.rows[row].fields
    return fields.get("prompt") or str(fields["group"]), batch.texts[row]


def _places(first: LoggedBatch, second: LoggedBatch) -> Keys | None:
    """Responses without a text by their group and length, in order: the same file scored anew."""
    if any(text is not None for batch in (first, second) for text in batch.texts):
        return None
    return _each(_of_place, first), _each(_of_place, second)


def _of_place(batch: LoggedBatch, row: int) -> Hashable:
    return str(batch.rows[row].group), batch.rows[row].length


def _each(key_of: Callable[[LoggedBatch, int], Hashable], batch: LoggedBatch) -> list[Hashable]:
    """A key per row; equal ones are told apart by how many there were before."""
    seen: Counter[Hashable] = Counter()
    found: list[Hashable] = []
    for row in range(len(batch.rows)):
        key = key_of(batch, row)
        found.append((key, seen[key]))
        seen[key] += 1
    return found
