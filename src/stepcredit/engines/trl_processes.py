"""One batch over several processes: a group may lie on two of them, and credit needs it whole.

What is gathered is step-level: lengths, streams as they were given, and the gate. Nothing of a
token's size travels unless a stream scores tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from accelerate.utils import gather_object

import stepcredit as sc
from stepcredit.data.streams import Stream
from stepcredit.errors import EngineError

Streams = Stream | Mapping[str, Stream] | None


@dataclass(frozen=True)
class Share:
    """What one process knows of its rollouts and credit needs; joined, of all rollouts.

    Args:
        lengths: the model's own tokens, one number a rollout.
        trained: whether the loss trains it; a masked truncated rollout is not.
        process, logprobs: streams over the model's own tokens, or None.
        format_ok: what a callable gate said, or None.
    """

    lengths: list[int]
    trained: list[bool]
    process: Streams
    logprobs: Streams
    format_ok: list[bool] | None


def gathered(share: Share) -> Share:
    """The shares of all processes as one, in the order of their ranks; called on every process.

    Raises:
        EngineError: processes whose signals gave streams of other names or kinds.
    """
    return joined(gather_object([share]))


def joined(shares: Sequence[Share]) -> Share:
    """Shares as one, in their order.

    Raises:
        EngineError: shares with streams of other names or kinds.

    Example:
        >>> one = Share([1], [True], sc.Tokens([[0.5]]), None, None)
        >>> two = Share([2], [True], sc.Tokens([[0.1, 0.2]]), None, None)
        >>> joined([one, two]).lengths, joined([one, two]).process.counts.tolist()
        ([1, 2], [1, 2])
    """
    kept = [share.format_ok for share in shares]
    return Share(
        lengths=list(chain.from_iterable(share.lengths for share in shares)),
        trained=list(chain.from_iterable(share.trained for share in shares)),
        process=_joined_streams([share.process for share in shares], "process_signal"),
        logprobs=_joined_streams([share.logprobs for share in shares], "logprobs"),
        format_ok=None if kept[0] is None else [ok for part in kept for ok in part or ()],
    )


def _joined_streams(parts: Sequence[Streams], field: str) -> Streams:
    told = list(dict.fromkeys(_told(part) for part in parts))
    if len(told) > 1:
        raise EngineError(f"gave {told[0]} on one process, {told[1]} on another", field=field)
    first = parts[0]
    if isinstance(first, Mapping):
        columns: list[Any] = list(parts)
        return {name: _joined_stream([part[name] for part in columns]) for name in first}
    return None if first is None else _joined_stream([part for part in parts if part is not None])


def _joined_stream(parts: Sequence[Any]) -> Stream:
    counts = torch.cat([part.counts for part in parts])
    values = torch.cat([part.values for part in parts])
    if isinstance(parts[0], sc.Steps):
        return sc.Steps(torch.cat([part.ends for part in parts]), values, counts)
    kind: Any = type(parts[0])
    return kind(values, counts)  # type: ignore[no-any-return]


def _told(part: Streams) -> str:
    """Names and kinds of streams, as a message has them."""
    if isinstance(part, Mapping):
        return ", ".join(f"{name}: {type(part[name]).__name__}" for name in sorted(part)) or "{}"
    return type(part).__name__
