"""One batch over several processes: a group may lie on two of them, and credit needs it whole.

What is gathered is step-level: lengths, streams as they were given, the gate, and the texts, which
metrics read. Nothing of a token's size travels unless a stream scores tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object

import stepcredit as sc
from stepcredit.data.streams import Stream
from stepcredit.errors import EngineError

Streams = Stream | Mapping[str, Stream] | None
_LISTS = ("lengths", "trained", "format_ok", "tokens", "truncated", "texts", "steps")


@dataclass(frozen=True)
class Share:
    """What one process knows of its rollouts and credit needs; joined, of all rollouts.

    Args:
        lengths: the model's own tokens, one number a rollout.
        trained: whether the loss trains it; a masked truncated rollout is not.
        process, logprobs: streams over the model's own tokens, or None.
        format_ok: what a callable gate said, or None.
        step_ends: where steps end over these tokens, for streams that do not tell, or None.
        tokens: these tokens' texts, for chunkers that read text, or None.
        truncated: whether it was cut off at the length limit.
        texts, steps: what the responses and their steps say, for the metrics; steps may be None.
    """

    lengths: list[int]
    trained: list[bool]
    process: Streams = None
    logprobs: Streams = None
    format_ok: list[bool] | None = None
    step_ends: Stream | None = None
    tokens: list[list[str]] | None = None
    truncated: list[bool] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    steps: list[list[str]] | None = None


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
        >>> one = Share([1], [True], sc.Tokens([[0.5]]))
        >>> two = Share([2], [True], sc.Tokens([[0.1, 0.2]]))
        >>> joined([one, two]).lengths, joined([one, two]).process.counts.tolist()
        ([1, 2], [1, 2])
    """
    lists: dict[str, Any] = {
        name: _joined_lists([getattr(share, name) for share in shares]) for name in _LISTS
    }
    return Share(
        process=_joined_streams([share.process for share in shares], "process_signal"),
        logprobs=_joined_streams([share.logprobs for share in shares], "logprobs"),
        step_ends=_joined_stream([share.step_ends for share in shares]),
        **lists,
    )


def _joined_lists(parts: Sequence[list[Any] | None]) -> list[Any] | None:
    return None if None in parts else [value for part in parts for value in part or ()]


def _joined_streams(parts: Sequence[Streams], field: str) -> Streams:
    told = list(dict.fromkeys(_told(part) for part in parts))
    if len(told) > 1:
        raise EngineError(f"gave {told[0]} on one process, {told[1]} on another", field=field)
    first = parts[0]
    if isinstance(first, Mapping):
        columns: list[Any] = list(parts)
        return {name: _joined_stream([part[name] for part in columns]) for name in first}
    return _joined_stream(parts)


def _joined_stream(parts: Sequence[Any]) -> Any:
    if parts[0] is None:
        return None
    counts = torch.cat([part.counts for part in parts])
    values = torch.cat([part.values for part in parts])
    if isinstance(parts[0], sc.Steps):
        return sc.Steps(torch.cat([part.ends for part in parts]), values, counts)
    return type(parts[0])._of(values=values, counts=counts)


def _told(part: Streams) -> str:
    """Names and kinds of streams, as a message has them."""
    if isinstance(part, Mapping):
        return ", ".join(f"{name}: {type(part[name]).__name__}" for name in sorted(part)) or "{}"
    return type(part).__name__
