"""The steps of responses by kind: right, wrong, filler, repeated, first and last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from stepcredit.credit.metrics.group_averages import Flags, Indices
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.credit.metrics.text_statistics import (
    Step,
    contentless_steps,
    is_contentless,
    repeated_steps,
)
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream

RIGHT, WRONG, FILLER = "right", "wrong", "filler"
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
    def of(
        cls,
        rollouts: Rollouts,
        steps: Sequence[Sequence[Step]] | None = None,
        labels: Sequence[Sequence[str | None]] | None = None,
        contentless: Callable[[Step], bool] = is_contentless,
    ) -> StepKinds | None:
        """The steps of a batch; None where nothing tells where they end.

        "right" and "wrong" are the truth about steps, where it is known. "filler" is the truth's
        word, or a contentless step; "repeated" a step whose text stood in its response before.
        "other" are the steps that are not wrong, filler or repeated.

        Args:
            rollouts: the batch.
            steps: the steps of each response, as texts or token ids; None: unknown.
            labels: the truth about each step; None: unknown.
            contentless: rule for a contentless step; the default: no letter or digit.

        Example:
            >>> import stepcredit as sc
            >>> r = sc.Rollouts([1], process=sc.Steps([[0, 1, 2]], [[0.5] * 3]))
            >>> kinds = StepKinds.of(r, [["a", ".", "a"]])
            >>> {name: flags.tolist() for name, flags in kinds.flags.items() if name != "first"}
            ... # doctest: +NORMALIZE_WHITESPACE
            {'filler': [False, True, False], 'repeated': [False, False, True],
             'last': [False, False, True], 'other': [True, False, False]}
        """
        ends = step_boundaries(rollouts)
        if ends is None:
            return None
        counts = ends.counts.cpu().numpy()
        row = np.repeat(np.arange(counts.size), counts)
        place = np.arange(row.size) - np.repeat(counts.cumsum() - counts, counts)
        group = rollouts.group_index.cpu().numpy()[row]
        flags = _of_truth(labels)
        if steps is not None:
            empty = _packed(contentless_steps(steps, contentless))
            flags[FILLER] = flags.get(FILLER, np.zeros_like(empty)) | empty
            flags[REPEATED] = _packed(repeated_steps(steps))
        flags |= {FIRST: place == 0, LAST: place == counts[row] - 1}
        known = [flags[kind] for kind in (WRONG, *PADDING) if kind in flags]
        flags[OTHER] = ~np.logical_or.reduce(known) if known else np.ones(row.size, np.bool_)
        return cls(ends, row, place, group, flags)

    @property
    def baseline(self) -> str:
        """The kind that padding is compared with: right steps, or the others without truth."""
        return RIGHT if RIGHT in self.flags else OTHER

    @property
    def compared(self) -> dict[str, Flags]:
        """For each kind of steps that add nothing, the steps that it is compared with.

        These are the right steps; without truth about steps, those that are neither filler nor
        repeated. A repeated step is never the first, and many methods pay by place, so it is not
        compared with first steps.
        """
        base = self.flags[self.baseline]
        found = {kind: base & ~self.flags[kind] for kind in PADDING if kind in self.flags}
        if REPEATED in found:
            found[REPEATED] = found[REPEATED] & ~self.flags[FIRST]
        return found


def _of_truth(labels: Sequence[Sequence[str | None]] | None) -> dict[str, Flags]:
    """The kinds that truth about steps tells."""
    if labels is None:
        return {}
    words = np.array(list(chain.from_iterable(labels)), dtype=object)
    return {kind: words == kind for kind in (RIGHT, WRONG, FILLER)}


def _packed(rows: Sequence[Sequence[bool]]) -> Flags:
    return np.fromiter(chain.from_iterable(rows), np.bool_)
