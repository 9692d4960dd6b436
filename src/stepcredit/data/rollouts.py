"""`Rollouts`: a batch of sampled responses with all that supervises them, checked once, here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stepcredit.data.inputs import (
    Process,
    Scalar,
    Scalars,
    Signals,
    check_fit,
    check_rows,
    flags_of,
    group_rows,
    lengths_of,
    named_logprobs,
    named_streams,
    scalar_of,
    segmentation,
    texts_of,
)
from stepcredit.data.packing import Rows, row_numbers, whole_number
from stepcredit.data.streams import Stream, Tokens
from stepcredit.errors import RolloutError


@dataclass(frozen=True, init=False, eq=False)
class Rollouts:
    """Groups of responses with their process, outcome and format signals.

    Args:
        group: the prompt each rollout answers, a label or an integer a rollout; rows of a group may
            stand anywhere. Labels 3 and "3" are the same group.
        lengths: trained tokens a rollout; may be left out where another argument tells them.
        process: one stream (it is then named "process") or {name: stream}.
        outcome: one number a rollout, a list's None = unknown: for all of a group or for none.
        format: as `outcome`.
        format_ok: did the response keep its format? All True where left out.
        logprobs: {"student" | "teacher" | "base" | "prm" | "ref": one log-prob a trained token}.
        step_ends: where steps end, for signals that carry none of their own.
        tokens: the trained tokens' texts, for chunkers that read text.
        left_out: steps without a trained token, whose scores were left out before: `explain` tells
            of them. It is a count of the batch: `take` and `blocks` keep it as it is.

    Tensors and arrays are held, not copied, where their dtype and layout allow: who writes into one
    afterwards changes the rollouts unchecked, so give a clone of a buffer that will be used again.
    Lists are copied, and their values are on the CPU. Where signals are on several devices, all are
    moved to the first accelerator among them. A masked value of a `numpy.ma` array is an unknown
    outcome or format; anywhere else it is refused.

    Raises:
        RolloutError: rows that break a rule; it carries the row and the field.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=["q", "q"], process=sc.Steps([[1, 4], [2]], [[0.9, 0.6], [0.2]]),
        ...                 outcome=[1.0, 0.0])
        >>> r.num_rollouts, r.num_groups, r.lengths.tolist()
        (2, 1, [5, 3])
    """

    group_index: Int[Tensor, " rollout"]
    group_labels: list[str | int]
    lengths: Int[Tensor, " rollout"]
    streams: dict[str, Stream]
    logprobs: dict[str, Tokens]
    outcomes: Scalar
    formats: Scalar
    format_ok: Bool[Tensor, " rollout"]
    step_ends: Stream | None
    tokens: list[list[str]] | None
    left_out: int

    def __init__(
        self,
        group: Sequence[Any] | Tensor | np.ndarray,
        lengths: Sequence[int] | Tensor | None = None,
        process: Process | None = None,
        outcome: Scalars | None = None,
        format: Scalars | None = None,
        format_ok: Sequence[bool] | Tensor | None = None,
        logprobs: Mapping[str, Tokens | Rows] | None = None,
        step_ends: Rows | Stream | None = None,
        tokens: Sequence[Sequence[str] | None] | None = None,
        left_out: int = 0,
    ) -> None:
        texts = texts_of(tokens)
        signals = Signals(
            named_streams(process), named_logprobs(logprobs), segmentation(step_ends), texts
        )
        signals = signals.on(signals.device)
        labels, index = group_rows(group)
        check_rows(index.numel(), signals)
        size = lengths_of(lengths, index.numel(), signals)
        check_fit(size, signals)
        index = index.to(size.device)
        self._set(
            group_index=index,
            group_labels=labels,
            lengths=size,
            streams=signals.streams,
            logprobs=signals.logprobs,
            outcomes=scalar_of(outcome, index, len(labels), "outcome"),
            formats=scalar_of(format, index, len(labels), "format"),
            format_ok=flags_of(format_ok, index.numel(), size.device),
            step_ends=signals.step_ends,
            tokens=texts,
            left_out=whole_number(left_out, "left_out"),
        )

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def num_rollouts(self) -> int:
        """Rollouts in the batch."""
        return self.group_index.numel()

    @property
    def num_groups(self) -> int:
        """Groups in the batch."""
        return len(self.group_labels)

    @property
    def device(self) -> torch.device:
        """Where the batch's tensors are."""
        return self.group_index.device

    @property
    def outcome(self) -> Float[Tensor, " rollout"]:
        """Outcome a rollout, 0 where unknown."""
        return self.outcomes.values

    @property
    def has_outcome(self) -> Bool[Tensor, " rollout"]:
        """True where the outcome is known."""
        return self.outcomes.known

    @property
    def format(self) -> Float[Tensor, " rollout"]:
        """Format reward a rollout, 0 where unknown."""
        return self.formats.values

    @property
    def has_format(self) -> Bool[Tensor, " rollout"]:
        """True where the format reward is known."""
        return self.formats.known

    def with_streams(self, streams: Mapping[str, Stream]) -> Rollouts:
        """The same rollouts with other process streams, checked as at construction.

        Raises:
            RolloutError: a stream that does not fit the lengths.
        """
        signals = Signals(named_streams(streams), {}, None, None).on(self.device)
        check_rows(self.num_rollouts, signals)
        check_fit(self.lengths, signals)
        return self.replaced(streams=signals.streams)

    def replaced(self, **changes: Any) -> Rollouts:
        """The same rollouts with other fields, which are not checked."""
        copy = Rollouts.__new__(Rollouts)
        copy._set(**{name: getattr(self, name) for name in Rollouts.__dataclass_fields__} | changes)
        return copy

    def take(self, rows: Sequence[int] | Sequence[bool] | Tensor | np.ndarray) -> Rollouts:
        """The given rollouts in the given order; groups are numbered anew by first appearance.

        Args:
            rows: numbers of rollouts, from 0, in any order and as often as wanted, or one flag per
                rollout.

        Raises:
            RolloutError: a number outside the rollouts, another number of flags than of rollouts,
                or no rollout at all.

        Example:
            >>> r = Rollouts(group=["a", "b"], lengths=[2, 3])
            >>> r.take([1]).group_labels, r.take([True, False]).group_labels
            (['b'], ['a'])
        """
        taken = row_numbers(rows, self.num_rollouts).to(self.device)
        if not taken.numel():
            raise RolloutError("expected at least one rollout, got none", field="rows")
        taken_labels = [self.group_labels[g] for g in self.group_index[taken].tolist()]
        labels, index = group_rows(taken_labels)
        return self.replaced(
            group_index=index.to(self.device),
            group_labels=labels,
            lengths=self.lengths[taken],
            streams={name: s._taken(taken) for name, s in self.streams.items()},
            logprobs={name: s._taken(taken) for name, s in self.logprobs.items()},
            outcomes=self.outcomes.take(taken),
            formats=self.formats.take(taken),
            format_ok=self.format_ok[taken],
            step_ends=None if self.step_ends is None else self.step_ends._taken(taken),
            tokens=None if self.tokens is None else [self.tokens[i] for i in taken.tolist()],
        )

    def to(self, device: torch.device | str) -> Rollouts:
        """The same rollouts on another device."""
        names = ("group_index", "lengths", "format_ok")
        moved = {name: getattr(self, name).to(device) for name in names}
        return self.replaced(
            **moved,
            streams={name: s.to(device) for name, s in self.streams.items()},
            logprobs={name: s.to(device) for name, s in self.logprobs.items()},
            outcomes=Scalar(self.outcome.to(device), self.has_outcome.to(device)),
            formats=Scalar(self.format.to(device), self.has_format.to(device)),
            step_ends=None if self.step_ends is None else self.step_ends.to(device),
        )

    def blocks(self, budget: float) -> Iterator[Rollouts]:
        """Cut into runs of whole groups of about `budget` values each, views of the same tensors.

        All groups of a block have the same process streams, and `streams` holds no others: so what
        a neighbour has changes nothing. Requires the rows of each group to stand together, groups
        in order of their index.
        """
        packed = [*self.streams.values(), *self.logprobs.values()]
        packed += [] if self.step_ends is None else [self.step_ends]
        sizes = [np.concatenate([[0], s.counts.cumsum(0).cpu().numpy()]) for s in packed]
        starts = np.searchsorted(self.group_index.cpu().numpy(), np.arange(self.num_groups + 1))
        for first, last in _group_runs(starts, sizes, len(self.streams), budget):
            yield self._cut(first, last, starts, sizes)

    def _cut(self, first: int, last: int, starts: np.ndarray, sizes: list[np.ndarray]) -> Rollouts:
        rows = slice(int(starts[first]), int(starts[last]))
        spans = iter([slice(int(size[rows.start]), int(size[rows.stop])) for size in sizes])
        streams = {name: s.cut(rows, next(spans)) for name, s in self.streams.items()}
        return self.replaced(
            group_index=self.group_index[rows] - first,
            group_labels=self.group_labels[first:last],
            lengths=self.lengths[rows],
            streams={name: s for name, s in streams.items() if s.values.numel()},
            logprobs={name: s.cut(rows, next(spans)) for name, s in self.logprobs.items()},
            step_ends=None if self.step_ends is None else self.step_ends.cut(rows, next(spans)),
            outcomes=self.outcomes.take(rows),
            formats=self.formats.take(rows),
            format_ok=self.format_ok[rows],
            tokens=None if self.tokens is None else self.tokens[rows],
        )

    @classmethod
    def from_padded(cls, mask: Tensor, group: Sequence[Any] | Tensor, **signals: Any) -> Rollouts:
        """Rollouts from a trainer's padded tensors; see `stepcredit.data.padded.from_padded`."""
        from stepcredit.data.padded import from_padded

        return from_padded(mask, group, **signals)


def _group_runs(
    starts: np.ndarray, sizes: list[np.ndarray], streams: int, budget: float
) -> Iterator[tuple[int, int]]:
    """First and last group of each block: as many groups as fit the budget, at least one."""
    last_group = len(starts) - 1
    ends = np.max([size[starts] for size in sizes], axis=0) if sizes else np.zeros(last_group + 1)
    held = np.array([np.diff(size[starts]) > 0 for size in sizes[:streams]]).reshape(
        streams, last_group
    )
    changes = np.flatnonzero((held[:, 1:] != held[:, :-1]).any(axis=0)) + 1
    first = 0
    while first < last_group:
        last = int(np.searchsorted(ends, ends[first] + budget, side="right")) - 1
        same = changes[np.searchsorted(changes, first, side="right") :][:1]
        last = min(max(last, first + 1), *same.tolist(), last_group)
        yield first, last
        first = last
