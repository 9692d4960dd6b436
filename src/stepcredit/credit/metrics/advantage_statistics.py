"""Statistics of advantages over tokens, responses and groups, computed from chunks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.metrics.token_sums import TokenSums
from stepcredit.credit.stages.groups import TOLERANCE
from stepcredit.data.advantages import Advantages
from stepcredit.data.forest import (
    all_true,
    first_above,
    group_max,
    group_sum,
    largest_of_rows,
    offsets,
    reduce_rows,
    row_index,
)
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream

PerRow = Float64[Tensor, " rollout"]


def advantage_shares(changes: Mapping[str, TokenSums]) -> dict[str, float]:
    """Each stream's share of |advantage|.

        share_n = mean |A - A without n| / (the same, added up over all streams)

    The means are over trained tokens. If a method is linear in its streams, A - A without n is the
    part of stream n. If it is not (a batch-wide norm, or chunks that follow the stream), it is the
    change that the stream's absence makes.

    Args:
        changes: by stream, A - A without it: the advantages before clipping, minus those with that
            stream's values at 0.

    Returns:
        {stream: share}, which add up to 1; empty if no stream changes any advantage.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> quiet = sc.Rollouts(group=[0, 0], lengths=[1, 1], outcome=[0.0, 0.0])
        >>> change = TokenSums.of_change(sc.GRPO()(r), sc.GRPO()(quiet))
        >>> advantage_shares({"outcome": change})
        {'outcome': 1.0}
    """
    size = {name: change.mean_size for name, change in changes.items()}
    total = sum(size.values())
    return {name: part / total for name, part in size.items()} if total > 0 else {}


def response_means(advantages: Advantages) -> PerRow:
    """Mean advantage over each response's tokens.

    Example:
        >>> a = Advantages(torch.tensor([1.0, 4.0]), torch.tensor([2, 1]), torch.tensor([2]),
        ...                torch.tensor([3]))
        >>> response_means(a).tolist()
        [2.0]
    """
    values = advantages.values.to(torch.float64)
    totals = values if advantages.sizes is None else values * advantages.sizes.double()
    return reduce_rows(totals, advantages.chunks, "sum") / advantages.lengths


def read_at(
    advantages: Advantages, rows: Int[Tensor, " place"], tokens: Int[Tensor, " place"]
) -> Float64[Tensor, " place"]:
    """Advantages at some tokens, each by its rollout and its place among the trained tokens.

    Example:
        >>> a = Advantages(torch.tensor([1.0, 4.0]), torch.tensor([2, 1]), torch.tensor([2]),
        ...                torch.tensor([3]))
        >>> read_at(a, torch.tensor([0, 0]), torch.tensor([1, 2])).tolist()
        [1.0, 4.0]
    """
    place = offsets(advantages.lengths)[rows] + tokens
    if advantages.sizes is not None:
        place = first_above(advantages.sizes.cumsum(0), place)
    return advantages.values[place].to(torch.float64)


def read_at_steps(advantages: Advantages, ends: Stream) -> Float64[Tensor, " step"]:
    """The advantage of each step's last token, packed.

    Args:
        advantages: of the rollouts.
        ends: the steps' last tokens, as `step_boundaries` gives them.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])
        >>> ends = Stream._of(values=torch.tensor([0, 0, 1]), counts=torch.tensor([1, 2]))
        >>> read_at_steps(sc.RLOO()(r), ends).tolist()
        [1.0, -1.0, -1.0]
    """
    return read_at(advantages, row_index(ends.counts), ends.values)


def first_token_advantages(advantages: Advantages) -> PerRow:
    """The advantage of each response's first token.

    Example:
        >>> a = Advantages(torch.tensor([1.0, 4.0]), torch.tensor([2, 1]), torch.tensor([2]),
        ...                torch.tensor([3]))
        >>> first_token_advantages(a).tolist()
        [1.0]
    """
    first = offsets(advantages.chunks)[:-1]
    if advantages.sizes is None or all_true(advantages.sizes[first] > 0):
        return advantages.values[first].to(torch.float64)
    rows = torch.arange(advantages.lengths.numel(), device=advantages.values.device)
    return read_at(advantages, rows, torch.zeros_like(rows))


def path_density(advantages: Advantages) -> float:
    """Mean path score: the average over responses of the first token's advantage.

        mean over responses of A_1,   for PASS  A_1 = S = G_1 / K^k

    S is PASS's average value density: the sum of the values of all K chunks over K^k. In every
    method the first token's advantage is the return over the whole response (of outcome methods the
    outcome's advantage), so it is read there; `match_std` and `recenter` change it as they change
    any token's. It is in units of an advantage. If it rises while the outcome does not, the policy
    is rewarded for something else.

    Args:
        advantages: before clipping.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0], process=sc.Steps([[0, 1]], [[4.0, 1.0]]))
        >>> path_density(sc.PASS(k=1.0, operator="abs_max")(r))
        0.625

    Source: PASS (2606.29296) section 5, the path score.
    """
    return float(first_token_advantages(advantages).mean())


def length_correlation(advantages: Advantages, rollouts: Rollouts) -> float | None:
    """Correlation, within groups, of a response's mean advantage with its length.

        a_i = mean over i's tokens of A - its group's mean,  l_i = L_i - its group's mean
        r = (sum of a l) / sqrt((sum of a^2) (sum of l^2)),  sums over all responses

    Group means are over responses. Above 0, longer responses get more advantage than the others of
    their group.

    Returns:
        r in [-1, 1]; None if the advantages, or the lengths, are equal within every group.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[5, 2], outcome=[1.0, 0.0])
        >>> round(length_correlation(sc.GRPO()(r), r), 6)
        1.0
    """
    group, long = rollouts.group_index, rollouts.lengths.to(torch.float64)
    return group_correlation(response_means(advantages), long, group, rollouts.num_groups)


def value_length_correlation(
    values: Float[Tensor, " rollout"], known: Bool[Tensor, " rollout"], rollouts: Rollouts
) -> tuple[float | None, int]:
    """Correlation with length, within groups, of one number per response where it is known.

    Args:
        values: one number per response, such as its outcome or its mean score.
        known: which of them count.
        rollouts: the batch.

    Returns:
        As `length_correlation`, and how many numbers count.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0, 0], lengths=[5, 2, 9], outcome=[1.0, 0.0, 0.0])
        >>> value_length_correlation(r.outcome, torch.tensor([True, True, False]), r)
        (1.0, 2)
    """
    group, lengths = rollouts.group_index[known], rollouts.lengths[known].to(torch.float64)
    found = group_correlation(values[known].to(torch.float64), lengths, group, rollouts.num_groups)
    return found, int(known.sum())


def group_correlation(
    first: PerRow, second: PerRow, group: Int[Tensor, " rollout"], num_groups: int
) -> float | None:
    """Correlation, within groups, of two numbers per response.

        x_i, y_i = the two numbers, each minus its group's mean
        r = (sum of x y) / sqrt((sum of x^2) (sum of y^2)),  sums over all responses

    Args:
        first, second: one number per response.
        group: the group of each response, from 0 to num_groups - 1.
        num_groups: how many groups there are.

    Returns:
        r in [-1, 1]; None if either number is equal within every group.

    Example:
        >>> x, y = torch.tensor([1.0, 2.0, 9.0]).double(), torch.tensor([5.0, 3.0, 0.0]).double()
        >>> round(group_correlation(x, y, torch.tensor([0, 0, 1]), 2), 6)
        -1.0
    """
    x, y = (_deviation(values, group, num_groups) for values in (first, second))
    size = float(x.square().sum().sqrt()) * float(y.square().sum().sqrt())
    return None if size == 0 else max(-1.0, min(1.0, float((x * y).sum()) / size))


def _deviation(values: PerRow, group: Int[Tensor, " rollout"], count: int) -> PerRow:
    """Values minus their group's mean; 0 where that is rounding (1e-9 of the largest value)."""
    if not values.numel():
        return values
    size = group_sum(torch.ones_like(values), group, count)
    off = values - (group_sum(values, group, count) / size)[group]
    return torch.where(off.abs() <= TOLERANCE * values.abs().max(), 0.0, off)


