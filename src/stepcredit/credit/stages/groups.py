"""Group operators N(x; S): a stream's values against all values of that stream in their group.

Everything runs in float64 on dense row x slot tables. Values that differ by less than 1e-9 of the
group's largest |value| count as equal, so rounding never becomes a signal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from stepcredit.data.forest import group_max, group_sum, zero_past_end_
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import MethodError

Operator = Literal["masked_norm", "center", "leave_one_out", "abs_max"]
OPERATORS: tuple[str, ...] = get_args(Operator)
Values = Float64[Tensor, "rollout slot"]
Mask = Bool[Tensor, "rollout slot"]
PerRow = Float64[Tensor, "rollout 1"]
Count = Float64[Tensor, " group"] | float
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Group:
    """Which rows form a group.

    Args:
        index: the group of each row, from 0 to count - 1.
        count: how many groups there are.
        size: rows of each group, where all groups have equally many and stand one after the other:
            a group is then one row of the table in another shape. None: not so, or not known.

    Example:
        >>> Group.of(Rollouts(["a", "b", "a"], [1, 1, 1])).index.tolist()
        [0, 1, 0]
    """

    index: Int[Tensor, " rollout"]
    count: int
    size: int | None = None

    @classmethod
    def of(cls, rollouts: Rollouts) -> Group:
        """The groups of the rollouts' rows."""
        return cls(rollouts.group_index, rollouts.num_groups, rollouts.even_group_size)

    def repeated(self, count: int) -> Group:
        """The groups of a table that has these rows `count` times, one after the other.

        Example:
            >>> Group(torch.tensor([0, 0, 1]), 2).repeated(2).index.tolist()
            [0, 0, 1, 2, 2, 3]
        """
        index = torch.cat([self.index + i * self.count for i in range(count)])
        return Group(index, self.count * count, self.size)

    def sum(self, table: Values) -> Float64[Tensor, " group"]:
        """Sum of a table's values by group; slots without a value must hold 0."""
        rows = table[:, 0] if table.shape[1] == 1 else table.sum(1)
        return group_sum(rows, self.index, self.count)

    def largest(self, table: Values) -> Float64[Tensor, " group"]:
        """Largest |value| by group; slots without a value must hold 0."""
        if self.size is not None:
            return _largest_of_rows(table.reshape(self.count, -1))
        return group_max(_largest_of_rows(table), self.index, self.count)

    def mean_row(self, table: Values) -> Float64[Tensor, "group slot"]:
        """The mean of each group's rows, slot by slot.

        Example:
            >>> pairs, x = Group(torch.tensor([0, 0]), 1, size=2), torch.tensor([[1.0], [3.0]])
            >>> pairs.mean_row(x).tolist() == Group(pairs.index, 1).mean_row(x).tolist() == [[2.0]]
            True
        """
        if self.size is not None:
            return table.view(self.count, self.size, -1).sum(1) / self.size
        rows = torch.bincount(self.index, minlength=self.count)
        return group_sum(table, self.index, self.count) / rows[:, None]

    def others(self, values: Float64[Tensor, " rollout"]) -> Float64[Tensor, " rollout"]:
        """Sum over the other rows of each row's group; exactly 0 for a row alone in its group.

        Example:
            >>> Group(torch.tensor([0, 0, 1]), 2).others(torch.tensor([1.0, 2.0, 4.0])).tolist()
            [2.0, 1.0, 0.0]
        """
        rows = group_sum(torch.ones_like(values), self.index, self.count)[self.index]
        total = group_sum(values, self.index, self.count)[self.index]
        return torch.where(rows == 1, 0.0, total - values)

    def count_where(self, chosen: Bool[Tensor, " rollout"]) -> Int[Tensor, " group"]:
        """How many rows of each group are chosen.

        Example:
            >>> Group(torch.tensor([0, 0, 1]), 2).count_where(torch.tensor([True, True, False]))
            tensor([2, 0])
        """
        return group_sum(chosen.to(torch.int64), self.index, self.count)

    def to_rows(self, per_group: Float64[Tensor, " group"]) -> Float64[Tensor, "rollout 1"]:
        """One number per group, repeated for each of the group's rows."""
        return per_group.index_select(0, self.index).unsqueeze(1)


def _largest_of_rows(table: Values) -> Float64[Tensor, " row"]:
    return torch.maximum(table.amax(1), -table.amin(1))


