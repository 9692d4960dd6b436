"""Process streams: `Steps`, `Tokens` and `TokenAdvantages`.

`Steps` has one score per step, `Tokens` one per token, `TokenAdvantages` one ready-made advantage
per token.

A stream takes a list of rows, or packed 1-D or padded 2-D tensors with `counts`, and holds packed
tensors. Values are checked once, here; what only the whole batch can know (do the ends fit the
lengths?) is checked by `Rollouts`.

A packed tensor is held, not copied: writing into it later changes the stream without a check, so
give a clone of a buffer that is used again. Lists and padded tensors are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stepcredit.data.forest import all_true, previous_values, take_rows
from stepcredit.data.packing import Rows, pack_numbers, pack_rows, row_numbers, row_of
from stepcredit.data.rules import counted, wrong_end_order
from stepcredit.errors import RolloutError


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Stream:
    """Base class of process streams: packed values, and how many of them each rollout has.

    Step ends without scores are a `Stream` too; its values are the ends.
    """

    values: Float[Tensor, " slot"]
    counts: Int[Tensor, " rollout"]
    is_zeroed: ClassVar[bool] = False
    """Whether `zeroed` made it; then work on its values can be left out."""
    packed: ClassVar[tuple[str, ...]] = ("values",)
    kind: ClassVar[str] = "values"
    """What one value stands for, in the repr of rollouts: "steps", "tokens" or "advantages"."""

    def __repr__(self) -> str:
        """How many values for how many responses, and their range, on one line.

        Example:
            >>> Steps(ends=[[1, 4], [2]], scores=[[0.9, 0.6], [0.2]])
            Steps(3 values for 2 responses, from 0.2 to 0.9)
        """
        size = f"{counted(self.values.numel(), 'value')} for "
        size += counted(self.counts.numel(), "response")
        return f"{type(self).__name__}({size}{value_range(self.values)})"

    @cached_property
    def scores_every_rollout(self) -> bool:
        """Whether every rollout has a value."""
        return all_true(self.counts > 0)

    @classmethod
    def _of(cls, **fields: Tensor) -> Self:
        """A stream of packed tensors that are checked already."""
        stream = cls.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(stream, name, value)
        return stream

    def _set(self, **fields: Tensor) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def take(self, rows: Sequence[int] | Sequence[bool] | Tensor | np.ndarray) -> Self:
        """The same stream for the given rollouts, in the given order.

        Args:
            rows: numbers of rollouts, from 0, or one flag per rollout.

        Raises:
            RolloutError: a number outside the rollouts, or as many flags as there are not rollouts.
        """
        return self._taken(row_numbers(rows, self.counts.numel()).to(self.counts.device))

    def _taken(self, rows: Int[Tensor, " taken"]) -> Self:
        """`take` of row numbers already checked."""
        taken = {name: take_rows(getattr(self, name), self.counts, rows) for name in self.packed}
        return self._of(counts=self.counts[rows], **taken)

    def cut(self, rows: slice, slots: slice) -> Self:
        """Consecutive rollouts and their packed values: views, nothing is copied."""
        taken = {name: getattr(self, name)[slots] for name in self.packed}
        return self._of(counts=self.counts[rows], **taken)

    def zeroed(self) -> Self:
        """The same stream with every value 0."""
        held = {name: getattr(self, name) for name in ("counts", *self.packed)}
        quiet = self._of(**{**held, "values": torch.zeros_like(self.values)})
        object.__setattr__(quiet, "is_zeroed", True)
        return quiet

    def to(self, device: torch.device | str) -> Self:
        """The same stream on another device."""
        names = ("counts", *self.packed)
        return self._of(**{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Tokens(Stream):
    """A process signal with one score per token, such as a log-ratio to a teacher.

    Args:
        scores: one row of scores per rollout: a list of lists or of 1-D tensors, packed (sum L,;
            held, not copied) or padded (rollout, slot). A rollout without this signal has an empty
            row or None.
        counts: scores per rollout, for a packed or padded tensor.

    Raises:
        RolloutError: a score that is not a finite number, or counts that do not fit.

    Example:
        >>> Tokens([[-0.1, -0.4], [-2.0]]).counts.tolist()
        [2, 1]
    """

    kind: ClassVar[str] = "tokens"

    def __init__(self, scores: Rows, counts: Sequence[int] | Tensor | None = None) -> None:
        values, counts = pack_numbers(scores, counts, "scores")
        self._set(values=values, counts=counts)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class TokenAdvantages(Stream):
    """Ready-made advantages, one per token, such as a critic's GAE: added, never standardized.

    Args:
        values: one row of advantages per rollout; layouts as for `Tokens`.
        counts: values per rollout, for a packed or padded tensor.

    Raises:
        RolloutError: a value that is not a finite number, or counts that do not fit.

    Example:
        >>> TokenAdvantages([[0.5, -0.5]]).values.tolist()
        [0.5, -0.5]
    """

    kind: ClassVar[str] = "advantages"

    def __init__(self, values: Rows, counts: Sequence[int] | Tensor | None = None) -> None:
        packed, counts = pack_numbers(values, counts, "advantages")
        self._set(values=packed, counts=counts)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Steps(Stream):
    """A process signal with one score per step, such as a process reward model's.

    Args:
        ends: index of each step's last token, from 0, strictly increasing; the last is the
            rollout's last token. A signal's steps count all tokens of a response, those in
            `Rollouts` count trained tokens; `Rollouts(mask=...)` changes the first to the second.
            Layouts as for `Tokens`.
        scores: one score per step.
        counts: steps per rollout, for a packed or padded tensor.

    Raises:
        RolloutError: ends and scores that differ in number, ends out of order, a score that is not
            a finite number.

    Example:
        >>> Steps(ends=[[1, 4], [2]], scores=[[0.9, 0.6], [0.2]]).ends.tolist()
        [1, 4, 2]
    """

    ends: Int[Tensor, " slot"]
    packed: ClassVar[tuple[str, ...]] = ("values", "ends")
    kind: ClassVar[str] = "steps"

    def __init__(
        self, ends: Rows, scores: Rows, counts: Sequence[int] | Tensor | None = None
    ) -> None:
        packed_ends, end_counts = pack_rows(ends, counts, "ends", torch.int64)
        values, counts = pack_numbers(scores, counts, "scores")
        packed_ends, end_counts = packed_ends.to(values.device), end_counts.to(values.device)
        if counts.shape != end_counts.shape or not torch.equal(counts, end_counts):
            _refuse_counts(end_counts, counts)
        check_increasing(packed_ends, counts)
        self._set(values=values, counts=counts, ends=packed_ends)


def value_range(values: Tensor) -> str:
    """The smallest and the largest of some values, for a repr; nothing where there are none.

    Example:
        >>> value_range(torch.tensor([0.5, -1.0]))
        ', from -1 to 0.5'
    """
    if not values.numel():
        return ""
    return f", from {float(values.min()):.4g} to {float(values.max()):.4g}"


def _refuse_counts(ends: Tensor, scores: Tensor) -> None:
    if ends.shape != scores.shape:
        raise RolloutError(
            f"{ends.numel()} rows, but {scores.numel()} rows of scores", field="ends"
        )
    row = int((ends != scores).nonzero()[0])
    raise RolloutError(
        f"{int(ends[row])} ends, but {int(scores[row])} scores", row=row, field="ends"
    )


def check_increasing(
    ends: Int[Tensor, " slot"], counts: Int[Tensor, " rollout"], field: str = "ends"
) -> None:
    """Refuse step ends that are negative or not strictly increasing within their rollout.

    Raises:
        RolloutError: names the first row at fault.
    """
    if ends.numel() == 0:
        return
    if _increases(ends, counts):
        return
    previous = previous_values(ends, counts, -1)
    bad = ends <= previous
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        row = row_of(index, counts)
        before = int(previous[index])
        reason = wrong_end_order(int(ends[index]), None if before == -1 else before)
        raise RolloutError(reason, row=row, field=field)


def _increases(ends: Int[Tensor, " slot"], counts: Int[Tensor, " rollout"]) -> bool:
    """Whether ends increase within each rollout, from 0 on."""
    first = (counts.cumsum(0) - counts)[counts > 0]
    rising = ends[1:] > ends[:-1]
    rising[first[1:] - 1] = True
    return all_true(rising) and int(ends[first].min()) >= 0
