"""The process streams of rollouts: which of them a method reads, and each as a dense table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.credit.stages.groups import Mask, Values
from stepcredit.data.forest import slot_mask, to_dense
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, slots_of
from stepcredit.data.streams import Stream, TokenAdvantages
from stepcredit.errors import MethodError


@dataclass(frozen=True, eq=False)
class DenseStream:
    """A process stream as a dense table.

    Args:
        values: (rollout, slot) float64, 0 off `mask`.
        mask: True where a slot has a score.
        slots: where the columns lie: the stream's steps, or every token.
        counts: scores per rollout; they are in its first slots.
        is_zero: whether every value is known to be 0.
    """

    values: Values
    mask: Mask
    slots: Slots
    counts: Int[Tensor, " rollout"]
    is_zero: bool = False


Layouts = dict[tuple[object, ...], Slots]
"""Slots that are made already, by the tensors that they are made of."""


def dense_stream(stream: Stream, rollouts: Rollouts, layouts: Layouts | None = None) -> DenseStream:
    """The stream as a table on its own slots: its steps, or every token.

    A rollout without the stream has one slot of steps, or its tokens, with the mask False.

    Args:
        stream: the stream.
        rollouts: the rollouts.
        layouts: where several versions of the rollouts keep the slots that they share; all versions
            are alive as long as it is.

    Example:
        >>> from stepcredit.data.streams import Steps
        >>> r = Rollouts([0, 0], [3, 2], Steps(ends=[[0, 2], [1]], scores=[[0.5, 1.0], [0.25]]))
        >>> dense_stream(r.streams["process"], r).values.tolist()
        [[0.5, 1.0], [0.25, 0.0]]
    """
    slots = _slots_once(stream, rollouts, {} if layouts is None else layouts)
    everywhere = slots.counts is stream.counts or torch.equal(stream.counts, slots.counts)
    mask = slots.mask if everywhere else slot_mask(stream.counts, slots.width)
    if stream.is_zeroed:
        values = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
        return DenseStream(values, mask, slots, stream.counts, is_zero=True)
    values = to_dense(
        stream.values, stream.counts, width=slots.width, mask=mask, dtype=torch.float64
    )
    return DenseStream(values, mask, slots, stream.counts)


def _slots_once(stream: Stream, rollouts: Rollouts, layouts: Layouts) -> Slots:
    places = [getattr(stream, name) for name in stream.packed if name != "values"]
    key = (type(stream), *map(id, (rollouts.lengths, stream.counts, *places)))
    if key not in layouts:
        layouts[key] = slots_of(stream, rollouts.lengths)
    return layouts[key]


def process_signals(rollouts: Rollouts) -> dict[str, Stream]:
    """The process streams that hold scores, by name, without ready-made advantages.

    Example:
        >>> from stepcredit.data.streams import Tokens
        >>> list(process_signals(Rollouts([0], [1], {"prm": Tokens([[1.0]]), "kl": Tokens([[]])})))
        ['prm']
    """
    return {
        name: stream
        for name, stream in rollouts.streams.items()
        if stream.values.numel() and not isinstance(stream, TokenAdvantages)
    }


def lacks_logprobs(rollouts: Rollouts, model: str) -> Bool[Tensor, " rollout"]:
    """Which rollouts have no log-probs of a model.

    Example:
        >>> r = Rollouts([0, 0], [1, 1], logprobs={"student": [[-0.5], []]})
        >>> lacks_logprobs(r, "student").tolist(), lacks_logprobs(r, "teacher").tolist()
        ([False, True], [True, True])
    """
    stream = rollouts.logprobs.get(model)
    if stream is None:
        return torch.ones_like(rollouts.format_ok)
    return stream.counts == 0


def process_stream(rollouts: Rollouts) -> Stream | None:
    """The one process stream that a method reads: "process", or the only one; None without any.

    Raises:
        MethodError: several streams, none of them named "process".

    Example:
        >>> from stepcredit.data.streams import Tokens
        >>> r = Rollouts([0], [1], {"prm": Tokens([[1.0]])})
        >>> process_stream(r) is r.streams["prm"], process_stream(Rollouts([0], [1]))
        (True, None)
    """
    scored = process_signals(rollouts)
    check_one_process(scored)
    return find_process_stream(rollouts)


def find_process_stream(rollouts: Rollouts) -> Stream | None:
    """`process_stream` for part of a batch that was checked; None if no stream is the one.

    Groups of a batch may hold several streams of other names than "process", where other groups
    hold "process" too.
    """
    scored = process_signals(rollouts)
    return scored.get("process") or (next(iter(scored.values())) if len(scored) == 1 else None)


def check_one_process(signals: Collection[str]) -> None:
    """Refuse a batch of several process streams, none of them named "process".

    Args:
        signals: names of the process streams of the whole batch.

    Raises:
        MethodError: lists the streams of the batch.
    """
    if len(signals) > 1 and "process" not in signals:
        reason = f"reads one process stream, named 'process'; there are {', '.join(signals)}"
        raise MethodError(reason)
