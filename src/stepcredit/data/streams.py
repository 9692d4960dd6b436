"""Process streams: `Steps` (a score a step), `Tokens` (a token), `TokenAdvantages` (ready-made).

A stream takes lists of lists, or packed 1-D or padded 2-D tensors with `counts`,
and holds packed tensors. What only the whole batch can know (do the ends fit the lengths?) is
checked by `Rollouts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stepcredit.data.forest import slot_mask, take_rows
from stepcredit.errors import RolloutError

Rows = Sequence[Sequence[float] | None] | Tensor | np.ndarray
LARGEST = torch.finfo(torch.float32).max


def pack_rows(
    rows: Rows, counts: Sequence[int] | Tensor | None, field: str, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Any of the three layouts as (packed values, counts).

    Args:
        rows: lists of lists (None or [] = the row has none), packed 1-D, or padded 2-D.
        counts: values a row; required for the tensor layouts, unless every slot of a 2-D counts.
        field: name used in messages.
        dtype: dtype of the values; None keeps a tensor's own and makes lists float64.

    Returns:
        values (sum of counts,), counts int64 (rollout,), on the values' device.

    Raises:
        RolloutError: a value of the wrong type, or counts that do not fit.
    """
    if isinstance(rows, np.ndarray):
        rows = torch.from_numpy(rows)
    if not isinstance(rows, Tensor):
        if counts is None and not any(isinstance(r, Tensor | np.ndarray) for r in rows):
            return _pack_lists(rows, field, dtype or torch.float64)
        raise RolloutError("counts go with tensors, not with a list of rows", field=field)
    rows = rows.detach()
    if dtype is not None:
        rows = rows.to(dtype)
    elif not rows.is_floating_point():
        rows = rows.to(torch.float64)
    if counts is None:
        if rows.ndim != 2:
            raise RolloutError("a packed 1-D tensor needs counts", field=field)
        counts = rows.new_full((rows.shape[0],), rows.shape[1], dtype=torch.int64)
    counts = torch.as_tensor(counts, dtype=torch.int64, device=rows.device)
    if rows.ndim == 2:
        return _pack_padded(rows, counts, field), counts
    if rows.ndim != 1 or int(counts.sum()) != rows.numel():
        raise RolloutError(
            f"counts sum to {int(counts.sum())}, but there are {rows.numel()} values", field=field
        )
    return rows, counts


def _pack_padded(rows: Tensor, counts: Tensor, field: str) -> Tensor:
    if rows.shape[0] != counts.numel():
        raise RolloutError(f"{rows.shape[0]} rows, but {counts.numel()} counts", field=field)
    if counts.numel() and (int(counts.max()) > rows.shape[1] or int(counts.min()) < 0):
        raise RolloutError(f"counts must be in 0..{rows.shape[1]}, the width", field=field)
    return rows[slot_mask(counts, rows.shape[1])]


