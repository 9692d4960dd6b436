"""Measures of channel contamination: what each stream adds to the advantages of a method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from stepcredit.audit.step_credit import credited_places, read_streams, step_credit
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.methods.grpo_process import ProcessGRPO
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.credit.metrics.leave_one_out import (
    Silence,
    advantages_of_versions,
    silence_of,
    without_format,
    without_outcome,
)
from stepcredit.credit.metrics.token_sums import TokenSums
from stepcredit.credit.stages.groups import TOLERANCE
from stepcredit.data.advantages import Advantages
from stepcredit.data.forest import row_index
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps, Stream

EQUAL_CREDIT = 1e-6
"""Credits that differ by less than this part of the batch's largest are equal: they are float32."""
PIECE = 262_144
"""Values that are ranked at once: their tables stay small."""
LARGER_THAN_ANY = np.int64(1 << 31)
"""A credit in units of `EQUAL_CREDIT` of the largest has a size of at most a million."""
Floats = NDArray[np.float64]
Silenced = tuple[str, ...]
"""The streams whose values are 0 in a version of the rollouts."""
NOTHING: Silenced = ()
OUTCOME: Silenced = ("outcome",)
SCALARS: Silenced = ("outcome", "format")


def variance_shares(changes: Mapping[str, TokenSums]) -> dict[str, float]:
    """Each stream's share of the variance that the streams give to the advantages.

        share_n = Var(A - A without n) / (the same, added up over all streams)

    The variance is over trained tokens, before clipping.

    Args:
        changes: by stream, A - A without it, as `LeaveOneOut` gives them.

    Returns:
        {stream: share}, which add up to 1; empty if no stream changes any advantage.

    Example:
        >>> one = TokenSums.of(torch.tensor([1.0, -1.0])), TokenSums.of(torch.tensor([3.0, -3.0]))
        >>> variance_shares({"process": one[0], "outcome": one[1]})
        {'process': 0.1, 'outcome': 0.9}
    """
    variances = {name: change.std**2 for name, change in changes.items()}
    total = sum(variances.values())
    return {name: part / total for name, part in variances.items()} if total > 0 else {}


@dataclass(frozen=True)
class PooledWeights:
    """What one standard deviation of each stream is worth when they are standardized together.

    Args:
        process: of the process stream; 1 where it is standardized apart.
        outcome: of the outcome; 1 where it is standardized apart.
        groups: how many groups they are the mean of.
    """

    process: float
    outcome: float
    groups: int


def pooled_weights(rollouts: Rollouts, stream: Stream) -> PooledWeights | None:
    """What one standard deviation of a stream, and of the outcome, weighs in their pooled score.

        weight of x = mean over groups of  std(x) / std(s + r_out + r_fmt)

    The stds are population stds: of s and of the sum over the group's scores, of r_out over its
    scored responses. Fusion, which standardizes each stream apart, gives 1 to each.

    Args:
        rollouts: the batch.
        stream: one of its process streams, in its own unit.

    Returns:
        None where no group has both a score and an outcome that differ.

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps([[0, 1], [0, 1]], [[0.3, 0.1], [0.3, 0.1]])
        >>> r = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> found = pooled_weights(r, r.streams["process"])
        >>> round(found.process, 3), round(found.outcome, 3)
        (0.196, 0.981)

    Source: PASS (2606.29296) section 4.1, channel contamination.
    """
    row = row_index(stream.counts).numpy()
    group, scored = rollouts.group_index.numpy(), (stream.counts > 0).numpy()
    outcome, format = (x.to(torch.float64).numpy() for x in (rollouts.outcome, rollouts.format))
    scores, groups = stream.values.to(torch.float64).numpy(), rollouts.num_groups
    own = _group_stds(scores, group[row], groups)
    pool = _group_stds(scores + (outcome + format)[row], group[row], groups)
    known = scored & rollouts.has_outcome.numpy()
    outcomes = _group_stds(outcome[known], group[known], groups)
    kept = (own > 0) & (outcomes > 0) & (pool > 0)
    if not kept.any():
        return None
    process, result = (float((x[kept] / pool[kept]).mean()) for x in (own, outcomes))
    return PooledWeights(process, result, int(kept.sum()))


