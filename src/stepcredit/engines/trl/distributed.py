"""Gathers a generation over all processes: credit needs whole groups, which may be on two of them.

Only step-level data is gathered: lengths, streams as the signals gave them, the format gate, and
the texts, which metrics read. No padded tensor is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

import stepcredit as sc
from stepcredit.data.streams import Stream
from stepcredit.engines.scoring_costs import ScoringCost, merged_costs
from stepcredit.errors import EngineError

Made = TypeVar("Made")
GivenStreams = Stream | Mapping[str, Stream] | None
_LISTS = (
    *("lengths", "trained", "format_ok", "tokens", "truncated", "texts", "steps"),
    *("trajectory", "states"),
)


@dataclass(frozen=True)
class RankData:
    """The data of one process's rollouts; after `all_gather`, the data of all rollouts.

    Args:
        lengths: number of tokens that the policy wrote, per rollout.
        trained: whether the loss trains the rollout; a masked truncated rollout is not trained.
        process, logprobs: streams over the policy's tokens, or None.
        format_ok: what a callable format gate returned, or None.
        step_ends: where steps end among the policy's tokens, for streams without step ends; or
            None.
        tokens: the texts of the policy's tokens, for chunkers that read text; or None.
        truncated: whether the rollout was cut off at the length limit.
        texts, steps: the texts of the responses and of their steps, for metrics; `steps` may be
            None.
        cut: by stream, which rollouts were scored only up to a step before the last.
        states: the state of each trained step, for methods that compare states; or None.
        trajectory: which rollouts are the parts of one trajectory, where the `rollout_func` says
            so; or None.
        costs: what scoring took, by stream; of several processes, the seconds of the slowest and
            the answers of all.
    """

    lengths: list[int]
    trained: list[bool]
    process: GivenStreams = None
    logprobs: GivenStreams = None
    format_ok: list[bool] | None = None
    step_ends: Stream | None = None
    tokens: list[list[str]] | None = None
    truncated: list[bool] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    steps: list[list[str]] | None = None
    cut: Mapping[str, list[bool]] = field(default_factory=dict)
    trajectory: list[Any] | None = None
    states: list[list[Any]] | None = None
    costs: Mapping[str, ScoringCost] = field(default_factory=dict)


def made_once(make: Callable[[], Made]) -> Made:
    """What the first process makes, for all processes; called on each of them.

    Args:
        make: is called on the first process alone.

    Example:
        >>> made_once(lambda: 3)
        3
    """
    made: list[Any] = [make() if PartialState().is_main_process else None]
    broadcast_object_list(made)
    return made[0]  # type: ignore[no-any-return]


def all_gather(data: RankData) -> RankData:
    """The data of all processes as one, in the order of their ranks; called on every process.

    Raises:
        EngineError: processes whose signals gave streams of different names or kinds.
    """
    return concat_ranks(gather_object([data]))


def concat_ranks(parts: Sequence[RankData]) -> RankData:
    """The data of several processes as one, in their order.

    Raises:
        EngineError: parts with streams of different names or kinds.

    Example:
        >>> one = RankData([1], [True], sc.Tokens([[0.5]]))
        >>> two = RankData([2], [True], sc.Tokens([[0.1, 0.2]]))
        >>> concat_ranks([one, two]).lengths, concat_ranks([one, two]).process.counts.tolist()
        ([1, 2], [1, 2])
    """
    lists: dict[str, Any] = {
        name: _concat_lists([getattr(part, name) for part in parts]) for name in _LISTS
    }
    return RankData(
        process=_concat_streams([part.process for part in parts], "process_signal"),
        logprobs=_concat_streams([part.logprobs for part in parts], "logprobs"),
        step_ends=_concat_stream([part.step_ends for part in parts]),
        cut={name: [flag for part in parts for flag in part.cut[name]] for name in parts[0].cut},
        costs=merged_costs([part.costs for part in parts]),
        **lists,
    )


def _concat_lists(parts: Sequence[list[Any] | None]) -> list[Any] | None:
    return None if None in parts else [value for part in parts for value in part or ()]


def _concat_streams(parts: Sequence[GivenStreams], field: str) -> GivenStreams:
    kinds = list(dict.fromkeys(_names_and_kinds(part) for part in parts))
    if len(kinds) > 1:
        raise EngineError(f"gave {kinds[0]} on one process, {kinds[1]} on another", field=field)
    first = parts[0]
    if isinstance(first, Mapping):
        columns: list[Any] = list(parts)
        return {name: _concat_stream([part[name] for part in columns]) for name in first}
    return _concat_stream(parts)


def _concat_stream(parts: Sequence[Any]) -> Any:
    if parts[0] is None:
        return None
    counts = torch.cat([part.counts for part in parts])
    values = torch.cat([part.values for part in parts])
    if isinstance(parts[0], sc.Steps):
        return sc.Steps(torch.cat([part.ends for part in parts]), values, counts)
    return type(parts[0])._of(values=values, counts=counts)


def _names_and_kinds(part: GivenStreams) -> str:
    """Names and kinds of streams, for messages."""
    if isinstance(part, Mapping):
        return ", ".join(f"{name}: {type(part[name]).__name__}" for name in sorted(part)) or "{}"
    return type(part).__name__