@dataclass(frozen=True, eq=False)
class Standardized:
    """N(x; S) of a table.

    Args:
        values: (rollout, slot), 0 where there is no value.
        largest: the largest |N| of each group.
    """

    values: Values
    largest: Float64[Tensor, " group"]

    @classmethod
    def of_zeros(cls, zeros: Values, group: Group) -> Standardized:
        """N of a table of zeros, which is the table itself."""
        return cls(zeros, zeros.new_zeros(group.count))

    def cut(self, rows: slice, groups: slice) -> Standardized:
        """Consecutive groups of it: views, nothing is copied."""
        return Standardized(self.values[rows], self.largest[groups])

    def parts(self, count: int) -> list[Standardized]:
        """The parts of a table of `repeated` groups, which holds `count` tables of one size."""
        tables = zip(self.values.chunk(count), self.largest.chunk(count), strict=True)
        return [Standardized(*part) for part in tables]


def standardize(
    values: Values,
    mask: Mask,
    group: Group,
    operator: str = "masked_norm",
    *,
    ddof: int = 1,
    eps: float = 1e-6,
    min_std: float = 0.0,
) -> Values:
    """N(x; S) of every value, S all values of its group.

        masked_norm    (x - mean S) / (max(std S, min_std) + eps)
        center         x - mean S
        leave_one_out  x - mean of the other values of S
        abs_max        x / max |S|

    Args:
        values: (rollout, slot), 0 where `mask` is False.
        mask: which slots hold a value.
        group: which rows form a group.
        operator: one of the four above.
        ddof: the std's divisor is |S| - ddof; 0 or 1.
        eps: added to the std.
        min_std: the least std that masked_norm divides by, in the values' unit; 0: no such limit.

    Returns:
        (rollout, slot) float64, 0 off the mask. A set S of one value, or of equal values, gives
        exactly 0 under the first three; a set of zeros gives 0 under abs_max.

    Raises:
        MethodError: an unknown operator.

    Example:
        >>> x = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
        >>> pair = Group(torch.tensor([0, 0]), 1)
        >>> standardize(x, torch.ones_like(x, dtype=torch.bool), pair, "center").tolist()
        [[0.5], [-0.5]]

    Source: PASS (2606.29296) section 5.2, GRPO (2402.03300), RLOO (2402.14740). Differs: the
        papers do not state the std's ddof and eps; these are those of verl's GRPO. `min_std` is
        added here.
    """
    normed = standardized(values, mask, group, operator, ddof=ddof, eps=eps, min_std=min_std)
    return normed.values


def standardized(
    values: Values,
    mask: Mask | None,
    group: Group,
    operator: str,
    *,
    ddof: int,
    eps: float,
    min_std: float = 0.0,
    counts: Int[Tensor, " rollout"] | None = None,
) -> Standardized:
    """`standardize`, with the largest |N| of each group.

    Args:
        values, group, operator, ddof, eps, min_std: as for `standardize`.
        mask: as for `standardize`; None: every slot holds a value.
        counts: values per row, where they are the row's first slots; it spares passes over `mask`.
    """
    rule = _RULES.get(operator)
    if rule is None:
        raise MethodError(f"unknown operator {operator!r}: expected {', '.join(OPERATORS)}")
    if operator == "abs_max":
        return _abs_max(values, group)
    count = _values_of_groups(values, mask, counts, group)
    mean = group.sum(values) / _at_least_one(count)
    deviation = _on_mask_(values - group.to_rows(mean), mask, counts)
    spread = group.largest(deviation)
    # |mean| <= largest |x| <= |mean| + spread, and all three are one where the spread is this small
    constant = spread <= TOLERANCE * mean.abs_().add_(spread)
    scale = rule(deviation, count, group, _Divisor(ddof, eps, min_std)).masked_fill_(constant, 0.0)
    return Standardized(deviation.mul_(group.to_rows(scale)), spread * scale)


def _abs_max(values: Values, group: Group) -> Standardized:
    """Divided, not multiplied by 1/max: then scaling by a power of two changes no bit."""
    largest = group.largest(values)
    unit = torch.where(largest > 0, largest, 1.0)
    return Standardized(values / group.to_rows(unit), largest / unit)


def _on_mask_(table: Values, mask: Mask | None, counts: Tensor | None) -> Values:
    """The table itself, with 0 written off the mask."""
    if mask is None:
        return table
    return table.mul_(mask) if counts is None else zero_past_end_(table, counts, mask)


