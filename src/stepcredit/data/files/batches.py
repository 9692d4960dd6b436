"""Checked rows, collected into batches of whole groups, and a batch as `Rollouts`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepcredit.data.files.limits import Limits
from stepcredit.data.files.rows import Row, stream_field
from stepcredit.data.inputs import RolloutValues, group_rows
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.rules import PARTLY_UNKNOWN, counted, first_unknown
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.states import NOT_NESTED, StepStates, number_states, row_not_nested
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens
from stepcredit.data.trajectories import trajectories_of
from stepcredit.errors import RolloutError

Kinds = frozenset[tuple[str, type[Stream] | int]]
BATCH_ROWS, BATCH_TOKENS = 2048, 131_072
BATCH_BYTES = 64 << 20
MOST_OPEN = 16
KIND_NAMES = {Steps: "a score per step", Tokens: "a score per token", TokenAdvantages: "advantages"}


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of whole groups, the rows of each together.

    Args:
        rows: in the order of `rollouts`.
    """

    rows: list[Row]

    @cached_property
    def rollouts(self) -> Rollouts:
        """The rows as rollouts over trained tokens; `check_row` has checked all that they hold."""
        rows, kinds = self.rows, kinds_of(self.rows)
        only_steps = set(kinds.values()) == {Steps}
        labels, index = group_rows([row.group for row in rows])
        tokens, names = [row.tokens for row in rows], [row.trajectory for row in rows]
        alone = names.count(None) == len(rows)
        return Rollouts._of(
            group_index=index,
            group_labels=labels,
            lengths=torch.tensor([row.length for row in rows], dtype=torch.int64, device="cpu"),
            streams={name: _stream(rows, name, kind) for name, kind in kinds.items()},
            logprobs=_logprobs(rows),
            outcomes=_values([row.outcome for row in rows]),
            formats=_values([row.format for row in rows]),
            format_ok=torch.tensor([row.format_ok for row in rows], device="cpu"),
            step_ends=None if only_steps else _step_ends(rows),
            tokens=None if tokens.count(None) == len(rows) else [row or [] for row in tokens],
            left_out=sum(row.left_out for row in rows),
            response_mask=None,
            step_states=_states(rows, index),
            trajectories=None if alone else trajectories_of(names, index),
            part_ends=_part_ends(rows),
        )

    def groups(self) -> Iterator[Batch]:
        """One batch per group."""
        first = 0
        for at in range(1, len(self.rows) + 1):
            if at == len(self.rows) or group_label(self.rows[at]) != group_label(self.rows[first]):
                yield Batch(self.rows[first:at])
                first = at


class GroupBatcher:
    """Collects groups into batches. In a batch, each stream is of one kind, and all steps have the
    same number of states.

    A batch is complete with the group that fills it. All are complete once the lines of their rows
    have `BATCH_BYTES` together.

    Args:
        most_tokens: tokens at which a batch is full.
    """

    def __init__(self, most_tokens: int = BATCH_TOKENS) -> None:
        self._most_tokens = most_tokens
        self._open: dict[Kinds, tuple[list[Row], int]] = {}
        self._bytes = 0

    def add(self, group: list[Row]) -> Iterator[Batch]:
        """Add a group, and yield the batches that are complete with it."""
        kinds: Kinds = frozenset([*kinds_of(group).items(), (STATES, levels_of(group))])
        rows, tokens = self._open.pop(kinds, ([], 0))
        rows += group
        tokens += sum(row.length for row in group)
        self._bytes += sum(row.size for row in group)
        if len(rows) >= BATCH_ROWS or tokens >= self._most_tokens or len(self._open) == MOST_OPEN:
            self._bytes -= sum(row.size for row in rows)
            yield Batch(rows)
        else:
            self._open[kinds] = rows, tokens
        if self._bytes >= BATCH_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[Batch]:
        """Yield the batches that are not full, and start again."""
        batches = [Batch(rows) for rows, _ in self._open.values()]
        self._open, self._bytes = {}, 0
        yield from batches


def group_label(row: Row) -> str:
    """The group's label as a string: groups 3 and "3" are the same."""
    return str(row.group)


def kinds_of(rows: list[Row]) -> dict[str, type[Stream]]:
    """The kind of each process stream that any of the rows has."""
    return {name: signal.kind for row in rows for name, signal in row.streams.items()}


def group_faults(rows: list[Row], limits: Limits) -> list[tuple[int, RolloutError]]:
    """Violations of the rules about a whole group, as (line, fault), at most one per rule.

    The rules: outcome and format are known for all rows of a group or for none, a stream is of one
    kind in a group, the states of steps have as many levels in all rows and are nested, and the
    group's table is within the limits.
    """
    faults = []
    for name in ("outcome", "format"):
        unknown = first_unknown([getattr(row, name) for row in rows])
        if unknown is not None:
            faults.append((rows[unknown].line, RolloutError(PARTLY_UNKNOWN, field=name)))
    faults += kind_faults(rows, "its group") + level_faults(rows, "its group")
    return faults + _nesting_faults(rows) + size_faults(rows, limits)