def _pack_lists(rows: Any, field: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    lists = [[] if row is None else row for row in rows]
    counts = torch.tensor([len(row) for row in lists], dtype=torch.int64)
    try:
        flat = [value for row in lists for value in row]
        if any(isinstance(value, bool) for value in flat):
            raise TypeError
        if dtype == torch.int64 and any(value != int(value) for value in flat):
            raise TypeError
        return torch.tensor(flat, dtype=dtype), counts
    except (TypeError, ValueError, OverflowError):
        row, value = _first_bad(lists, dtype)
        kind = "an integer" if dtype == torch.int64 else "a number"
        raise RolloutError(f"{value!r} is not {kind}", row=row, field=field) from None


def _first_bad(lists: list[Any], dtype: torch.dtype) -> tuple[int, Any]:
    whole = dtype == torch.int64
    for row, values in enumerate(lists):
        for value in values:
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not number or (whole and value != int(value)):
                return row, value
    return 0, None


def row_of(index: int, counts: Tensor) -> int:
    """The row that holds the packed value at `index`."""
    return int(torch.searchsorted(counts.cumsum(0), index, right=True))


def check_finite(values: Tensor, counts: Tensor, field: str) -> None:
    """Refuse NaN, infinity, and what float32 can't hold, by row.

    Raises:
        RolloutError: names the first row with such a value.
    """
    if values.numel() == 0 or bool(values.abs().max() <= LARGEST):
        return
    index = int((~(values.abs() <= LARGEST)).nonzero()[0])
    value = float(values[index])
    what = "is too large for float32" if np.isfinite(value) else "is not a finite number"
    raise RolloutError(f"{value!r} {what}", row=row_of(index, counts), field=field)


@dataclass(frozen=True, init=False, eq=False)
class Stream:
    """What every process stream is at rest: packed values, and how many belong to each rollout."""

    values: Float[Tensor, " slot"]
    counts: Int[Tensor, " rollout"]
    packed: ClassVar[tuple[str, ...]] = ("values",)

    @classmethod
    def _of(cls, **fields: Tensor) -> Self:
        """Build from packed tensors already checked."""
        stream = cls.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(stream, name, value)
        return stream

    def _set(self, **fields: Tensor) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def take(self, rows: Int[Tensor, " taken"]) -> Self:
        """The same stream for the given rollouts, in the given order."""
        taken = {name: take_rows(getattr(self, name), self.counts, rows) for name in self.packed}
        return self._of(counts=self.counts[rows], **taken)

    def cut(self, rows: slice, slots: slice) -> Self:
        """Consecutive rollouts and their packed values: views, nothing is copied."""
        taken = {name: getattr(self, name)[slots] for name in self.packed}
        return self._of(counts=self.counts[rows], **taken)

    def zeroed(self) -> Self:
        """The same stream with every value 0."""
        held = {name: getattr(self, name) for name in ("counts", *self.packed)}
        return self._of(**{**held, "values": torch.zeros_like(self.values)})

    def to(self, device: torch.device | str) -> Self:
        """The same stream on another device."""
        names = ("counts", *self.packed)
        return self._of(**{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True, init=False, eq=False)
class Tokens(Stream):
    """A process signal of one score a trained token, such as a log-ratio to a teacher.

    Args:
        scores: one row of scores a rollout: lists of lists, packed (sum L,) or padded (rollout,
            slot). A rollout without this signal has an empty row or None.
        counts: scores a rollout, for the two tensor layouts.

    Raises:
        RolloutError: a score that is not a finite number, or counts that do not fit.

    Example:
        >>> Tokens([[-0.1, -0.4], [-2.0]]).counts.tolist()
        [2, 1]
    """

    def __init__(self, scores: Rows, counts: Sequence[int] | Tensor | None = None) -> None:
        values, counts = pack_rows(scores, counts, "scores", None)
        check_finite(values, counts, "scores")
        self._set(values=values, counts=counts)


@dataclass(frozen=True, init=False, eq=False)
class TokenAdvantages(Stream):
    """A ready-made advantage a token, such as a critic's GAE: added as given, never standardized.

    Args:
        values: one row of advantages a rollout; layouts as for `Tokens`.
        counts: values a rollout, for the two tensor layouts.

    Raises:
        RolloutError: a value that is not a finite number, or counts that do not fit.

    Example:
        >>> TokenAdvantages([[0.5, -0.5]]).values.tolist()
        [0.5, -0.5]
    """

    def __init__(self, values: Rows, counts: Sequence[int] | Tensor | None = None) -> None:
        packed, counts = pack_rows(values, counts, "advantages", None)
        check_finite(packed, counts, "advantages")
        self._set(values=packed, counts=counts)


@dataclass(frozen=True, init=False, eq=False)
class Steps(Stream):
    """A process signal of one score a step, such as a process reward model's.

    Args:
        ends: index of each step's last token, counted over the rollout's trained tokens, strictly
            increasing; the last is the rollout's last token. Layouts as for `Tokens`.
        scores: one score a step.
        counts: steps a rollout, for the two tensor layouts.

    Raises:
        RolloutError: ends and scores that differ in number, ends out of order, a score that is not
            a finite number.

    Example:
        >>> Steps(ends=[[1, 4], [2]], scores=[[0.9, 0.6], [0.2]]).ends.tolist()
        [1, 4, 2]
    """

    ends: Int[Tensor, " slot"]
    packed: ClassVar[tuple[str, ...]] = ("values", "ends")

    def __init__(
        self, ends: Rows, scores: Rows, counts: Sequence[int] | Tensor | None = None
    ) -> None:
        packed_ends, end_counts = pack_rows(ends, counts, "ends", torch.int64)
        values, counts = pack_rows(scores, counts, "scores", None)
        if counts.shape != end_counts.shape or not torch.equal(counts, end_counts):
            _refuse_counts(end_counts, counts)
        check_finite(values, counts, "scores")
        check_increasing(packed_ends, counts)
        self._set(values=values, counts=counts, ends=packed_ends)


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
    previous = torch.cat([ends.new_full((1,), -1), ends[:-1]])
    starts = counts.cumsum(0) - counts
    previous[starts[counts > 0]] = -1
    bad = ends <= previous
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        row = row_of(index, counts)
        if int(previous[index]) == -1:
            raise RolloutError(
                f"{int(ends[index])} is before the first token", row=row, field=field
            )
        raise RolloutError(
            f"{int(ends[index])} follows {int(previous[index])}: ends must increase",
            row=row,
            field=field,
        )
