"""`Trajectories`: which rollouts are the parts of one trajectory, joined before credit is computed.

An agent's context may be compacted, or its calls and those of its sub-agents may be sequences of
their own. The rollouts of such a trajectory are its parts: they are credited as one response, and
each part then gets its own tokens' advantages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.data.advantages import Advantages
from stepcredit.data.batch_streams import BatchStreams
from stepcredit.data.containers import array_like, integers_of, is_numeric
from stepcredit.data.forest import broadcast, group_sum, offsets
from stepcredit.data.inputs import RolloutValues, check_label, integer_groups
from stepcredit.data.packing import items_of
from stepcredit.data.rules import part_differs, part_lacks
from stepcredit.data.streams import Stream
from stepcredit.errors import RolloutError

FIELD = "trajectory"
Names = Sequence[str | int | None] | Tensor | np.ndarray
"""The trajectory of each rollout; None: the rollout is a whole trajectory."""
AnyStream = TypeVar("AnyStream", bound=Stream)
Item = TypeVar("Item")
Whole = TypeVar("Whole")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Which rollouts are the parts of which trajectory. The parts are in the order of the rollouts.

    Args:
        of_row: the trajectory of each rollout, numbered by first appearance.
        count: how many trajectories there are.

    Example:
        >>> parts = Trajectories(torch.tensor([0, 1, 0]), 2)
        >>> parts.first.tolist(), parts.sizes.tolist(), parts.order.tolist(), parts.back.tolist()
        ([0, 1], [2, 1], [0, 2, 1], [0, 2, 1])
    """

    of_row: Int[Tensor, " rollout"]
    count: int

    @cached_property
    def order(self) -> Int[Tensor, " rollout"]:
        """Row numbers that bring the parts of each trajectory together."""
        return self.of_row.argsort(stable=True)

    @cached_property
    def back(self) -> Int[Tensor, " rollout"]:
        """For each row, its place in `order`."""
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(self.order.numel(), device=self.order.device)
        return back

    @cached_property
    def sizes(self) -> Int[Tensor, " trajectory"]:
        """Parts of each trajectory."""
        return group_sum(torch.ones_like(self.of_row), self.of_row, self.count)

    @cached_property
    def first(self) -> Int[Tensor, " trajectory"]:
        """The row of each trajectory's first part."""
        return self.order[self.sizes.cumsum(0) - self.sizes]

    def first_where(self, known: Bool[Tensor, " rollout"]) -> Int[Tensor, " rollout"]:
        """For each row, the first row of its trajectory where `known` holds; itself if none does.

        Example:
            >>> parts = Trajectories(torch.tensor([0, 0, 1]), 2)
            >>> parts.first_where(torch.tensor([False, True, False])).tolist()
            [1, 1, 2]
        """
        count = known.numel()
        rows = torch.arange(count, device=known.device)
        least = rows.new_full((self.count,), count)
        least.scatter_reduce_(0, self.of_row, torch.where(known, rows, count), "amin")
        first = least[self.of_row]
        return torch.where(first == count, rows, first)

    def to(self, device: torch.device | str) -> Trajectories:
        """The same on another device."""
        return Trajectories(self.of_row.to(device), self.count)

    def take(self, rows: Int[Tensor, " taken"]) -> Trajectories | None:
        """Those of the given rollouts; None where no two of these are of one trajectory."""
        return _numbered(self.of_row[rows].cpu().numpy(), self.of_row.device)

    def ends(self, lengths: Int[Tensor, " rollout"]) -> Stream:
        """The last token of each part, counted through its trajectory; one row per trajectory.

        Args:
            lengths: trained tokens of each rollout.

        Example:
            >>> parts = Trajectories(torch.tensor([0, 1, 0]), 2)
            >>> parts.ends(torch.tensor([3, 5, 2])).values.tolist()
            [2, 4, 4]
        """
        sizes = lengths[self.order]
        return Stream._of(values=self._starts(sizes) + sizes - 1, counts=self.sizes)

    def _starts(self, sizes: Int[Tensor, " part"]) -> Int[Tensor, " part"]:
        """Tokens before each part in its trajectory; parts in the order of `order`."""
        before = offsets(sizes)[:-1]
        first = before[self.sizes.cumsum(0) - self.sizes]
        return before - broadcast(first, self.sizes, total=sizes.numel())

    def join(self, stream: AnyStream, lengths: Int[Tensor, " rollout"]) -> AnyStream:
        """A stream with one row per trajectory: the values of its parts, one after the other.

        Args:
            stream: with one row per rollout. Its `ends`, if it has some, are moved by the tokens of
                the parts before.
            lengths: trained tokens of each rollout.

        Example:
            >>> from stepcredit.data.streams import Steps
            >>> parts = Trajectories(torch.tensor([0, 1, 0]), 2)
            >>> steps = Steps([[0, 2], [4], [1]], [[0.5, 0.25], [1.0], [0.75]])
            >>> joined = parts.join(steps, torch.tensor([3, 5, 2]))
            >>> joined.ends.tolist(), joined.counts.tolist()
            ([0, 2, 4, 4], [3, 1])
        """
        held = stream._taken(self.order)
        fields = {name: getattr(held, name) for name in held.packed}
        if "ends" in fields:
            fields["ends"] = self._moved(fields["ends"], held.counts, lengths)
        return held._of(counts=self._summed(held.counts), **fields)

    def join_ends(self, ends: Stream, lengths: Int[Tensor, " rollout"]) -> Stream:
        """`join` of step ends without scores, whose `values` are the ends."""
        held = ends._taken(self.order)
        moved = self._moved(held.values, held.counts, lengths)
        return Stream._of(values=moved, counts=self._summed(held.counts))

    def _moved(self, ends: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
        starts = self._starts(lengths[self.order])
        return ends + broadcast(starts, counts, total=ends.numel())

    def _summed(self, counts: Int[Tensor, " part"]) -> Int[Tensor, " trajectory"]:
        """The sum of each trajectory's parts; parts in the order of `order`."""
        return group_sum(counts, self.of_row[self.order], self.count)

    def join_lists(self, rows: Sequence[Item], whole: Callable[[list[Item]], Whole]) -> list[Whole]:
        """One item per trajectory, made of the items of its parts.

        Args:
            rows: one item per rollout.
            whole: makes a trajectory's item of its parts' items.

        Example:
            >>> Trajectories(torch.tensor([0, 1, 0]), 2).join_lists([False, False, True], any)
            [True, False]
        """
        items: list[list[Item]] = [[] for _ in range(self.count)]
        for at, item in zip(self.of_row.tolist(), rows, strict=True):
            items[at].append(item)
        return [whole(parts) for parts in items]

    def cut(self, advantages: Advantages, lengths: Int[Tensor, " rollout"]) -> Advantages:
        """The advantages of trajectories as those of their parts, in the rollouts' order.

        Args:
            advantages: one row per trajectory.
            lengths: trained tokens of each rollout.

        Example:
            >>> from stepcredit.data.advantages import from_ragged
            >>> parts = Trajectories(torch.tensor([0, 1, 0]), 2)
            >>> whole = from_ragged([[1.0, 2.0, 3.0], [4.0]])
            >>> parts.cut(whole, torch.tensor([2, 1, 1])).packed().tolist()
            [1.0, 2.0, 4.0, 3.0]
        """
        sizes = lengths[self.order]
        parts = Advantages(advantages.packed(), None, sizes, sizes)
        return parts.take(self.back)

    @contextmanager
    def naming_parts(self) -> Iterator[None]:
        """Errors about a trajectory name the row of its first part."""
        try:
            yield
        except RolloutError as error:
            if error.row is None:
                raise
            raise error.at(row=int(self.first[error.row])) from error.__cause__

    def agreed(self, values: RolloutValues, field: str) -> RolloutValues:
        """One value per trajectory on all of its parts: a part without one takes the others'.

        Raises:
            RolloutError: two parts have different values; it names the later one.

        Example:
            >>> given = RolloutValues(torch.tensor([0.0, 1.0]), torch.tensor([False, True]))
            >>> Trajectories(torch.tensor([0, 0]), 1).agreed(given, "outcome").values.tolist()
            [1.0, 1.0]
        """
        first = self.first_where(values.known)
        own = values.values[first]
        self._refuse(values.known & (values.values != own), first, values.values, field)
        known = values.known[first]
        return RolloutValues(torch.where(known, own, 0.0), known)

    def check_equal(self, flags: Bool[Tensor, " rollout"], field: str) -> None:
        """Refuse parts of one trajectory with different flags.

        Raises:
            RolloutError: names the later one.
        """
        first = self.first[self.of_row]
        self._refuse(flags != flags[first], first, flags, field)

    def check_streams(self, streams: BatchStreams) -> None:
        """Refuse a trajectory some of whose parts have a stream that others lack.

        Raises:
            RolloutError: names the first part that lacks it.
        """
        for field, counts in streams.value_counts().items():
            has = counts.to(self.of_row.device) > 0
            first = self.first_where(has)
            lacks = has[first] & ~has
            if bool(lacks.any()):
                row = int(lacks.nonzero()[0])
                raise RolloutError(part_lacks(f"row {int(first[row])}"), row=row, field=field)

    def _refuse(self, wrong: Tensor, first: Tensor, values: Tensor, field: str) -> None:
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            other = int(first[row])
            reason = part_differs(values[row].item(), f"row {other}", values[other].item())
            raise RolloutError(reason, row=row, field=field)


def trajectories_of(given: Names | None, group: Int[Tensor, " rollout"]) -> Trajectories | None:
    """The argument `trajectory` of `Rollouts`, numbered within the groups.

    Args:
        given: one name per rollout: strings and integers, or None for a rollout that is a whole
            trajectory. Equal names in different groups are different trajectories.
        group: the group of each rollout, on the CPU.

    Returns:
        None where no trajectory has two parts.

    Raises:
        RolloutError: a name that is neither a string nor an integer, or another number of names
            than of rollouts.

    Example:
        >>> trajectories_of(["a", None, "a", 1, "1"], torch.tensor([0, 0, 0, 1, 1])).of_row.tolist()
        [0, 1, 0, 2, 2]
    """
    if given is None:
        return None
    given = array_like(given, FIELD)
    if is_numeric(given):
        numbers = _of_integers(integers_of(given, FIELD), group)
    else:
        numbers = _of_list(items_of(given, FIELD, "one name per rollout"), group)
    return _numbered(numbers, group.device)


def _numbered(numbers: np.ndarray, device: torch.device) -> Trajectories | None:
    """Trajectories of any numbers, equal for rows of one trajectory."""
    labels, of_row = integer_groups(numbers)
    return None if len(labels) == numbers.size else Trajectories(of_row.to(device), len(labels))


def _of_integers(names: Tensor, group: Tensor) -> np.ndarray:
    numbers = names.cpu().numpy()
    if numbers.shape != tuple(group.shape):
        _refuse_count(names.numel(), group.numel())
    _, at = integer_groups(numbers)
    return (at * (int(group.max()) + 1) + group).numpy()


def _of_list(names: list[Any], group: Tensor) -> np.ndarray:
    if len(names) != group.numel():
        _refuse_count(len(names), group.numel())
    numbers: dict[object, int] = {}
    for row, name in enumerate(names):
        if name is not None:
            check_label(name, row, FIELD)
    keys = [
        row if name is None else (label, str(name))
        for row, (name, label) in enumerate(zip(names, group.tolist(), strict=True))
    ]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _refuse_count(names: int, rollouts: int) -> None:
    raise RolloutError(f"{names} names, but {rollouts} rollouts", field=FIELD)


def flat(rows: Sequence[Sequence[Item]]) -> list[Item]:
    """The items of all rows, one after the other.

    Example:
        >>> flat([[1], [2, 3]])
        [1, 2, 3]
    """
    return [item for row in rows for item in row]
