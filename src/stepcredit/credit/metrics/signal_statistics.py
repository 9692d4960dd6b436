"""Statistics of the signals: variance within groups, agreement, right and wrong responses."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from stepcredit.credit.metrics.group_averages import Flags, Floats
from stepcredit.credit.metrics.token_sums import TokenSums
from stepcredit.credit.stages.groups import TOLERANCE
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.forest import broadcast, group_max, group_sum, largest_of_rows, reduce_rows
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream


def step_boundaries(rollouts: Rollouts) -> Stream | None:
    """Where steps end: in the first process stream that has steps, else `step_ends`.

    Returns:
        A stream whose values are the steps' last tokens; None if the rollouts have no steps.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0], process=sc.Steps([[1, 4]], [[0.9, 0.6]]))
        >>> step_boundaries(r).values.tolist()
        [1, 4]
    """
    for stream in rollouts.streams.values():
        if isinstance(stream, Steps):
            return Stream._of(values=stream.ends, counts=stream.counts)
    return rollouts.step_ends


def group_variance(
    values: Float[Tensor, " value"],
    counts: Int[Tensor, " row"] | None,
    group: Int[Tensor, " row"],
    num_groups: int,
) -> float | None:
    """Mean of the groups' population variances.

        mean over groups of at least two values of   mean (x - mean of the group's x)^2

    Args:
        values: packed rows of values.
        counts: values per row; None: one.
        group: the group of each row.
        num_groups: how many groups there are.

    Returns:
        The mean, in the values' unit squared; a group of equal values (1e-9 of its largest) counts
        as exactly 0. None where no group has two values.

    Example:
        >>> group_variance(torch.tensor([1.0, 3.0, 5.0]), None, torch.tensor([0, 0, 1]), 2)
        1.0
    """

    def total(table: Tensor) -> Tensor:
        rows = table if counts is None else reduce_rows(table, counts, "sum")
        return group_sum(rows, group, num_groups)

    low, high = _bounds_of_rows(values, counts)
    values = values.to(torch.float64)
    size = torch.ones_like(group) if counts is None else counts
    count = group_sum(size, group, num_groups)
    mean = (total(values) / count.clamp(min=1))[group]
    off = values - (mean if counts is None else broadcast(mean, counts, total=values.numel()))
    apart = torch.maximum(high - mean, mean - low)  # the largest |off| of each row
    apart = apart if counts is None else torch.where(counts > 0, apart, 0.0)
    largest = group_max(torch.maximum(high, -low), group, num_groups)
    equal = group_max(apart, group, num_groups) <= TOLERANCE * largest
    variance = total(off.square_()) / count.clamp(min=1)
    several = count > 1
    if not bool(several.any()):
        return None
    return float(torch.where(equal, 0.0, variance)[several].mean())


def _bounds_of_rows(values: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each row in float64; 0 for a row without values."""
    if counts is None:
        return values.double(), values.double()
    return reduce_rows(values, counts, "min").double(), reduce_rows(values, counts, "max").double()


def stream_variances(rollouts: Rollouts) -> dict[str, float]:
    """`group_variance` of every stream: a process stream's scores, the outcome, the format.

    It is computed from raw values. A stream of variance 0 gives no advantage under any group
    operator.

    Returns:
        {stream: variance}, without the streams of which no group has two values.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> stream_variances(r)
        {'outcome': 0.25}
    """
    group = rollouts.group_index
    found = {
        name: group_variance(stream.values, stream.counts, group, rollouts.num_groups)
        for name, stream in rollouts.streams.items()
    }
    for name, scalar in (("outcome", rollouts.outcomes), ("format", rollouts.formats)):
        if not scalar.any_known:
            continue
        values, of = scalar.values, group
        if not scalar.all_known:
            values, of = values[scalar.known], group[scalar.known]
        found[name] = group_variance(values, None, of, rollouts.num_groups)
    return {name: value for name, value in found.items() if value is not None}


def raw_statistics(rollouts: Rollouts) -> dict[str, tuple[float, float]]:
    """Mean and population std of the raw values of each stream, the outcome and the format.

    They are over all values of the batch, before any standardization. The log-probs of a model are
    the stream `MODEL_logprobs`.

    Returns:
        {stream: (mean, std)}, in the values' unit, without the streams that have no value.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> raw_statistics(r)
        {'outcome': (0.5, 0.5)}
    """
    values = {name: stream.values for name, stream in rollouts.streams.items()}
    values |= {f"{name}_logprobs": each.values for name, each in rollouts.logprobs.items()}
    for name, scalar in (("outcome", rollouts.outcomes), ("format", rollouts.formats)):
        if scalar.any_known:
            values[name] = scalar.values[scalar.known]
    sums = {name: TokenSums.of(each) for name, each in values.items() if each.numel()}
    return {name: (each.moments.mean, each.std) for name, each in sums.items()}


def means_where(
    values: Shaped[Tensor, " rollout"], chosen: Bool[Tensor, "choice rollout"]
) -> list[float | None]:
    """Mean of the chosen rollouts' values, for each choice; None if none is chosen.

    Args:
        values: numbers of any kind, all finite.
        chosen: several choices of rollouts.

    Example:
        >>> means_where(torch.tensor([3, 8]), torch.tensor([[True, False], [False, False]]))
        [3.0, None]
    """
    totals = (chosen * values).sum(1, dtype=torch.float64).tolist()
    counts = chosen.sum(1).tolist()
    return [total / count if count else None for total, count in zip(totals, counts, strict=True)]


def right_and_wrong(
    rollouts: Rollouts, right_above: float = 0.0
) -> tuple[Bool[Tensor, " rollout"], Bool[Tensor, " rollout"]]:
    """Which responses are right (outcome above a number) and which are wrong; unknown: neither.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0, 1], lengths=[1] * 3, outcome=[1.0, -1.0, None])
        >>> [rows.tolist() for rows in right_and_wrong(r)]
        [[True, False, False], [False, True, False]]
    """
    above = rollouts.outcome > right_above
    return rollouts.has_outcome & above, rollouts.has_outcome & ~above


def agreements(rollouts: Rollouts, right_above: float = 0.0) -> dict[str, float]:
    """How often each process stream ranks a right response above a wrong one of its group.

        share of all pairs (i right, j wrong, one group) with mean s_i > mean s_j; equal means: 1/2

    Means are compared in float32. A stream that knows nothing of the outcome has 1/2. The share
    does not depend on how a stream spreads its scores within a response: see `filler_gap`.

    Returns:
        {stream: share}, without the streams that scored no such pair.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0, 0], process=sc.Steps([[0], [0], [0]], [[0.9], [0.2], [0.9]]),
        ...                 outcome=[1.0, 0.0, 0.0])
        >>> agreements(r)
        {'process': 0.75}

    Source: after PURE (2504.15275), which compares process and verifiable rewards.
    """
    right, wrong = right_and_wrong(rollouts, right_above)
    found = {name: _agreement(s, rollouts, right, wrong) for name, s in rollouts.streams.items()}
    return {name: value for name, value in found.items() if value is not None}


def response_scores(rollouts: Rollouts) -> dict[str, tuple[Floats, Flags]]:
    """The mean score of each response, by process stream; 0 where it has no score.

    Returns:
        {stream: (one score per response, whether it has the stream)}.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], [3, 1], sc.Steps([[0, 2], []], [[0.5, 1.0], []]))
        >>> [part.tolist() for part in response_scores(r)["process"]]
        [[0.75, 0.0], [True, False]]
    """
    found = {}
    for name, stream in process_signals(rollouts).items():
        counts = stream.counts.cpu().numpy()
        totals = reduce_rows(stream.values.double(), stream.counts, "sum").cpu().numpy()
        found[name] = (totals / np.maximum(counts, 1), counts > 0)
    return found


def _response_scores(stream: Stream) -> Float[Tensor, " rollout"]:
    """Mean score of each response in float32; 0 where the scores cancel up to rounding."""
    values = stream.values.to(torch.float64)
    mean = reduce_rows(values, stream.counts, "sum") / stream.counts.clamp(min=1)
    noise = mean.abs() <= TOLERANCE * largest_of_rows(stream.values, stream.counts).double()
    return torch.where(noise, 0.0, mean).to(torch.float32)


def _agreement(stream: Stream, rollouts: Rollouts, right: Tensor, wrong: Tensor) -> float | None:
    counts = stream.counts
    _, rank = torch.unique(_response_scores(stream), return_inverse=True)
    base = rollouts.group_index * counts.numel()
    scored = counts > 0
    rivals, _ = (base + rank)[wrong & scored].sort()
    right = right & scored
    start = torch.searchsorted(rivals, base[right])
    end = torch.searchsorted(rivals, base[right] + counts.numel())
    below = torch.searchsorted(rivals, (base + rank)[right])
    up_to = torch.searchsorted(rivals, (base + rank)[right], right=True)
    pairs = int((end - start).sum())
    won = float((below - start).sum()) + 0.5 * float((up_to - below).sum())
    return won / pairs if pairs else None
