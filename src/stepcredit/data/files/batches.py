"""Checked rows as whole groups, and groups as `Rollouts`."""

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
from stepcredit.data.files.rows import Row
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.rules import PARTLY_UNKNOWN, first_unknown
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens
from stepcredit.errors import RolloutError

Kinds = frozenset[tuple[str, type[Stream]]]
BATCH_ROWS, BATCH_TOKENS = 2048, 131_072
BATCH_BYTES = 64 << 20
MOST_OPEN = 16
KIND_NAMES = {Steps: "a score a step", Tokens: "a score a token", TokenAdvantages: "advantages"}


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of whole groups, the rows of each together.

    Args:
        rows: in the order of `rollouts`.
    """

    rows: list[Row]

    @cached_property
    def rollouts(self) -> Rollouts:
        """The rows as rollouts over trained tokens."""
        rows, kinds = self.rows, kinds_of(self.rows)
        steps_tell_all = set(kinds.values()) == {Steps}
        return Rollouts(
            group=[row.group for row in rows],
            lengths=torch.tensor([row.length for row in rows], dtype=torch.int64, device="cpu"),
            process={name: _stream(rows, name, kind) for name, kind in kinds.items()},
            outcome=_known([row.outcome for row in rows]),
            format=_known([row.format for row in rows]),
            format_ok=torch.tensor([row.format_ok for row in rows], device="cpu"),
            logprobs=_logprobs(rows),
            step_ends=None if steps_tell_all else _present([row.step_ends for row in rows]),
            tokens=_present([row.tokens for row in rows]),
            left_out=sum(row.left_out for row in rows),
        )

    def groups(self) -> Iterator[Batch]:
        """Each group as a batch of its own."""
        first = 0
        for at in range(1, len(self.rows) + 1):
            if at == len(self.rows) or label_of(self.rows[at]) != label_of(self.rows[first]):
                yield Batch(self.rows[first:at])
                first = at


class Gathering:
    """Groups on their way into batches, apart by kinds of streams: a batch holds one kind of each.

    A batch is closed with the group that fills it, and all are once their lines together have
    `BATCH_BYTES`.

    Args:
        most_tokens: tokens at which a batch is full.
    """

    def __init__(self, most_tokens: int = BATCH_TOKENS) -> None:
        self._most_tokens = most_tokens
        self._open: dict[Kinds, tuple[list[Row], int]] = {}
        self._bytes = 0

    def add(self, group: list[Row]) -> Iterator[Batch]:
        """Take a group in; gives the batches it fills, if it does."""
        kinds = frozenset(kinds_of(group).items())
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
        """The batches that are not full, which are closed by it."""
        batches = [Batch(rows) for rows, _ in self._open.values()]
        self._open, self._bytes = {}, 0
        yield from batches


def label_of(row: Row) -> str:
    """The group's label as a string: groups 3 and "3" are the same."""
    return str(row.group)


def kinds_of(rows: list[Row]) -> dict[str, type[Stream]]:
    """The kind of each process stream that any of the rows has."""
    return {name: signal.kind for row in rows for name, signal in row.streams.items()}


def group_faults(rows: list[Row], limits: Limits) -> list[tuple[int, RolloutError]]:
    """The rules that only a whole group can break, as (line, fault), one of each rule.

    A stream is of one kind in a group; outcome and format are known for all of it or none; and its
    table is within the limits.
    """
    faults = []
    for name in ("outcome", "format"):
        unknown = first_unknown([getattr(row, name) for row in rows])
        if unknown is not None:
            faults.append((rows[unknown].line, RolloutError(PARTLY_UNKNOWN, field=name)))
    return faults + kind_faults(rows, "its group") + _size_faults(rows, limits)


def _size_faults(rows: list[Row], limits: Limits) -> list[tuple[int, RolloutError]]:
    """A group whose table or whose streams go beyond the limits."""
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
        whole: what they are all rows of, for the message.
    """
    kinds: dict[str, tuple[type[Stream], int]] = {}
    for row in rows:
        for name, signal in row.streams.items():
            kind, line = kinds.setdefault(name, (signal.kind, row.line))
            if kind is not signal.kind:
                had, want = KIND_NAMES[signal.kind], KIND_NAMES[kind]
                reason = f"{had}, but line {line} of {whole} has {want}"
                return [(row.line, RolloutError(reason, field=_field_of(row, name)))]
    return []


def _field_of(row: Row, name: str) -> str:
    if name in row.fields.get("signals", {}):
        return f"signals.{name}"
    return "step_scores" if row.streams[name].kind is Steps else "token_scores"


def _packed(rows: list[list[Any]], dtype: type[np.generic]) -> tuple[Tensor, Tensor]:
    counts = np.fromiter(map(len, rows), np.int64, len(rows))
    values = np.fromiter(chain.from_iterable(rows), dtype, int(counts.sum()))
    return torch.from_numpy(values), torch.from_numpy(counts)


def _stream(rows: list[Row], name: str, kind: type[Stream]) -> Stream:
    signals = [row.streams.get(name) for row in rows]
    values, counts = _packed([s.values if s else [] for s in signals], np.float64)
    if kind is not Steps:
        return kind(values, counts)  # type: ignore[call-arg]
    ends, _ = _packed([s.ends or [] if s else [] for s in signals], np.int64)
    return Steps(ends, values, counts)


def _logprobs(rows: list[Row]) -> dict[str, Tokens]:
    names = dict.fromkeys(name for row in rows for name in row.logprobs)
    return {
        name: Tokens(*_packed([row.logprobs.get(name, []) for row in rows], np.float64))
        for name in names
    }


def _known(values: list[float | None]) -> list[float | None] | Tensor | None:
    """All unknown: None; all known: a tensor, which is the faster way in."""
    if None not in values:
        return torch.tensor(values, dtype=torch.float64, device="cpu")
    return values if any(value is not None for value in values) else None


def _present(rows: list[Any]) -> list[Any] | None:
    return [row or [] for row in rows] if any(row is not None for row in rows) else None
