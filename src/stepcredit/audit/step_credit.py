"""Where the chunks and the steps of logged responses lie, and the credit that stands on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stepcredit.credit.blocks import Blocks
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.metrics.advantage_statistics import read_at_steps
from stepcredit.credit.metrics.signal_statistics import step_boundaries
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.advantages import Advantages
from stepcredit.data.forest import broadcast, masked_values, previous_values, true_counts
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream


def chunk_ends_of(estimator: Estimator, rollouts: Rollouts) -> Stream:
    """The last token of each chunk under an estimator.

    Args:
        estimator: any method; an outcome method has one chunk per response.
        rollouts: the batch.

    Returns:
        A stream whose values are the chunks' last trained tokens, in the rollouts' order.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], process=sc.Steps([[0, 3], [1]], [[3.0, 1.0], [2.0]]))
        >>> ends = chunk_ends_of(sc.PASS(), r)
        >>> ends.values.tolist(), ends.counts.tolist()
        ([0, 3, 1], [2, 1])
    """
    blocks, method = Blocks.of(rollouts), estimator.for_batch(rollouts)
    values, counts = list[Tensor](), list[Tensor]()
    for block in blocks:
        credit = method.credit(block)
        ends = credit.last_slots
        values.append(masked_values(credit.slots.last(), ends))
        counts.append(true_counts(ends))
    found = Stream._of(values=torch.cat(values), counts=torch.cat(counts))
    return found if blocks.back is None else found._taken(blocks.back)


def chunk_sizes(ends: Stream) -> Tensor:
    """Tokens of each chunk, from the chunks' last tokens.

    Example:
        >>> chunk_sizes(Stream._of(values=torch.tensor([0, 3, 1]), counts=torch.tensor([2, 1])))
        tensor([1, 3, 2])
    """
    return ends.values - previous_values(ends.values, ends.counts, -1)


def credited_places(rollouts: Rollouts) -> Stream:
    """The tokens at which credit is compared: the last of each step, or every token.

    Returns:
        A stream whose values are tokens; without known steps, all of them.

    Example:
        >>> import stepcredit as sc
        >>> credited_places(sc.Rollouts([0], lengths=[2], outcome=[1.0])).values.tolist()
        [0, 1]
    """
    ends = step_boundaries(rollouts)
    if ends is not None:
        return ends
    starts = rollouts.lengths.cumsum(0) - rollouts.lengths
    total = int(rollouts.lengths.sum())
    within = torch.arange(total) - broadcast(starts, rollouts.lengths, total=total)
    return Stream._of(values=within, counts=rollouts.lengths)


def step_credit(advantages: Advantages, places: Stream) -> Float64[Tensor, " place"]:
    """The advantage at each credited place, packed.

    Args:
        advantages: of the rollouts.
        places: as `credited_places` gives them.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])
        >>> step_credit(sc.RLOO()(r), credited_places(r)).tolist()
        [1.0, -1.0, -1.0]
    """
    if places.values.numel() == int(advantages.lengths.sum()):
        return advantages.packed().to(torch.float64)
    return read_at_steps(advantages, places)


def read_streams(estimator: Estimator, rollouts: Rollouts) -> Mapping[str, Stream]:
    """The process streams with scores that a method reads, by name.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0], process=sc.Steps([[0]], [[1.0]]))
        >>> list(read_streams(sc.PASS(), r)), list(read_streams(sc.GRPO(), r))
        (['process'], [])
    """
    reads, signals = estimator.reads, process_signals(rollouts)
    if reads.process is None:
        return {}
    if reads.process == "one" and len(signals) > 1:
        return {name: stream for name, stream in signals.items() if name == "process"}
    if reads.process != "weighted" or reads.weights is None:
        return signals
    return {name: stream for name, stream in signals.items() if reads.weights.get(name)}


def on_tokens(stream: Stream, rollouts: Rollouts) -> Float[Tensor, " token"]:
    """A stream's scores on the tokens that they stand for, packed; 0 for a response without it.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], [3, 1], sc.Steps([[0, 2], []], [[0.5, 1.0], []]))
        >>> on_tokens(r.streams["process"], r).tolist()
        [0.5, 1.0, 1.0, 0.0]
    """
    counts, lengths = stream.counts, rollouts.lengths
    scored = counts > 0
    if isinstance(stream, Steps):
        sizes = stream.ends - previous_values(stream.ends, counts, -1)
        spread = broadcast(stream.values, sizes)
    else:
        spread = stream.values
    if bool(scored.all()):
        return spread
    table = spread.new_zeros(int(lengths.sum()))
    table[broadcast(scored, lengths)] = spread
    return table
