"""`StepStates`: the state that each step was taken in, as small numbers within each group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from stepcredit.data.containers import array_like, integers_of, is_numeric
from stepcredit.data.forest import any_true, broadcast, group_max, group_sum, offsets
from stepcredit.data.packing import items_of, row_of
from stepcredit.data.rules import counted, shown
from stepcredit.data.streams import Stream
from stepcredit.errors import RolloutError

FIELD = "step_states"
NOT_A_KEY = "is neither a string nor an integer"
NOT_NESTED = (
    "two steps are in the same state at one level and in different states at a coarser one: list "
    "the keys of each step from the finest to the coarsest"
)
Key = str | int
StepKeys = Sequence[Sequence[Key] | Sequence[Sequence[Key]] | None] | Tensor | np.ndarray
"""The states of the responses: one key per step, or several from the finest to the coarsest."""
Keys = list[tuple[str, ...]]
"""The states of one response as text: one tuple per step."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class StepStates(Stream):
    """The state of each step, as a number among the states of its group.

    Args:
        values: (step, level) numbers from 0; equal numbers in one group and level are one state.
            The first level is the finest.
        ends: index of each step's last token, as for `Steps`.
        counts: steps per rollout.
    """

    values: Int[Tensor, "step level"]
    ends: Int[Tensor, " step"]
    packed: ClassVar[tuple[str, ...]] = ("values", "ends")
    kind: ClassVar[str] = "states"

    @property
    def levels(self) -> int:
        """Keys per step."""
        return self.values.shape[1]

    def of_groups(
        self, group: Int[Tensor, " rollout"], groups: int
    ) -> list[tuple[Int[Tensor, " step"], int]]:
        """For each level: the state of each step, numbered through all groups, and their number.

        Args:
            group: the group of each rollout.
            groups: how many groups there are.

        Example:
            >>> states = number_states([[("a",)], [("a",), ("b",)]], [0, 1])
            >>> found = StepStates._of(values=states, counts=torch.tensor([1, 2]))
            >>> [(index.tolist(), count) for index, count in
            ...  found.of_groups(torch.tensor([0, 1]), 2)]
            [([0, 1, 2], 3)]
        """
        of_step = broadcast(group, self.counts, total=self.values.shape[0])
        found = []
        for level in range(self.levels):
            number = self.values[:, level].to(torch.int64)
            starts = offsets(group_max(number + 1, of_step, groups))
            found.append((starts[of_step] + number, int(starts[-1])))
        return found


def keys_of_row(keys: Sequence[Any], row: int | None = None) -> Keys:
    """The states of one response as text; 1 and "1" are the same.

    Raises:
        RolloutError: a key that is neither a string nor an integer, or steps with different numbers
            of keys.

    Example:
        >>> keys_of_row(["start", 1]), keys_of_row([["door 2", "room"]])
        ([('start',), ('1',)], [('door 2', 'room')])
    """
    if {str, int}.issuperset(map(type, keys)):
        return [(str(key),) for key in keys]
    found = [_keys_of_step(key, row) for key in keys]
    for step, each in enumerate(found):
        if len(each) != len(found[0]):
            here, there = counted(len(each), "key"), counted(len(found[0]), "key")
            reason = f"step {step} has {here}, but step 0 has {there}"
            raise RolloutError(reason, row=row, field=FIELD)
    return found


def _keys_of_step(given: Any, row: int | None) -> tuple[str, ...]:
    if isinstance(given, np.ndarray | Tensor):
        given = given.tolist()
    keys = tuple(given) if isinstance(given, list | tuple) else (given,)
    for key in keys:
        if not isinstance(key, str | int | np.integer) or isinstance(key, bool):
            raise RolloutError(f"{shown(key)} {NOT_A_KEY}", row=row, field=FIELD)
    if not keys:
        raise RolloutError("a step has no key: expected at least one", row=row, field=FIELD)
    return tuple(map(str, keys))


def number_states(rows: Sequence[Keys], group: Sequence[int]) -> Int[Tensor, "step level"]:
    """Each state's number among those of its group, by first appearance, at every level.

    Args:
        rows: the states of each response, all with the same number of levels.
        group: the group of each response.

    Example:
        >>> rows = [[("s", "x"), ("t", "x")], [("t", "x")], [("t", "y")]]
        >>> number_states(rows, [0, 0, 1]).tolist()
        [[0, 0], [1, 0], [1, 0], [0, 0]]
    """
    levels = next((len(row[0]) for row in rows if row), 1)
    columns = []
    for level in range(levels):
        known: defaultdict[int, dict[str, int]] = defaultdict(dict)
        numbers: list[int] = []
        for row, label in zip(rows, group, strict=True):
            own = known[label]
            numbers += [own.setdefault(keys[level], len(own)) for keys in row]
        columns.append(torch.tensor(numbers, dtype=torch.int32, device="cpu"))
    return torch.stack(columns, 1)


