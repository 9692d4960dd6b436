"""The steps of logged responses by kind: right, wrong, filler, repeated, first and last."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from stepcredit.audit.group_means import Flags, Indices
from stepcredit.audit.logged_batch import FILLER, RIGHT, WRONG, LoggedBatch
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.credit.metrics.text_statistics import contentless_steps, repeated_steps
from stepcredit.data.streams import Stream

REPEATED, FIRST, LAST, OTHER = "repeated", "first", "last", "other"
PADDING = (FILLER, REPEATED)
"""Kinds of steps that add nothing: a policy that is paid for them writes more of them."""


@dataclass(frozen=True)
class StepKinds:
    """All steps of a batch, one after the other, and which of them are of a kind.

    Args:
        ends: the steps' last tokens.
        row: the response of each step.
        place: each step's number in its response, from 0.
        group: the group of each step.
        flags: by kind, one flag per step; a step may be of several kinds.
    """

    ends: Stream
    row: Indices
    place: Indices
    group: Indices
    flags: dict[str, Flags]

    @classmethod
    def of(cls, batch: LoggedBatch) -> StepKinds | None:
        """The steps of a batch; None where no field tells where they end.

        "right" and "wrong" are the truth about steps, where the batch has it. "filler" is the
        truth's word, or a step without a letter or a digit; "repeated" a step whose text stood in
        its response before. "other" are the steps that are not wrong, filler or repeated.

        Example:
            >>> batch = LoggedBatch.of([{"group": 1, "tokens": ["a", ".", "a"],
            ...                          "step_ends": [0, 1, 2]}])
            >>> kinds = StepKinds.of(batch)
            >>> {name: flags.tolist() for name, flags in kinds.flags.items() if name != "first"}
            ... # doctest: +NORMALIZE_WHITESPACE
            {'filler': [False, True, False], 'repeated': [False, False, True],
             'last': [False, False, True], 'other': [True, False, False]}
        """
        ends = step_boundaries(batch.rollouts)
        if ends is None:
            return None
        counts = ends.counts.numpy()
        row = np.repeat(np.arange(counts.size), counts)
        place = np.arange(row.size) - np.repeat(counts.cumsum() - counts, counts)
        group = batch.rollouts.group_index.numpy()[row]
        flags = _of_content(batch) | {FIRST: place == 0, LAST: place == counts[row] - 1}
        known = [flags[kind] for kind in (WRONG, *PADDING) if kind in flags]
        flags[OTHER] = ~np.logical_or.reduce(known) if known else np.ones(row.size, np.bool_)
        return cls(ends, row, place, group, flags)

    @property
    def baseline(self) -> str:
        """The kind that padding is compared with: right steps, or the others without truth."""
        return RIGHT if RIGHT in self.flags else OTHER


def _of_content(batch: LoggedBatch) -> dict[str, Flags]:
    """The kinds that truth and texts tell."""
    flags: dict[str, Flags] = {}
    if batch.step_labels is not None:
        labels = np.array(list(chain.from_iterable(batch.step_labels)), dtype=object)
        flags = {kind: labels == kind for kind in (RIGHT, WRONG, FILLER)}
    if batch.steps is not None:
        empty = _packed(contentless_steps(batch.steps))
        flags[FILLER] = flags.get(FILLER, np.zeros_like(empty)) | empty
        flags[REPEATED] = _packed(repeated_steps(batch.steps))
    return flags


def _packed(rows: list[list[bool]]) -> Flags:
    return np.fromiter(chain.from_iterable(rows), np.bool_)