def _group_stds(values: Floats, group: NDArray[np.int64], groups: int) -> Floats:
    """Population std of each group's values; 0 where it is rounding, or there is no value."""
    count = np.bincount(group, minlength=groups).clip(min=1)
    mean = np.bincount(group, values, groups) / count
    std = np.sqrt(np.bincount(group, (values - mean[group]) ** 2, groups) / count)
    largest = float(np.abs(values).max()) if values.size else 0.0
    return np.where(std > TOLERANCE * largest, std, 0.0)


@dataclass(frozen=True, eq=False)
class OrderAgreement:
    """How far two credits put the steps of each response into the same order.

    Args:
        rows: the responses of at least two steps whose credits differ, under both.
        correlations: the rank correlation of each, from -1 to 1.
    """

    rows: NDArray[np.int64]
    correlations: Floats


def order_agreement(first: Floats, second: Floats, counts: NDArray[np.int64]) -> OrderAgreement:
    """Rank correlation (Spearman's) of two credits over the steps of each response.

        corr(rank of first, rank of second),  equal credits share their mean rank

    Args:
        first, second: credit per step, packed, in units of an advantage.
        counts: steps per response.

    Returns:
        The correlation of each response that has one.

    Example:
        >>> found = order_agreement(np.array([3.0, 2.0, 1.0, 5.0]), np.array([1.0, 2.0, 3.0, 5.0]),
        ...                         np.array([3, 1]))
        >>> found.rows.tolist(), found.correlations.tolist()
        ([0], [-1.0])
    """
    found = [_piece_correlations(*piece) for piece in _pieces_of_rows(first, second, counts)]
    correlations = np.concatenate([np.zeros(0), *found])
    rows = np.flatnonzero(~np.isnan(correlations))
    return OrderAgreement(rows, correlations[rows])


def _pieces_of_rows(
    first: Floats, second: Floats, counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Consecutive rows of about `PIECE` values: both credits as whole numbers, values per row."""
    wholes = [_as_wholes(values) for values in (first, second)]
    starts = np.concatenate([[0], np.cumsum(counts)])
    row = 0
    while row < len(counts):
        last = int(np.searchsorted(starts, starts[row] + PIECE, side="right")) - 1
        last = max(last, row + 1)
        span = slice(starts[row], starts[last])
        yield wholes[0][span], wholes[1][span], counts[row:last]
        row = last


def _as_wholes(values: Floats) -> NDArray[np.int64]:
    """Values in units of `EQUAL_CREDIT` of the largest."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    return np.rint(values / (largest * EQUAL_CREDIT if largest else 1.0)).astype(np.int64)


def _piece_correlations(
    first: NDArray[np.int64], second: NDArray[np.int64], counts: NDArray[np.int64]
) -> Floats:
    """Spearman's correlation of each row; NaN for a row without one."""
    filled = np.arange(max(1, int(counts.max()))) < counts[:, None]
    a, b = (_centred_ranks(values, filled, counts) for values in (first, second))
    products, *squares = (np.einsum("ij,ij->i", *pair) for pair in ((a, b), (a, a), (b, b)))
    size = squares[0] * squares[1]
    return np.divide(products, np.sqrt(size), out=np.full(len(size), np.nan), where=size > 0)


def _centred_ranks(
    values: NDArray[np.int64], filled: NDArray[np.bool_], counts: NDArray[np.int64]
) -> Floats:
    """Twice the ranks within each row, less their mean, 0 past its end; equal values share a rank.

    A value and its place are sorted as one number, which is much faster than sorting places.
    """
    width = filled.shape[1]
    place, bits = np.arange(width), width.bit_length()
    table = np.full(filled.shape, LARGER_THAN_ANY)
    table[filled] = values
    table = (table << bits) | place
    table.sort(1)
    order, ordered = table & ((1 << bits) - 1), table >> bits
    begins = np.ones_like(filled)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=begins[:, 1:])
    ends = np.ones_like(filled)
    ends[:, :-1] = begins[:, 1:]
    first = np.maximum.accumulate(np.where(begins, place, 0), 1)
    last = np.where(ends, place, width - 1)[:, ::-1]
    last = np.minimum.accumulate(last, 1)[:, ::-1]
    ranks = np.empty(table.shape)
    np.put_along_axis(ranks, order, first + last, 1)
    ranks -= (counts - 1)[:, None]
    return np.where(filled, ranks, 0.0)


