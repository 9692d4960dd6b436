"""What the absence of each stream changes in the advantages.

The estimator runs once more for each stream, with that stream's values at 0. All versions of a
block of groups are credited together, so that a method can share work between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from stepcredit.credit.blocks import Blocks
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.metrics.token_sums import TokenSums
from stepcredit.credit.overflow import refuse_overflow
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.advantages import Advantages
from stepcredit.data.forest import true_counts
from stepcredit.data.inputs import RolloutValues
from stepcredit.data.rollouts import Rollouts

Silence = Callable[[Rollouts], Rollouts]
"""Rollouts with the values of some streams at 0."""
Version = TypeVar("Version", bound=Hashable)
EVERY_PROCESS = "every process stream"
"""The key under which all process streams are at 0 at once."""


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """The chunks of the advantages, and what the absence of streams changes.

    Args:
        chunks: chunks per rollout.
        changes: by stream, the advantages minus those without the stream, over tokens.
    """

    chunks: Int[Tensor, " rollout"]
    changes: Mapping[str, TokenSums]

    @classmethod
    def of(
        cls,
        estimator: Estimator,
        rollouts: Rollouts,
        whole: Advantages,
        silence: Mapping[str, Silence],
    ) -> LeaveOneOut:
        """Run an estimator on the rollouts, and on each version of them.

        Args:
            estimator: one without a clip.
            rollouts: whole groups, one rollout per trajectory.
            whole: the estimator's advantages of the rollouts.
            silence: by stream, what sets its values to 0.

        Raises:
            MethodError, RolloutError: as for the estimator.
        """
        if rollouts.device.type == "mps":  # it has no float64
            rollouts, whole = rollouts.to("cpu"), whole.to("cpu")
        versions = [rollouts, *(quiet(rollouts) for quiet in silence.values())]
        if not treats_groups_apart(estimator):
            return cls(chunk_counts(estimator, rollouts), _of_whole(estimator, versions, silence))
        for version in versions:
            estimator.check(version)
            estimator.check_streams(process_signals(version))
        found = _of_blocks(estimator, rollouts, whole, silence)
        if not all(math.isfinite(change.total) for change in found.changes.values()):
            _of_whole(estimator, versions, silence)  # it names the response that overflows
        return found


def treats_groups_apart(estimator: Estimator) -> bool:
    """Whether the advantages of a group depend on that group alone.

    Example:
        >>> import stepcredit as sc
        >>> treats_groups_apart(sc.PURE()), treats_groups_apart(sc.PURE(whiten_batch=True))
        (True, False)
    """
    whole_batch = estimator.batch_step is not None or estimator.batch_scale is not None
    return not whole_batch and type(estimator).__call__ is Estimator.__call__


def advantages_of_versions(
    estimator: Estimator, rollouts: Rollouts, changes: Mapping[Version, Silence]
) -> dict[Version, Advantages]:
    """The advantages of several versions of the same rollouts.

    Args:
        estimator: any method.
        rollouts: any rollouts, one per trajectory.
        changes: by version, what makes it of the rollouts, as for `Estimator.credits`.

    Returns:
        {version: the estimator's advantages of it, in the rollouts' order}.

    Raises:
        MethodError, RolloutError: as for the estimator.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> advantages_of_versions(sc.RLOO(), r, {"quiet": without_outcome})["quiet"].packed()
        tensor([0., 0.])
    """
    versions = {name: change(rollouts) for name, change in changes.items()}
    if not treats_groups_apart(estimator):
        return {name: estimator(version) for name, version in versions.items()}
    for version in versions.values():
        estimator.check(version)
        estimator.check_streams(process_signals(version))
    blocks, parts = Blocks.of(rollouts), [list[Advantages]() for _ in changes]
    for block in blocks:
        given = [change(block) for change in changes.values()]
        found = map(estimator.advantages_of, estimator.credits(given), given)
        for part, advantages in zip(parts, found, strict=True):
            part.append(advantages)
    joined = [_joined(part, blocks) for part in parts]
    return dict(zip(changes, joined, strict=True))


def _joined(parts: list[Advantages], blocks: Blocks) -> Advantages:
    joined = parts[0] if len(parts) == 1 else Advantages.cat(parts)
    refuse_overflow(joined.values, joined.chunks)
    return joined if blocks.back is None else joined.take(blocks.back)


def _of_whole(
    estimator: Estimator, versions: list[Rollouts], silence: Mapping[str, Silence]
) -> dict[str, TokenSums]:
    whole, *others = (estimator(version) for version in versions)
    changes = (TokenSums.of_change(whole, other) for other in others)
    return dict(zip(silence, changes, strict=True))


def _of_blocks(
    estimator: Estimator, rollouts: Rollouts, whole: Advantages, silence: Mapping[str, Silence]
) -> LeaveOneOut:
    """All versions block by block, for a method whose groups do not depend on one another."""
    blocks, counts, changes = Blocks.of(rollouts), [], dict.fromkeys(silence, TokenSums())
    ordered = whole if blocks.order is None else whole.take(blocks.order)
    sizes = [block.num_rollouts for block in blocks]
    for block, own in zip(blocks, _cut(ordered, sizes), strict=True):
        versions = [block, *(quiet(block) for quiet in silence.values())]
        credits = estimator.credits(versions)
        counts.append(_chunks_of(credits[0]))
        others = map(estimator.advantages_of, credits[1:], versions[1:])
        for name, other in zip(silence, others, strict=True):
            changes[name] += TokenSums.of_change(own, other)
    return LeaveOneOut(blocks.in_batch_order(torch.cat(counts)), changes)


def _cut(whole: Advantages, rollouts: list[int]) -> Iterator[Advantages]:
    """Consecutive parts of so many rollouts each: views, nothing is copied."""
    chunks, lengths = torch.split(whole.chunks, rollouts), torch.split(whole.lengths, rollouts)
    held = [int(part.sum()) for part in chunks]
    values = torch.split(whole.values, held)
    sizes = repeat(None) if whole.sizes is None else torch.split(whole.sizes, held)
    return map(Advantages, values, sizes, chunks, lengths)


def chunk_counts(estimator: Estimator, rollouts: Rollouts) -> Int[Tensor, " rollout"]:
    """Chunks of each response under an estimator: 1 for outcome methods, steps, runs, or tokens.

    Args:
        estimator: any method.
        rollouts: whole groups, one rollout per trajectory.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], process=sc.Steps([[0, 1], [1]], [[3.0, 1.0], [2.0]]))
        >>> chunk_counts(sc.PASS(), r).tolist()
        [2, 1]
    """
    blocks, method = Blocks.of(rollouts), estimator.for_batch(rollouts)
    counts = [_chunks_of(method.credit(block)) for block in blocks]
    return blocks.in_batch_order(torch.cat(counts))


def _chunks_of(credit: Credit) -> Int[Tensor, " rollout"]:
    ends = credit.chunk_ends
    return credit.slots.counts if ends is None else true_counts(ends)


def silence_of(rollouts: Rollouts) -> dict[str, Silence]:
    """For each stream that the rollouts hold, what sets it to 0; "logprobs" are one of them.

    Example:
        >>> r = Rollouts(group=[0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> found = silence_of(r)
        >>> list(found), found["outcome"](r).outcome.tolist()
        (['outcome'], [0.0, 0.0])
    """
    silence: dict[str, Silence] = {
        name: partial(without_process, names=[name]) for name in rollouts.streams
    }
    if bool(rollouts.has_outcome.any()):
        silence["outcome"] = without_outcome
    if bool(rollouts.has_format.any()):
        silence["format"] = without_format
    if rollouts.logprobs:
        silence["logprobs"] = without_logprobs
    return silence


def without_process(rollouts: Rollouts, names: list[str]) -> Rollouts:
    """The rollouts with some process streams at 0."""
    quiet = {name: rollouts.streams[name].zeroed() for name in names if name in rollouts.streams}
    return rollouts.replaced(streams=rollouts.streams | quiet)


def without_outcome(rollouts: Rollouts) -> Rollouts:
    """The rollouts with the outcome at 0."""
    return rollouts.replaced(outcomes=_zero(rollouts.outcomes))


def without_format(rollouts: Rollouts) -> Rollouts:
    """The rollouts with the format reward at 0."""
    return rollouts.replaced(formats=_zero(rollouts.formats))


def without_logprobs(rollouts: Rollouts) -> Rollouts:
    """The rollouts with all log-probs at 0."""
    quiet = {name: stream.zeroed() for name, stream in rollouts.logprobs.items()}
    return rollouts.replaced(logprobs=quiet)


def _zero(scalar: RolloutValues) -> RolloutValues:
    return RolloutValues(torch.zeros_like(scalar.values), scalar.known)