def _values_of_groups(
    values: Values, mask: Mask | None, counts: Tensor | None, group: Group
) -> Count:
    if mask is None and group.size is not None:
        return float(group.size * values.shape[1])
    if counts is None:
        counts = values.new_full((len(values),), values.shape[1]) if mask is None else mask.sum(1)
    return group.sum(counts.unsqueeze(1)).to(torch.float64)


def _at_least_one(count: Count) -> Count:
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1.0)


@dataclass(frozen=True)
class _Divisor:
    """max(std with divisor n - ddof, min_std) + eps, which masked_norm divides by."""

    ddof: int
    eps: float
    min_std: float


def _inverse_std(deviation: Values, count: Count, group: Group, divisor: _Divisor) -> Tensor:
    variance = group.sum(deviation * deviation) / _at_least_one(count - divisor.ddof)
    std = variance.sqrt_()
    scale = (std.clamp_(min=divisor.min_std) if divisor.min_std else std).add_(divisor.eps)
    if divisor.eps > 0:
        return scale.reciprocal_()
    return torch.where(scale > 0, scale.reciprocal(), 0.0)


def _one(deviation: Values, count: Count, group: Group, divisor: _Divisor) -> Tensor:
    return deviation.new_ones(group.count)


def _others(deviation: Values, count: Count, group: Group, divisor: _Divisor) -> Tensor:
    """x - mean of the others = n / (n - 1) (x - mean of all)."""
    return deviation.new_ones(group.count) * (count / _at_least_one(count - 1))


_RULES: dict[str, Callable[[Values, Count, Group, _Divisor], Tensor]] = {
    "masked_norm": _inverse_std,
    "center": _one,
    "leave_one_out": _others,
    "abs_max": _one,
}


def weighted_mean(
    values: Values, weight: Values, group: Group
) -> tuple[Float64[Tensor, " group"], Float64[Tensor, " group"]]:
    """Mean of a group's values under weights of at least 0, and the weights' sum.

    A group whose weights are all 0 has mean 0.

    Example:
        >>> one = Group(torch.tensor([0]), 1)
        >>> x, w = torch.tensor([[1.0, 4.0]]).double(), torch.tensor([[2.0, 1.0]]).double()
        >>> [t.tolist() for t in weighted_mean(x, w, one)]
        [[2.0], [3.0]]
    """
    total = group.sum(weight)
    return group.sum(values * weight) / torch.where(total > 0, total, 1.0), total


def weighted_std(values: Values, weight: Values, group: Group) -> Float64[Tensor, " group"]:
    """Population std of a group's values under weights; exactly 0 for equal values.

    Deviations are divided by the largest one before they are squared, so no square overflows.

    Example:
        >>> one = Group(torch.tensor([0]), 1)
        >>> x = torch.tensor([[1.0, 3.0]]).double()
        >>> weighted_std(x, torch.ones_like(x), one).tolist()
        [1.0]
    """
    mean, total = weighted_mean(values, weight, group)
    deviation = torch.where(weight > 0, values - group.to_rows(mean), 0.0)
    largest = group.largest(torch.where(weight > 0, values, 0.0))
    size = group.largest(deviation)
    unit = torch.where(size > 0, size, 1.0)
    share = deviation / group.to_rows(unit)
    variance = group.sum(share.square() * weight) / torch.where(total > 0, total, 1.0)
    return torch.where(size <= TOLERANCE * largest, 0.0, unit * variance.sqrt())


def std_ratio(values: Values, other: Values, weight: Values, group: Group) -> PerRow:
    """The std of a group's values over that of other values, under weights; 1 where either is 0.

    Example:
        >>> one, weight = Group(torch.tensor([0]), 1), torch.ones(1, 2).double()
        >>> x = torch.tensor([[1.0, 3.0]]).double()
        >>> std_ratio(x, x / 2, weight, one).item(), std_ratio(x, 0 * x, weight, one).item()
        (2.0, 1.0)
    """
    over, under = weighted_std(values, weight, group), weighted_std(other, weight, group)
    ratio = torch.where((over > 0) & (under > 0), over / torch.where(under > 0, under, 1.0), 1.0)
    return group.to_rows(ratio)


def is_rounding(
    size: Float64[Tensor, "*shape"], scale: Float64[Tensor, "*shape"]
) -> Bool[Tensor, "*shape"]:
    """Whether a size is rounding noise: at most 1e-9 of a finite scale.

    Example:
        >>> is_rounding(torch.tensor([1e-10, 1e-10]), torch.tensor([1.0, torch.inf])).tolist()
        [True, False]
    """
    small = size <= TOLERANCE * scale
    return small.logical_and_(scale.isfinite()) if bool(small.any()) else small
