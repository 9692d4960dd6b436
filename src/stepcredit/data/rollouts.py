"""`Rollouts`: a batch of sampled responses with all that supervises them, checked once, here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stepcredit.data.streams import (
    Rows,
    Steps,
    Stream,
    TokenAdvantages,
    Tokens,
    check_finite,
    check_increasing,
    pack_rows,
)
from stepcredit.errors import RolloutError

Process = Stream | Mapping[str, Stream]
Scalars = Sequence[float | None] | Tensor | np.ndarray
LOGPROBS = ("student", "teacher", "base", "prm", "ref")


@dataclass(frozen=True, eq=False)
class Scalar:
    """One number a rollout, known or not: values (rollout,), 0 where `known` is False."""

    values: Float[Tensor, " rollout"]
    known: Bool[Tensor, " rollout"]

    def take(self, rows: Tensor | slice) -> Scalar:
        """The same for the given rollouts."""
        return Scalar(self.values[rows], self.known[rows])


@dataclass(frozen=True, init=False, eq=False)
class Rollouts:
    """Groups of responses with their process, outcome and format signals.

    Args:
        group: the prompt each rollout answers, a label or an integer a rollout; rows of a group may
            stand anywhere. Labels 3 and "3" are the same group.
        lengths: trained tokens a rollout; may be left out where another argument tells them.
        process: one stream (it is then named "process") or {name: stream}.
        outcome: one number a rollout; None (a list's) or NaN-free tensor; unknown for all of a group
            or for none of it.
        format: as `outcome`.
        format_ok: did the response keep its format? All True where left out.
        logprobs: {"student" | "teacher" | "base" | "prm" | "ref": one log-prob a trained token}.
        step_ends: where steps end, for signals that carry none of their own.
        tokens: the trained tokens' texts, for chunkers that read text.

    Raises:
        RolloutError: rows that break a rule; it carries the row and the field.

    Example:
        >>> r = Rollouts(group=["q", "q"], process=Steps([[1, 4], [2]], [[0.9, 0.6], [0.2]]),
        ...              outcome=[1.0, 0.0])
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
    tokens: list[Sequence[str]] | None

    def __init__(
        self,
        group: Sequence[Any] | Tensor | np.ndarray,
        lengths: Sequence[int] | Tensor | None = None,
        process: Process | None = None,
        outcome: Scalars | None = None,
        format: Scalars | None = None,
        format_ok: Sequence[bool] | Tensor | None = None,
        logprobs: Mapping[str, Tokens | Rows] | None = None,
        step_ends: Rows | None = None,
        tokens: Sequence[Sequence[str]] | None = None,
    ) -> None:
        streams = _named_streams(process)
        probs = _named_logprobs(logprobs)
        texts = None if tokens is None else [list(row) for row in tokens]
        marks = None if step_ends is None else _segmentation(step_ends)
        labels, index = _groups(group)
        count = index.numel()
        _check_rows(count, streams, probs, marks, texts)
        device = next(iter([*streams.values(), *probs.values()]), _Cpu).values.device
        size = _lengths(lengths, count, streams, probs, marks, texts, device)
        _check_fit(size, streams, probs, marks, texts)
        index = index.to(device)
        self._set(
            group_index=index,
            group_labels=labels,
            lengths=size,
            streams=streams,
            logprobs=probs,
            outcomes=_scalar(outcome, index, len(labels), "outcome"),
            formats=_scalar(format, index, len(labels), "format"),
            format_ok=_flags(format_ok, count, device),
            step_ends=marks,
            tokens=texts,
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
        _check_rows(self.num_rollouts, dict(streams), {}, None, None)
        _check_fit(self.lengths, dict(streams), {}, None, None)
        return self._with(streams=dict(streams))

    def _with(self, **changes: Any) -> Rollouts:
        copy = Rollouts.__new__(Rollouts)
        copy._set(**{name: getattr(self, name) for name in Rollouts.__dataclass_fields__} | changes)
        return copy

    def take(self, rows: Sequence[int] | Int[Tensor, " taken"]) -> Rollouts:
        """The given rollouts in the given order; groups are numbered anew by first appearance.

        Example:
            >>> r = Rollouts(group=["a", "b"], lengths=[2, 3])
            >>> r.take([1]).group_labels
            ['b']
        """
        taken = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        labels = [self.group_labels[g] for g in self.group_index[taken].tolist()]
        labels, index = _groups(labels)
        return self._with(
            group_index=index.to(self.device),
            group_labels=labels,
            lengths=self.lengths[taken],
            streams={name: s.take(taken) for name, s in self.streams.items()},
            logprobs={name: s.take(taken) for name, s in self.logprobs.items()},
            outcomes=self.outcomes.take(taken),
            formats=self.formats.take(taken),
            format_ok=self.format_ok[taken],
            step_ends=None if self.step_ends is None else self.step_ends.take(taken),
            tokens=None if self.tokens is None else [self.tokens[i] for i in taken.tolist()],
        )

    def to(self, device: torch.device | str) -> Rollouts:
        """The same rollouts on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("group_index", "lengths", "format_ok")}
        return self._with(
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
        return self._with(
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


class _Cpu:
    values = torch.empty(0)


def _group_runs(
    starts: np.ndarray, sizes: list[np.ndarray], streams: int, budget: float
) -> Iterator[tuple[int, int]]:
    """First and last group of each block: as many groups as fit the budget, at least one."""
    last_group = len(starts) - 1
    ends = np.max([size[starts] for size in sizes], axis=0) if sizes else np.zeros(last_group + 1)
    held = np.array([np.diff(size[starts]) > 0 for size in sizes[:streams]]).reshape(streams, last_group)
    changes = np.flatnonzero((held[:, 1:] != held[:, :-1]).any(axis=0)) + 1
    first = 0
    while first < last_group:
        last = int(np.searchsorted(ends, ends[first] + budget, side="right")) - 1
        same = changes[np.searchsorted(changes, first, side="right") :][:1]
        last = min(max(last, first + 1), *same.tolist(), last_group)
        yield first, last
        first = last


def _named_streams(process: Process | None) -> dict[str, Stream]:
    named = {"process": process} if isinstance(process, Stream) else dict(process or {})
    for name, stream in named.items():
        if not isinstance(stream, Stream):
            kind = type(stream).__name__
            raise RolloutError(f"expected Steps, Tokens or TokenAdvantages, got {kind}", field=name)
        if name in ("outcome", "format"):
            raise RolloutError("this name is taken: a process stream needs another", field=name)
    return named


def _named_logprobs(logprobs: Mapping[str, Tokens | Rows] | None) -> dict[str, Tokens]:
    named: dict[str, Tokens] = {}
    for name, rows in (logprobs or {}).items():
        if name not in LOGPROBS:
            raise RolloutError(f"unknown log-probs: expected one of {', '.join(LOGPROBS)}", field=name)
        field = f"{name}_logprobs"
        if not isinstance(rows, Tokens):
            values, counts = pack_rows(rows, None, field, None)
            check_finite(values, counts, field)
            rows = Tokens._of(values=values, counts=counts)
        named[name] = rows
    return named


def _segmentation(rows: Rows) -> Stream:
    ends, counts = pack_rows(rows, None, "step_ends", torch.int64)
    check_increasing(ends, counts, "step_ends")
    return Stream._of(values=ends, counts=counts)


def _groups(group: Sequence[Any] | Tensor | np.ndarray) -> tuple[list[str | int], Tensor]:
    """Labels in order of first appearance, and each row's index among them."""
    if isinstance(group, Tensor | np.ndarray):
        array = group.cpu().numpy() if isinstance(group, Tensor) else group
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            reason = f"expected one integer a rollout, got {array.dtype} of shape {array.shape}"
            raise RolloutError(reason, field="group")
        new = array[1:] != array[:-1]
        if bool((array[1:] >= array[:-1]).all()):
            labels = array[np.concatenate([[True], new])] if array.size else array
            return labels.tolist(), torch.from_numpy(np.concatenate([[0], new]).cumsum()[: array.size])
        unique, first, inverse = np.unique(array, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        return unique[order].tolist(), torch.from_numpy(rank[inverse.reshape(-1)])
    index: dict[str, int] = {}
    labels: list[str | int] = []
    rows = []
    for row, label in enumerate(group):
        if not isinstance(label, str | int | np.integer) or isinstance(label, bool):
            raise RolloutError(f"{label!r} is neither a string nor an integer", row=row, field="group")
        if str(label) not in index:
            index[str(label)] = len(labels)
            labels.append(label if isinstance(label, str) else int(label))
        rows.append(index[str(label)])
    return labels, torch.tensor(rows, dtype=torch.int64)


def _check_rows(
    count: int,
    streams: Mapping[str, Stream],
    probs: Mapping[str, Stream],
    marks: Stream | None,
    texts: list[Any] | None,
) -> None:
    if count == 0:
        raise RolloutError("there are no rollouts", field="group")
    rows = {name: s.counts.numel() for name, s in streams.items()}
    rows |= {f"{name}_logprobs": s.counts.numel() for name, s in probs.items()}
    rows |= {} if marks is None else {"step_ends": marks.counts.numel()}
    rows |= {} if texts is None else {"tokens": len(texts)}
    for name, number in rows.items():
        if number != count:
            raise RolloutError(f"{number} rows, but {count} rollouts", field=name)


def _lengths(
    lengths: Sequence[int] | Tensor | None,
    count: int,
    streams: Mapping[str, Stream],
    probs: Mapping[str, Stream],
    marks: Stream | None,
    texts: list[Any] | None,
    device: torch.device,
) -> Tensor:
    """The lengths given, or the largest that any signal tells, a row."""
    if lengths is not None:
        given, _ = pack_rows(lengths, [1] * count, "lengths", torch.int64) if isinstance(
            lengths, Tensor | np.ndarray
        ) else pack_rows([[value] for value in lengths], None, "lengths", torch.int64)
        if given.numel() != count:
            raise RolloutError(f"{given.numel()} lengths, but {count} rollouts", field="lengths")
        size = given.to(device)
    else:
        size = torch.zeros(count, dtype=torch.int64, device=device)
        for stream in [*streams.values(), *probs.values()]:
            size = torch.maximum(size, told_length(stream))
        if marks is not None:
            size = torch.maximum(size, _last(marks.values, marks.counts) + 1)
        if texts is not None:
            size = torch.maximum(size, torch.tensor([len(row) for row in texts], device=device))
    if bool((size < 1).any()):
        row = int((size < 1).nonzero()[0])
        raise RolloutError("a response needs at least one trained token", row=row, field="length")
    return size


def _last(values: Tensor, counts: Tensor) -> Tensor:
    """Last value of each row, -1 for an empty one."""
    last = counts.new_full(counts.shape, -1)
    filled = counts > 0
    last[filled] = values[(counts.cumsum(0) - 1)[filled]]
    return last


def told_length(stream: Stream) -> Int[Tensor, " rollout"]:
    """Trained tokens a rollout that the stream implies; 0 where the rollout has none of it."""
    return _last(stream.ends, stream.counts) + 1 if isinstance(stream, Steps) else stream.counts


def _check_fit(
    size: Tensor,
    streams: Mapping[str, Stream],
    probs: Mapping[str, Stream],
    marks: Stream | None,
    texts: list[Any] | None,
) -> None:
    """Every signal a row has must cover exactly its trained tokens."""
    told = {name: told_length(s) for name, s in streams.items()}
    told |= {f"{name}_logprobs": s.counts for name, s in probs.items()}
    told |= {} if marks is None else {"step_ends": _last(marks.values, marks.counts) + 1}
    if texts is not None:
        told["tokens"] = torch.tensor([len(row) for row in texts], device=size.device)
    for name, lengths in told.items():
        bad = (lengths != size) & (lengths != 0)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            steps = isinstance(streams.get(name), Steps) or name == "step_ends"
            had = f"last step ends at {int(lengths[row]) - 1}" if steps else f"{int(lengths[row])} values"
            want = f"last token is {int(size[row]) - 1}" if steps else f"{int(size[row])} trained tokens"
            raise RolloutError(f"{had}, but the response's {want}" if steps else f"{had}, but {want}",
                               row=row, field=name)


def _scalar(given: Scalars | None, group: Tensor, groups: int, field: str) -> Scalar:
    if given is None:
        values = torch.zeros(group.numel(), dtype=torch.float64, device=group.device)
        return Scalar(values, torch.zeros_like(values, dtype=torch.bool))
    if isinstance(given, Tensor | np.ndarray):
        values = torch.as_tensor(given).to(device=group.device, dtype=torch.float64).reshape(-1)
        known = torch.ones_like(values, dtype=torch.bool)
    else:
        packed, counts = pack_rows([[] if v is None else [v] for v in given], None, field, None)
        known = counts.to(group.device) > 0
        values = torch.zeros(known.numel(), dtype=torch.float64, device=group.device)
        values[known] = packed.to(group.device)
    if values.numel() != group.numel():
        raise RolloutError(f"{values.numel()} values, but {group.numel()} rollouts", field=field)
    check_finite(values, torch.ones_like(group), field)
    _check_whole_groups(known, group, groups, field)
    return Scalar(values, known)


def _check_whole_groups(known: Tensor, group: Tensor, groups: int, field: str) -> None:
    if bool(known.all()) or not bool(known.any()):
        return
    some = torch.zeros(groups, dtype=torch.bool, device=group.device)
    some[group[known]] = True
    bad = some[group] & ~known
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise RolloutError(f"unknown, but known for others of its group", row=row, field=field)


def _flags(given: Sequence[bool] | Tensor | None, count: int, device: torch.device) -> Tensor:
    if given is None:
        return torch.ones(count, dtype=torch.bool, device=device)
    if not isinstance(given, Tensor | np.ndarray):
        for row, value in enumerate(given):
            if not isinstance(value, bool | np.bool_):
                raise RolloutError(f"{value!r} is not true or false", row=row, field="format_ok")
    flags = torch.as_tensor(given, device=device).to(torch.bool)
    if flags.shape != (count,):
        raise RolloutError(f"{flags.numel()} values, but {count} rollouts", field="format_ok")
    return flags