def zero_group_share(advantages: Advantages, rollouts: Rollouts) -> float:
    """Share of groups in which the advantage of every token is 0: their prompts train nothing.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0, 1, 1], lengths=[1] * 4, outcome=[1.0, 0.0, 1.0, 1.0])
        >>> zero_group_share(sc.GRPO()(r), r)
        0.5
    """
    values = advantages.values
    if advantages.sizes is not None:
        values = values * advantages.sizes.float()  # 0 where a value stands for no token
    by_row = largest_of_rows(values, advantages.chunks)
    by_group = group_max(by_row, rollouts.group_index, rollouts.num_groups)
    return float((by_group == 0).to(torch.float64).mean())


def beyond_share(advantages: Advantages, limit: float) -> float:
    """Share of trained tokens with |advantage| above a limit.

    Example:
        >>> one = Advantages(torch.tensor([1.0, -3.0]), None, torch.tensor([2]), torch.tensor([2]))
        >>> beyond_share(one, 2.0)
        0.5
    """
    beyond = advantages.values.to(torch.float64).abs() > limit
    return TokenSums.of(beyond.to(torch.float64), advantages.sizes).mean_size


def gated_rows(estimator: Estimator, rollouts: Rollouts) -> Bool[Tensor, " rollout"]:
    """Responses that the format gate applies to; none if the estimator has no gate or it is off.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[1, 1], format_ok=[True, False])
        >>> gated_rows(sc.PASS(), r).tolist(), gated_rows(sc.GRPO(), r).tolist()
        ([False, True], [False, False])
    """
    return ~rollouts.format_ok & estimator.reads.gate