def size_faults(rows: list[Row], limits: Limits) -> list[tuple[int, RolloutError]]:
    """A group's table or its number of streams beyond the limits, as (line, fault).

    Args:
        rows: of one group.
        limits: for the file.
    """
    faults = []
    longest = max(rows, key=lambda row: row.length)
    listed = sum(row.length for row in rows if row.is_listed)
    table = len(rows) * longest.length
    if table - listed > limits.group_tokens:
        what = f"{longest.length} tokens: its group's table is {len(rows)} rows of that many"
        what += f", which makes {table - listed} tokens that no list in the file holds"
        reason = limits.passed("group_tokens", what)
        faults.append((longest.line, RolloutError(reason, field="length")))
    names: set[str] = set()
    for row in rows:
        names.update(row.streams)
        if len(names) > limits.signals:
            reason = limits.passed("signals", f"{len(names)} signals in its group")
            return [*faults, (row.line, RolloutError(reason, field="signals"))]
    return faults


def kind_faults(rows: list[Row], whole: str) -> list[tuple[int, RolloutError]]:
    """The first row, if any, whose stream is of another kind than that stream of rows before it.

    Args:
        rows: rows among which a stream is of one kind.
        whole: what the rows belong to, for the message, such as "its group".
    """
    kinds: dict[str, tuple[type[Stream], int]] = {}
    for row in rows:
        for name, signal in row.streams.items():
            kind, line = kinds.setdefault(name, (signal.kind, row.line))
            if kind is not signal.kind:
                had, want = KIND_NAMES[signal.kind], KIND_NAMES[kind]
                reason = f"{had}, but line {line} of {whole} has {want}"
                return [(row.line, RolloutError(reason, field=stream_field(row, name)))]
    return []


def levels_of(rows: list[Row]) -> int:
    """Keys per step; 0 where the states of no row are known."""
    return next((len(row.states[0]) for row in rows if row.states), 0)


def level_faults(rows: list[Row], whole: str) -> list[tuple[int, RolloutError]]:
    """The first row, if any, whose steps have another number of keys than those of rows before it.

    Args:
        rows: rows in which steps have one number of keys.
        whole: as for `kind_faults`.
    """
    first = next((row for row in rows if row.states), None)
    for row in rows:
        if first is not None and row.states and len(row.states[0]) != len(first.states[0]):
            had, want = len(row.states[0]), len(first.states[0])
            reason = f"{counted(had, 'key')} per step, but line {first.line} of {whole} has {want}"
            return [(row.line, RolloutError(reason, field=STATES))]
    return []


def _nesting_faults(rows: list[Row]) -> list[tuple[int, RolloutError]]:
    """The first row of a group, if any, with steps whose states are not nested."""
    if levels_of(rows) < 2 or level_faults(rows, ""):
        return []
    group = torch.zeros(len(rows), dtype=torch.int64, device="cpu")
    states = _states(rows, group)
    at = None if states is None else row_not_nested(states, group, 1)
    return [] if at is None else [(rows[at].line, RolloutError(NOT_NESTED, field=STATES))]


def _packed(rows: list[list[Any]], dtype: type[np.generic]) -> tuple[Tensor, Tensor]:
    counts = np.fromiter(map(len, rows), np.int64, len(rows))
    values = np.fromiter(chain.from_iterable(rows), dtype, int(counts.sum()))
    return torch.from_numpy(values), torch.from_numpy(counts)


def _stream(rows: list[Row], name: str, kind: type[Stream]) -> Stream:
    given = [row.streams.get(name) for row in rows]
    values, counts = _packed([stream.values if stream else [] for stream in given], np.float64)
    if kind is not Steps:
        return kind._of(values=values, counts=counts)
    ends, _ = _packed([(stream.ends or []) if stream else [] for stream in given], np.int64)
    return Steps._of(values=values, counts=counts, ends=ends)


def _logprobs(rows: list[Row]) -> dict[str, Tokens]:
    names = dict.fromkeys(name for row in rows for name in row.logprobs)
    packed = {
        name: _packed([row.logprobs.get(name, []) for row in rows], np.float64) for name in names
    }
    return {name: Tokens._of(values=held, counts=counts) for name, (held, counts) in packed.items()}


def _step_ends(rows: list[Row]) -> Stream | None:
    """The rows' step ends; None where no row has any."""
    if all(row.step_ends is None for row in rows):
        return None
    ends, counts = _packed([row.step_ends or [] for row in rows], np.int64)
    return Stream._of(values=ends, counts=counts)


def _states(rows: list[Row], group: Tensor) -> StepStates | None:
    """The rows' states, numbered in their groups; None where no row has any."""
    if not any(row.states for row in rows):
        return None
    values = number_states([row.states for row in rows], group.tolist())
    ends, counts = _packed([row.step_ends or [] if row.states else [] for row in rows], np.int64)
    return StepStates._of(values=values, ends=ends, counts=counts)


def _part_ends(rows: list[Row]) -> Stream | None:
    """Where the parts of whole trajectories end; None where every row is one part."""
    if not any(row.part_ends for row in rows):
        return None
    ends, counts = _packed([row.part_ends or [row.length - 1] for row in rows], np.int64)
    return Stream._of(values=ends, counts=counts)


def _values(values: list[float | None]) -> RolloutValues:
    """Outcomes or formats; None is unknown."""
    numbers = [0.0 if value is None else value for value in values]
    known = [value is not None for value in values]
    return RolloutValues(
        torch.tensor(numbers, dtype=torch.float64, device="cpu"), torch.tensor(known, device="cpu")
    )