@dataclass(frozen=True, eq=False)
class Contamination:
    """What one method makes of the process stream beside the outcome.

    Args:
        shares: `variance_shares` of its advantages.
        order: `order_agreement` of its step credit with and without the outcome.
    """

    shares: Mapping[str, float]
    order: OrderAgreement


def contamination_of(
    method: Estimator, rollouts: Rollouts, whole: Advantages | None = None
) -> Contamination:
    """Shares of variance by stream, and the order of steps with and without the outcome.

    Args:
        method: it reads a process stream and the outcome; its clip is not applied.
        rollouts: the batch.
        whole: the method's advantages of the rollouts, if they are known; None: they are computed.
            Those of a method with a clip are computed anew.

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps([[0, 1], [0, 1]], [[0.9, 0.1], [0.2, 0.2]])
        >>> r = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> found = contamination_of(sc.PASS(scope="process"), r)
        >>> sorted(found.shares), found.order.correlations.tolist()
        (['outcome', 'process'], [1.0, 1.0])
    """
    changes = _silenced(method, rollouts)
    if whole is None or method.clip is not None:
        changes[NOTHING] = _unchanged
    quiet = advantages_of_versions(replace(method, clip=None), rollouts, changes)
    whole = quiet.pop(NOTHING, whole)
    assert whole is not None
    places = credited_places(rollouts)
    first, second = (step_credit(each, places).numpy() for each in (whole, quiet[OUTCOME]))
    return Contamination(
        variance_shares(stream_changes(method, rollouts, whole, quiet)),
        order_agreement(first, second, places.counts.numpy()),
    )


def _unchanged(rollouts: Rollouts) -> Rollouts:
    return rollouts


def _without_scalars(rollouts: Rollouts) -> Rollouts:
    return without_format(without_outcome(rollouts))


def _silenced(method: Estimator, rollouts: Rollouts) -> dict[Silenced, Silence]:
    """The versions of the rollouts that tell what each stream adds."""
    found: dict[Silenced, Silence] = {OUTCOME: without_outcome}
    if not isinstance(method, PASS):
        return {(name,): silence for name, silence in silence_of(rollouts).items()} | found
    if bool(rollouts.has_format.any()):
        found[SCALARS] = _without_scalars
    return found


def stream_changes(
    method: Estimator,
    rollouts: Rollouts,
    whole: Advantages,
    quiet: Mapping[Silenced, Advantages],
) -> Mapping[str, TokenSums]:
    """What each stream adds to the advantages.

        A - A with the stream's values at 0
        PASS:  process  A with outcome and format at 0

    PASS is a sum of a process part and a scalar part. Without its process stream it would have
    other chunks, and the outcome's part would change with them; so the process part is taken alone.

    Args:
        method: the method, without a clip.
        rollouts: the batch.
        whole: its advantages.
        quiet: its advantages of the versions in which streams are at 0.

    Returns:
        {stream: sums}; several process streams of PASS are one, named by all of them.
    """
    if not isinstance(method, PASS):
        return {name: TokenSums.of_change(whole, each) for (name,), each in quiet.items()}
    changes = {"outcome": TokenSums.of_change(whole, quiet[OUTCOME])}
    process = quiet.get(SCALARS, quiet[OUTCOME])
    if SCALARS in quiet:
        changes["format"] = TokenSums.of_change(quiet[OUTCOME], process)
    name = ", ".join(read_streams(method, rollouts))
    return {name: TokenSums.of(process.values, process.sizes), **changes}


def pooled_and_fused(name: str, stream: Stream) -> dict[str, Estimator]:
    """The same return-to-go over streams that are standardized together, and over ones apart.

    Args:
        name: of the process stream; it, outcome and format have weight 1.
        stream: the stream, whose scores are the chunks.

    Example:
        >>> pooled_and_fused("prm", Steps([[0]], [[1.0]]))["apart"].chunks
        'steps'
    """
    weights = {name: 1.0, "outcome": 1.0, "format": 1.0}
    chunks = "steps" if isinstance(stream, Steps) else "tokens"
    return {
        "together": ProcessGRPO(pooling="sum", weights=weights),
        "apart": PASS(weights=weights, k=0.0, chunks=chunks, gate=False),
    }