def states_of(
    given: Any, steps: Stream | None, group: Int[Tensor, " rollout"], groups: int
) -> StepStates | None:
    """The argument `step_states` of `Rollouts`, numbered and checked.

    Args:
        given: one list of keys per rollout (None or [] = its states are not known), or a packed
            (step,) or (step, level) tensor of integers.
        steps: the steps that have the states: `values` are their ends.
        group: the group of each rollout.
        groups: how many groups there are.

    Raises:
        RolloutError: another number of states than of steps, a key that is neither a string nor an
            integer, or levels that are not nested.
    """
    if given is None:
        return None
    if steps is None:
        reason = "need step_ends, or one process stream of steps, or one named 'process'"
        raise RolloutError(reason, field=FIELD)
    given = array_like(given, FIELD)
    states = (
        _of_tensor(given, steps, group) if is_numeric(given) else _of_lists(given, steps, group)
    )
    row = row_not_nested(states, group.to(states.values.device), groups)
    if row is not None:
        raise RolloutError(NOT_NESTED, row=row, field=FIELD)
    return states


def _of_lists(given: Any, steps: Stream, group: Tensor) -> StepStates:
    items = items_of(given, FIELD, "a list of states per rollout")
    if len(items) != group.numel():
        raise RolloutError(f"{len(items)} rows, but {group.numel()} rollouts", field=FIELD)
    rows = [
        [] if keys is None else keys_of_row(items_of(keys, FIELD, "a list of states", row), row)
        for row, keys in enumerate(items)
    ]
    check_same_levels(rows)
    counts = torch.tensor([len(row) for row in rows], dtype=torch.int64, device="cpu")
    ends, counts = _known_ends(steps, counts.to(steps.counts.device))
    values = number_states(rows, group.tolist()).to(ends.device)
    return StepStates._of(values=values, ends=ends, counts=counts)


def check_same_levels(rows: Sequence[Keys]) -> None:
    """All responses have the same number of keys per step.

    Raises:
        RolloutError: names the first row that differs.
    """
    first = next((row[0] for row in rows if row), ())
    for at, row in enumerate(rows):
        if row and len(row[0]) != len(first):
            reason = f"{counted(len(row[0]), 'key')} per step, but {len(first)} in a row before it"
            raise RolloutError(reason, row=at, field=FIELD)


def _known_ends(steps: Stream, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the steps whose states are known.

    Raises:
        RolloutError: a response whose states are known has another number of steps.
    """
    if torch.equal(counts, steps.counts):
        return steps.values, counts
    wrong = (counts > 0) & (counts != steps.counts)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise RolloutError(
            wrong_number(int(counts[row]), int(steps.counts[row])), row=row, field=FIELD
        )
    return steps.values[broadcast(counts > 0, steps.counts, total=steps.values.numel())], counts


def wrong_number(states: int, steps: int) -> str:
    """The sentence that refuses another number of states than of steps.

    Example:
        >>> wrong_number(2, 3)
        '2 states, but 3 steps'
    """
    return f"{counted(states, 'state')}, but {counted(steps, 'step')}"


def _of_tensor(given: Any, steps: Stream, group: Tensor) -> StepStates:
    keys = integers_of(given, FIELD).to(steps.counts.device)
    if keys.ndim not in (1, 2) or len(keys) != steps.values.numel() or not keys.numel():
        expected = f"({steps.values.numel()},) or ({steps.values.numel()}, levels): packed"
        raise RolloutError(f"shape is {tuple(keys.shape)}, expected {expected}", field=FIELD)
    of_step = broadcast(group.to(keys.device), steps.counts, total=len(keys))
    table = keys[:, None] if keys.ndim == 1 else keys
    numbers = [_numbers_in_groups(table[:, level], of_step) for level in range(table.shape[1])]
    values = torch.stack(numbers, 1).to(torch.int32)
    return StepStates._of(values=values, ends=steps.values, counts=steps.counts)


def _numbers_in_groups(keys: Tensor, of_step: Tensor) -> Tensor:
    """Each key's number among the keys of its group, in the order of the keys."""
    different, code = torch.unique(keys, return_inverse=True)
    pairs, number = torch.unique(of_step * len(different) + code, return_inverse=True)
    numbers: Tensor = number - torch.searchsorted(pairs, of_step * len(different))
    return numbers


def row_not_nested(states: StepStates, group: Int[Tensor, " rollout"], groups: int) -> int | None:
    """The first row with a step that shares its state at one level, and not at a coarser one.

    Args:
        states: of a batch.
        group: the group of each rollout.
        groups: how many groups there are.

    Returns:
        None where all steps in one state are in one state at all coarser levels too.

    Example:
        >>> numbers = number_states([[("a", "x")], [("a", "y")]], [0, 0])
        >>> states = StepStates._of(values=numbers, counts=torch.tensor([1, 1]))
        >>> row_not_nested(states, torch.tensor([0, 0]), 1)
        0
    """
    if states.levels == 1:
        return None
    numbered = states.of_groups(group, groups)
    for (fine, count), (coarse, _) in pairwise(numbered):
        size, total = (group_sum(each, fine, count) for each in (torch.ones_like(fine), coarse))
        apart = total[fine] != size[fine] * coarse
        if any_true(apart):
            return row_of(int(apart.nonzero()[0]), states.counts)
    return None
