"""Index arithmetic on the forest group > response > chunk > token.

Batches are stored *packed*: all values of all rows in one 1-D tensor, with `counts` values per row.
They are summed *dense*: row x slot, zero past a row's end. A sum therefore never crosses from one
response into the next, and large values in one response cannot lose precision in another. All
functions run on the device of their tensors and hold no state; only those whose names end in `_`
write into a tensor that they are given.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Packed = Shaped[Tensor, " value"]
Dense = Shaped[Tensor, "row slot"]
ROW_COPY_ABOVE = 256
"""Values per row above which one copy per row is the cheaper way (measured on a CPU)."""


def offsets(counts: Int[Tensor, " row"]) -> Int[Tensor, " row+1"]:
    """Where each row of a packed tensor begins, and where the last one ends.

    Example:
        >>> offsets(torch.tensor([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def row_index(counts: Int[Tensor, " row"]) -> Int[Tensor, " value"]:
    """The row that each packed value belongs to.

    Example:
        >>> row_index(torch.tensor([2, 0, 1])).tolist()
        [0, 0, 2]
    """
    return broadcast(torch.arange(counts.numel(), device=counts.device), counts)


def previous_values(values: Packed, counts: Int[Tensor, " row"], first: float) -> Packed:
    """The value before each packed value in its row; `first` for the first value of each row.

    Example:
        >>> previous_values(torch.tensor([1, 4, 2]), torch.tensor([2, 1]), -1).tolist()
        [-1, 1, -1]
    """
    previous = values.new_empty(values.numel() + 1)
    previous[1:] = values
    previous[offsets(counts)[:-1]] = first
    return previous[:-1]


def last_values(values: Packed, counts: Int[Tensor, " row"], empty: float) -> Packed:
    """The last value of each row; `empty` for a row without values.

    Example:
        >>> last_values(torch.tensor([1, 4, 2]), torch.tensor([2, 0, 1]), -1).tolist()
        [4, -1, 2]
    """
    if not values.numel():
        return values.new_full(counts.shape, empty)
    last = (counts.cumsum(0) - 1).clamp_(min=0)
    return values.index_select(0, last).masked_fill_(counts == 0, empty)


def slot_mask(counts: Int[Tensor, " row"], width: int) -> Bool[Tensor, "row slot"]:
    """True on the first `counts[i]` slots of row i.

    Example:
        >>> slot_mask(torch.tensor([2, 0]), 3).tolist()
        [[True, True, False], [False, False, False]]
    """
    if in_numpy(counts):
        filled = counts.numpy().astype(np.int32)[:, None]
        return torch.from_numpy(np.arange(width, dtype=np.int32) < filled)
    slots = torch.arange(width, dtype=torch.int32, device=counts.device)
    return slots < counts.to(torch.int32)[:, None]


def width_of(counts: Int[Tensor, " row"]) -> int:
    """The largest count, at least 1: the width of the dense form.

    Example:
        >>> width_of(torch.tensor([2, 5]))
        5
    """
    return max(1, int(counts.max())) if counts.numel() else 1


def to_dense(
    values: Packed,
    counts: Int[Tensor, " row"],
    *,
    width: int | None = None,
    fill: float | Shaped[Tensor, "row 1"] = 0,
    mask: Bool[Tensor, "row slot"] | None = None,
    dtype: torch.dtype | None = None,
) -> Dense:
    """Packed rows as one row x slot table, `fill` past each row's end.

    Args:
        values: packed values.
        counts: values per row.
        width: columns of the table; None: the largest count.
        fill: what stands past each row's end: one value, or one per row.
        mask: `slot_mask(counts, width)`, if it has been computed already.
        dtype: of the table; None: that of the values.

    Example:
        >>> to_dense(torch.tensor([1, 2, 3]), torch.tensor([1, 2]), fill=9).tolist()
        [[1, 9], [2, 3]]
    """
    width = width_of(counts) if width is None else width
    rows, dtype = counts.numel(), dtype or values.dtype
    if values.numel() == rows * width:
        return values.view(rows, width).to(dtype)
    dense = values.new_empty((rows, width), dtype=dtype)
    in_memory = in_numpy(values) and in_numpy(dense)
    if isinstance(fill, Tensor):
        dense.copy_(fill)
    elif in_memory and values.numel() > ROW_COPY_ABOVE * rows:
        return fill_rows_(dense, values, counts, fill)
    else:
        dense.fill_(fill)
    mask = slot_mask(counts, width) if mask is None else mask
    if not in_memory:
        return dense.masked_scatter_(mask, values.to(dtype))
    dense.numpy()[mask.numpy()] = values.numpy()
    return dense


def in_numpy(values: Tensor) -> bool:
    """Whether NumPy can read the tensor's memory.

    Example:
        >>> in_numpy(torch.ones(1)), in_numpy(torch.ones(1, dtype=torch.bfloat16))
        (True, False)
    """
    return values.device.type == "cpu" and values.dtype != torch.bfloat16


def fill_rows_(table: Dense, values: Packed, counts: Int[Tensor, " row"], fill: float) -> Dense:
    """Write packed rows into a table, and `fill` past each row's end, by one copy per row.

    Example:
        >>> values, counts = torch.tensor([1, 2, 3]), torch.tensor([1, 2])
        >>> fill_rows_(torch.empty(2, 3), values, counts, 0.0).tolist()
        [[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]]
    """
    source, start = values.numpy(), 0
    for row, count in zip(table.numpy(), counts.tolist(), strict=True):
        row[:count] = source[start : start + count]
        row[count:] = fill
        start += count
    return table


def all_true(flags: Bool[Tensor, "*shape"]) -> bool:
    """Whether all flags are True (on a CPU NumPy stops at the first that is not).

    Example:
        >>> all_true(torch.tensor([True, True])), all_true(torch.tensor([[True], [False]]))
        (True, False)
    """
    return bool(flags.numpy().all() if in_numpy(flags) else flags.all())


def any_true(flags: Bool[Tensor, "*shape"]) -> bool:
    """Whether any flag is True (on a CPU NumPy stops at the first one).

    Example:
        >>> any_true(torch.tensor([False, True])), any_true(torch.tensor([[False], [False]]))
        (True, False)
    """
    return bool(flags.numpy().any() if in_numpy(flags) else flags.any())


def zero_past_end_(
    table: Dense, counts: Int[Tensor, " row"], mask: Bool[Tensor, "row slot"]
) -> Dense:
    """Write 0 past each row's end, into the table itself.

    Args:
        table: the table; its memory is changed.
        counts: values per row.
        mask: `slot_mask(counts, width)`, in any shape.

    Example:
        >>> counts = torch.tensor([1, 2])
        >>> zero_past_end_(torch.ones(2, 2), counts, slot_mask(counts, 2)).tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    if not in_numpy(table):
        return table.mul_(mask.view(table.shape))
    if copies_rows(table):
        for row, count in zip(table.numpy(), counts.tolist(), strict=True):
            row[count:] = 0
    else:
        held = table.numpy()
        np.multiply(held, mask.view(table.shape).numpy(), out=held)
    return table


def to_packed(
    dense: Dense,
    counts: Int[Tensor, " row"],
    dtype: torch.dtype | None = None,
    *,
    from_end: bool = False,
) -> Packed:
    """The inverse of `to_dense`: the first `counts[i]` slots of every row, one after the other.

    Args:
        dense: the table.
        counts: values per row.
        dtype: of the packed values; None: that of the table.
        from_end: the table holds each row from its end, as `from_row_ends` gives it.

    Example:
        >>> table, counts = torch.tensor([[1, 9], [2, 3]]), torch.tensor([1, 2])
        >>> to_packed(table, counts).tolist(), to_packed(table, counts, from_end=True).tolist()
        ([1, 2, 3], [1, 3, 2])
    """
    dtype = dtype or dense.dtype
    if copies_rows(dense):
        return _copy_rows(dense, counts, dtype, from_end)
    dense = from_row_ends(dense, counts) if from_end else dense
    return masked_values(dense, slot_mask(counts, dense.shape[1])).to(dtype)


def copies_rows(dense: Dense) -> bool:
    """Whether one NumPy copy per row is the cheaper way: long rows in a CPU's memory.

    Example:
        >>> copies_rows(torch.ones(1, 1000)), copies_rows(torch.ones(1, 2))
        (True, False)
    """
    return in_numpy(dense) and dense.shape[1] > ROW_COPY_ABOVE


def _copy_rows(
    dense: Dense, counts: Int[Tensor, " row"], dtype: torch.dtype, from_end: bool
) -> Packed:
    """`to_packed` for long rows, by one copy per row."""
    packed = torch.empty(int(counts.sum()), dtype=dtype)
    rest, step = packed.numpy(), -1 if from_end else 1
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, as in torch
        for row, count in zip(dense.numpy(), counts.tolist(), strict=True):
            rest[:count] = row[:count][::step]
            rest = rest[count:]
    return packed


def from_row_ends(dense: Dense, counts: Int[Tensor, " row"]) -> Dense:
    """Each row's first `counts[i]` slots in reverse order, and 0 after them; its own inverse.

    Example:
        >>> from_row_ends(torch.tensor([[1, 2, 9], [3, 4, 5]]), torch.tensor([2, 3])).tolist()
        [[2, 1, 0], [5, 4, 3]]
    """
    if copies_rows(dense):
        turned = torch.empty_like(dense, memory_format=torch.contiguous_format)
        rows = zip(turned.numpy(), dense.numpy(), counts.tolist(), strict=True)
        for row, source, count in rows:
            row[:count] = source[:count][::-1]
            row[count:] = 0
        return turned
    slot = counts[:, None] - 1 - torch.arange(dense.shape[1], device=dense.device)
    return torch.where(slot >= 0, dense.gather(1, slot.clamp(min=0)), 0)


def suffix_sum(dense: Float[Tensor, "row slot"]) -> Float[Tensor, "row slot"]:
    """Sum of a row from each slot to its end, G_j = sum over j' >= j of x_j'.

    CUDA's cumsum of floats is not deterministic. Where torch is set to deterministic algorithms,
    the sums are computed by doubling instead.

    Example:
        >>> suffix_sum(torch.tensor([[1.0, 2.0, 4.0]])).tolist()
        [[7.0, 6.0, 4.0]]
    """
    if _refuses_cumsum(dense):
        return doubling_suffix_sum(dense)
    return dense.flip(1).cumsum_(1).flip(1)


def _refuses_cumsum(dense: Tensor) -> bool:
    """Whether torch refuses the cumsum of such floats: on CUDA, under deterministic algorithms."""
    return dense.is_cuda and torch.are_deterministic_algorithms_enabled()


def doubling_suffix_sum(dense: Float[Tensor, "row slot"]) -> Float[Tensor, "row slot"]:
    """`suffix_sum` by additions only: sums of 1, 2, 4, ... slots, in log2(width) passes.

    Example:
        >>> doubling_suffix_sum(torch.tensor([[1.0, 2.0, 4.0]])).tolist()
        [[7.0, 6.0, 4.0]]
    """
    total, step = dense.clone(), 1
    while step < dense.shape[1]:
        total[:, :-step] += total[:, step:].clone()
        step *= 2
    return total


def discounted_suffix_sum(
    dense: Float[Tensor, "row slot"], factor: Float[Tensor, "row slot"]
) -> Float[Tensor, "row slot"]:
    """Sum of a row from each slot to its end, discounted: G_j = x_j + f_j G_{j+1}.

    It uses additions and products only, in log2(width) passes, as `doubling_suffix_sum` does.

    Args:
        dense: x, 0 past a row's end.
        factor: f, from 0 to 1: what multiplies everything after its slot.

    Example:
        >>> x, half = torch.tensor([[1.0, 2.0, 4.0]]), torch.full((1, 3), 0.5)
        >>> discounted_suffix_sum(x, half).tolist()
        [[3.0, 4.0, 4.0]]
    """
    total, passed, step = dense.clone(), factor.clone(), 1
    while step < dense.shape[1]:
        total[:, :-step] += passed[:, :-step] * total[:, step:]
        passed[:, :-step] *= passed[:, step:].clone()
        step *= 2
    return total


def segment_sum(
    dense: Float[Tensor, "row slot"], segment: Int[Tensor, "row slot"], width: int
) -> Float[Tensor, "row segment"]:
    """Sum of the slots of each of a row's segments.

    Args:
        dense: one value per slot; slots of no segment hold 0.
        segment: the segment of each slot, from 0 to `width` - 1.
        width: segments per row.

    Example:
        >>> x, segment = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0, 0, 1]])
        >>> segment_sum(x, segment, 2).tolist()
        [[3.0, 4.0]]
    """
    rows = dense.shape[0]
    row = torch.arange(rows, device=dense.device)[:, None] * width
    return group_sum(dense.flatten(), (row + segment).flatten(), rows * width).view(rows, width)


def falling(table: Float[Tensor, " n"]) -> Float[Tensor, " 2n"]:
    """The table reversed, and then its first value again and again: what `countdown` copies from.

    Example:
        >>> falling(torch.tensor([0.0, 1.0, 4.0])).tolist()
        [4.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    return torch.cat([table.flip(0), table[:1].expand(len(table))])


def countdown(
    reversed_table: Float[Tensor, " 2n"], counts: Int[Tensor, " row"], width: int
) -> Float[Tensor, "row slot"]:
    """Row i is table[counts_i], table[counts_i - 1], ... down to table[1], then table[0].

    Each row is one copy, without an index per value.

    Args:
        reversed_table: made of the table by `falling`.
        counts: where each row begins in the table; less than n.
        width: columns; less than n.

    Example:
        >>> squares = falling(torch.tensor([0.0, 1.0, 4.0, 9.0]))
        >>> countdown(squares, torch.tensor([3, 1]), 3).tolist()
        [[9.0, 4.0, 1.0], [1.0, 0.0, 0.0]]
    """
    first = len(reversed_table) // 2 - 1
    return reversed_table.unfold(0, width, 1).index_select(0, first - counts)


def group_sum(
    values: Shaped[Tensor, row * rest], group: Int[Tensor, " row"], num_groups: int
) -> Shaped[Tensor, group * rest]:
    """Sum of the rows of each group.

    Example:
        >>> group_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), 2).tolist()
        [5.0, 2.0]
    """
    return values.new_zeros((num_groups, *values.shape[1:])).index_add_(0, group, values)


def group_max(
    values: Float[Tensor, " row"], group: Int[Tensor, " row"], num_groups: int
) -> Float[Tensor, " group"]:
    """Largest of each group's rows; values are at least 0, and a group without rows gives 0.

    Example:
        >>> group_max(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), 2).tolist()
        [4.0, 2.0]
    """
    return values.new_zeros(num_groups).scatter_reduce_(0, group, values, "amax")


def reduce_rows(
    values: Packed, counts: Int[Tensor, " row"], how: Literal["sum", "max", "min"]
) -> Shaped[Tensor, " row"]:
    """Sum, largest or smallest value of each row; 0 for a row without values.

    Example:
        >>> values, counts = torch.tensor([1.0, 2.0, -4.0]), torch.tensor([2, 0, 1])
        >>> reduce_rows(values, counts, "sum").tolist(), reduce_rows(values, counts, "max").tolist()
        ([3.0, 0.0, -4.0], [2.0, 0.0, -4.0])
    """
    if not in_numpy(values):
        name, reduced = how if how == "sum" else f"a{how}", values.new_zeros(counts.shape)
        return reduced.scatter_reduce_(0, row_index(counts), values, name, include_self=False)
    sizes, source = counts.numpy(), values.numpy()
    starts = sizes.cumsum() - sizes
    if sizes.all():
        return torch.from_numpy(_REDUCTIONS[how].reduceat(source, starts))
    table = np.zeros(sizes.shape, source.dtype)
    table[sizes > 0] = _REDUCTIONS[how].reduceat(source, starts[sizes > 0])
    return torch.from_numpy(table)


_REDUCTIONS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


def largest_of_rows(values: Packed, counts: Int[Tensor, " row"]) -> Shaped[Tensor, " row"]:
    """Largest |value| of each row; 0 for a row without values.

    Example:
        >>> largest_of_rows(torch.tensor([1.0, 2.0, -4.0]), torch.tensor([2, 0, 1])).tolist()
        [2.0, 0.0, 4.0]
    """
    high, low = reduce_rows(values, counts, "max"), reduce_rows(values, counts, "min")
    return torch.maximum(high, -low)


def take_rows(values: Packed, counts: Int[Tensor, " row"], rows: Int[Tensor, " taken"]) -> Packed:
    """The packed values of the given rows, in the given order.

    Example:
        >>> take_rows(torch.tensor([1, 2, 3]), torch.tensor([1, 2]), torch.tensor([1, 0])).tolist()
        [2, 3, 1]
    """
    start, taken = offsets(counts)[:-1][rows], counts[rows]
    total = int(taken.sum())
    within = torch.arange(total, device=values.device)
    within = within - broadcast(offsets(taken)[:-1], taken, total=total)
    return values[broadcast(start, taken, total=total) + within]


def broadcast(
    values: Packed, sizes: Int[Tensor, " value"], *, total: int | None = None
) -> Shaped[Tensor, " token"]:
    """Each value repeated `sizes` times.

    On a CPU `numpy.repeat` needs a third of the memory of `torch.repeat_interleave`. On another
    device `total`, the sum of `sizes`, avoids waiting for the device.

    Example:
        >>> broadcast(torch.tensor([5.0, 7.0]), torch.tensor([2, 1])).tolist()
        [5.0, 5.0, 7.0]
    """
    if in_numpy(values):
        return torch.from_numpy(np.repeat(values.numpy(), sizes.numpy()))
    return torch.repeat_interleave(values, sizes, output_size=total)


def not_zero(mask: Shaped[Tensor, "row slot"]) -> Bool[Tensor, "row slot"]:
    """A 0/1 mask of any dtype as booleans (on a CPU NumPy compares faster than torch).

    Example:
        >>> not_zero(torch.tensor([[1, 0]])).tolist()
        [[True, False]]
    """
    if in_numpy(mask):
        return torch.from_numpy(mask.detach().numpy() != 0)
    return mask != 0


def masked_values(values: Shaped[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Packed:
    """The values where the mask is True, in order (on a CPU NumPy is ten times faster than torch).

    Example:
        >>> masked_values(torch.tensor([[1, 2], [3, 4]]), torch.eye(2).bool()).tolist()
        [1, 4]
    """
    if in_numpy(values):
        return torch.from_numpy(values.numpy()[mask.numpy()])
    return values[mask]


def place_values(values: Packed, mask: Bool[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The inverse of `masked_values`: the values in order where the mask is True, 0 elsewhere.

    Example:
        >>> place_values(torch.tensor([1, 4]), torch.eye(2).bool()).tolist()
        [[1, 0], [0, 4]]
    """
    table = values.new_zeros(mask.shape)
    if in_numpy(values):
        table.numpy()[mask.numpy()] = values.numpy()
        return table
    return table.masked_scatter_(mask, values)


def true_places(flags: Bool[Tensor, "*shape"]) -> Int[Tensor, " place"]:
    """The places of True, counted through all dimensions; on another device it waits for it.

    Example:
        >>> true_places(torch.tensor([[True, False], [False, True]])).tolist()
        [0, 3]
    """
    if in_numpy(flags):
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.flatten().nonzero().squeeze(1)


def true_counts(flags: Bool[Tensor, "row slot"]) -> Int[Tensor, " row"]:
    """How many slots of each row are True (on a CPU NumPy is twice as fast as torch).

    Example:
        >>> true_counts(torch.tensor([[True, False], [True, True]])).tolist()
        [1, 2]
    """
    if in_numpy(flags):
        counts = flags.numpy().sum(1, dtype=np.uint32)
        return torch.from_numpy(counts.astype(np.int64))
    return flags.sum(1, dtype=torch.int32).to(torch.int64)


def first_above(
    rising: Int[Tensor, " value"], sought: Int[Tensor, " place"]
) -> Int[Tensor, " place"]:
    """The index of the first value above each number sought; the values must not fall.

    NumPy starts each search where the last one ended, which takes a third of the time of torch's
    where the numbers rise too.

    Example:
        >>> first_above(torch.tensor([2, 2, 5]), torch.tensor([0, 2, 4])).tolist()
        [0, 2, 2]
    """
    if in_numpy(rising):
        return torch.from_numpy(np.searchsorted(rising.numpy(), sought.numpy(), side="right"))
    return torch.searchsorted(rising, sought, right=True)


def run_starts(table: Shaped[Tensor, "row slot"]) -> Bool[Tensor, "row slot"]:
    """True where a run of equal values begins: each row's first slot, and each change of value.

    Example:
        >>> run_starts(torch.tensor([[1, 1, 2]])).tolist()
        [[True, False, True]]
    """
    starts = torch.empty(table.shape, dtype=torch.bool, device=table.device)
    starts[:, :1] = True
    if in_numpy(table):
        values = table.numpy()
        np.not_equal(values[:, 1:], values[:, :-1], out=starts.numpy()[:, 1:])
    else:
        torch.ne(table[:, 1:], table[:, :-1], out=starts[:, 1:])
    return starts


def is_right_padded(mask: Bool[Tensor, "row slot"], counts: Int[Tensor, " row"]) -> bool:
    """Whether row i is True on exactly its first `counts[i]` slots, for every row.

    Example:
        >>> is_right_padded(torch.tensor([[True, True, False]]), torch.tensor([2]))
        True
        >>> is_right_padded(torch.tensor([[True, False, True]]), torch.tensor([2]))
        False
    """
    width = mask.shape[1]
    if not in_numpy(mask):
        return torch.equal(mask, slot_mask(counts, width))
    flags = mask.numpy()
    if width == 0 or np.count_nonzero(flags) != int(counts.sum()):
        return False
    smallest = flags.argmin(1)  # the first False, and 0 where there is none
    first_false = np.where((smallest == 0) & flags[:, 0], width, smallest)
    return bool(np.array_equal(first_false, counts.numpy()))
