"""`Explanation`: every stage of an estimator by chunk, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.groups import Values
from stepcredit.data.advantages import Advantages, from_ragged
from stepcredit.data.forest import broadcast, offsets, row_index, to_packed
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.trajectories import Trajectories
from stepcredit.errors import SettingError
from stepcredit.settings.fields import full_repr

if TYPE_CHECKING:
    from rich.table import Table

CHUNKS = 200
"""Chunks that a table shows unless it is given another limit."""
EVERY = slice(None)
"""All rollouts."""


class Explained(Protocol):
    """The part of an estimator that an explanation reads."""

    @property
    def clip(self) -> float | None:
        """The largest |advantage|; None: not clipped."""


@dataclass(frozen=True, eq=False)
class ChunkColumns:
    """The columns of one block of whole groups, one value per chunk, on the CPU.

    Args:
        columns: "rollout", "first", "last", each stage, and "advantage".
        clipped_tokens: trained tokens whose advantage `clip` changed.
    """

    columns: dict[str, Tensor]
    clipped_tokens: int

    @classmethod
    def of(
        cls, credit: Credit, before: Values, advantage: Values, rows: Int[Tensor, " rollout"]
    ) -> ChunkColumns:
        """The columns of a block.

        Args:
            credit: what the estimator's `credit` returned for the block.
            before: its advantages before clipping, (rollout, slot).
            advantage: the same, clipped.
            rows: the row in the batch of each of the block's rollouts.
        """
        slots, ends = credit.slots, credit.last_slots
        counts, last = ends.sum(1), slots.last()[ends]
        first = torch.cat([last.new_zeros(1), last[:-1] + 1])
        first[offsets(counts)[:-1]] = 0
        columns = {
            "rollout": torch.repeat_interleave(rows, counts.cpu()),
            "first": first,
            "last": last,
        }
        for name, table in {**credit.stages(), "advantage": advantage}.items():
            columns[name] = table.expand(ends.shape)[ends].to(torch.float32)
        clipped = to_packed((advantage != before) & slots.mask, slots.counts)
        tokens = int(to_packed(slots.sizes, slots.counts)[clipped].sum())
        return cls({name: column.cpu() for name, column in columns.items()}, tokens)

    @staticmethod
    def cat(parts: Sequence[ChunkColumns]) -> dict[str, Tensor]:
        """The columns of all blocks in the batch's order; 0 where a block lacks a stream."""
        names = dict.fromkeys(name for part in parts for name in part.columns)
        blank = [torch.zeros_like(part.columns["advantage"]) for part in parts]
        columns = {
            name: torch.cat(
                [part.columns.get(name, zero) for part, zero in zip(parts, blank, strict=True)]
            )
            for name in names
        }
        order = columns["rollout"].argsort(stable=True)
        return {name: column[order] for name, column in columns.items()}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Every stage by chunk, in the rollouts' order.

    The columns hold all chunks, at a few bytes per value; `rows` builds a dictionary per chunk, and
    `table`, `text` and `print` show the first 200 chunks unless they are given another limit.

    Args:
        method: the estimator, with its settings.
        group: label of each chunk's group.
        rollout: row of each chunk's rollout in the batch.
        first, last: the chunk's first and last trained token.
        stages: {name: one value per chunk}, in the order they were computed.
        advantage: the last column: what every token of the chunk gets.
        lengths: trained tokens of each rollout.
        warnings: notes about signals without effect.
        clipped_share: share of trained tokens whose advantage `clip` cut.
        left_out: steps without a trained token, whose scores were left out.
    """

    method: Explained
    group: list[str | int]
    rollout: Int[Tensor, " chunk"]
    first: Int[Tensor, " chunk"]
    last: Int[Tensor, " chunk"]
    stages: dict[str, Float32[Tensor, " chunk"]]
    advantage: Float32[Tensor, " chunk"]
    lengths: Int[Tensor, " rollout"]
    warnings: list[str]
    clipped_share: float
    left_out: int = 0

    @classmethod
    def of(
        cls,
        method: Explained,
        rollouts: Rollouts,
        parts: Sequence[ChunkColumns],
        warnings: list[str],
    ) -> Explanation:
        """The explanation of a batch, from the columns of its blocks.

        Args:
            method: the estimator.
            rollouts: the batch.
            parts: the columns of all its blocks.
            warnings: notes about signals without effect.
        """
        columns = ChunkColumns.cat(parts)
        place = {name: columns.pop(name) for name in ("rollout", "first", "last")}
        group = rollouts.group_index[place["rollout"]].tolist()
        return cls(
            method=method,
            group=[rollouts.group_labels[index] for index in group],
            **place,
            advantage=columns.pop("advantage"),
            stages=columns,
            lengths=rollouts.lengths.cpu(),
            warnings=warnings,
            clipped_share=sum(p.clipped_tokens for p in parts) / int(rollouts.lengths.sum()),
            left_out=rollouts.left_out,
        )

    def cut(self, parts: Trajectories, lengths: Int[Tensor, " part"]) -> Explanation:
        """An explanation of trajectories as one of their parts, in the rollouts' order.

        A value that stands for all of a trajectory is told once per part.

        Args:
            parts: the trajectories' parts.
            lengths: trained tokens of each part, on the CPU.

        Example:
            >>> import stepcredit as sc
            >>> r = sc.Rollouts([0] * 3, [2, 1, 3], outcome=[1, 0, 1], trajectory=["a", "b", "a"])
            >>> found = sc.RLOO().explain(r)
            >>> found.rollout.tolist(), found.last.tolist(), found.advantage.tolist()
            ([0, 1, 2], [1, 0, 2], [1.0, -1.0, 1.0])
        """
        order = parts.order.cpu()
        part_starts = offsets(lengths[order])
        before = offsets(self.lengths)[self.rollout]
        first, last = before + self.first, before + self.last
        first_part, last_part = (
            torch.searchsorted(part_starts, token, right=True) - 1 for token in (first, last)
        )
        pieces = last_part - first_part + 1
        chunk = row_index(pieces)
        part = first_part[chunk] + torch.arange(chunk.numel()) - offsets(pieces)[chunk]
        by_row = order[part].argsort(stable=True)
        chunk, part = chunk[by_row], part[by_row]
        start, past = part_starts[part], part_starts[part + 1]
        return replace(
            self,
            group=[self.group[at] for at in chunk.tolist()],
            rollout=order[part],
            first=torch.maximum(first[chunk], start) - start,
            last=torch.minimum(last[chunk], past - 1) - start,
            stages={name: column[chunk] for name, column in self.stages.items()},
            advantage=self.advantage[chunk],
            lengths=lengths,
        )

    @property
    def advantages(self) -> Advantages:
        """The advantage column, broadcast: what the estimator returns, bit for bit."""
        tokens = broadcast(self.advantage, self.last - self.first + 1)
        return from_ragged(list(torch.split(tokens, self.lengths.tolist())))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per chunk, all chunks at once: about 1 kB of memory per chunk."""
        return self._rows(slice(0, len(self.group)))

    def _rows(self, span: slice) -> list[dict[str, Any]]:
        """The dictionaries of the chunks in a span, and no others."""
        place = {"rollout": self.rollout, "first": self.first, "last": self.last}
        columns = {**place, **self.stages, "advantage": self.advantage}
        numbers = {name: column[span].tolist() for name, column in columns.items()}
        return [
            {"group": group, **{name: column[i] for name, column in numbers.items()}}
            for i, group in enumerate(self.group[span])
        ]

    def chunks_of(self, rollouts: slice = EVERY) -> slice:
        """Where the chunks of a span of rollouts lie.

        Args:
            rollouts: rows of the batch, from 0, without a step.

        Returns:
            A slice of the columns, with both ends.

        Raises:
            SettingError: a slice with a step.

        Example:
            >>> import stepcredit as sc
            >>> steps = sc.Steps(ends=[[1, 4], [2]], scores=[[0.9, 0.6], [0.2]])
            >>> rollouts = sc.Rollouts(group=[0, 0], process=steps, outcome=[1.0, 0.0])
            >>> sc.PASS().explain(rollouts).chunks_of(slice(1, 2))
            slice(2, 3, None)
        """
        first, past, step = rollouts.indices(self.lengths.numel())
        if step != 1:
            raise SettingError(f"expected a slice without a step, got {rollouts}", field="rollouts")
        span = torch.tensor([first, max(first, past)], device=self.rollout.device)
        ends = torch.searchsorted(self.rollout, span)
        return slice(*ends.tolist())

    def _shown(self, limit: int | None, start: int, rollouts: slice) -> slice:
        """The columns' slice of at most `limit` chunks from the `start`-th of the rollouts' on."""
        for name, value in (("limit", limit or 0), ("start", start)):
            if value < 0:
                raise SettingError(f"expected at least 0, got {value}", field=name)
        span = self.chunks_of(rollouts)
        first = min(span.start + start, span.stop)
        return slice(first, span.stop if limit is None else min(first + limit, span.stop))

    def table(
        self, limit: int | None = CHUNKS, *, start: int = 0, rollouts: slice = EVERY
    ) -> Table:
        """A rich table of chunks; nothing is built for the chunks that it leaves out.

        Args:
            limit: how many chunks at most; None: all of them, at about 10 kB of memory per chunk.
            start: the first chunk shown, counted from 0 among the chunks of `rollouts`.
            rollouts: whose chunks: rows of the batch, without a step.

        Raises:
            SettingError: a limit or a start below 0, or a slice with a step.
        """
        from stepcredit.credit.rich_table import explanation_table

        shown = self._rows(self._shown(limit, start, rollouts))
        lines = []
        for before, row in zip([None, *shown], shown, strict=False):
            new = before is None or before["rollout"] != row["rollout"]
            place = [str(row["group"]), str(row["rollout"])] if new else ["", ""]
            numbers = [f"{row[name]:.4f}" for name in (*self.stages, "advantage")]
            lines.append([*place, f"{row['first']}-{row['last']}", *numbers])
        headings = ("group", "rollout", "tokens", *self.stages, "advantage")
        return explanation_table(full_repr(self.method), headings, lines)

    def left_out_of_table(
        self, limit: int | None = CHUNKS, *, start: int = 0, rollouts: slice = EVERY
    ) -> str | None:
        """Which chunks `table` shows with the same arguments; None if it shows all.

        Example:
            >>> import stepcredit as sc
            >>> steps = sc.Steps(ends=[[1, 4], [2]], scores=[[0.9, 0.6], [0.2]])
            >>> rollouts = sc.Rollouts(group=[0, 0], process=steps, outcome=[1.0, 0.0])
            >>> sc.PASS().explain(rollouts).left_out_of_table(2)
            'chunks 0 to 1 of 3 are shown'
        """
        span, shown = self.chunks_of(rollouts), self._shown(limit, start, rollouts)
        if shown == span:
            return None
        first, last = shown.start - span.start, shown.stop - span.start - 1
        which = f"chunks {first:,} to {last:,}" if last > first else f"chunk {first:,}"
        if last < first:
            which = "no chunk"
        of = "" if rollouts == EVERY else " of these rollouts"
        verb = "are" if last > first else "is"
        return f"{which} of {span.stop - span.start:,}{of} {verb} shown"

    def footer(self) -> list[str]:
        """The lines below the table: the clipped share and the warnings."""
        clip = self.method.clip
        cut = [f"clipped at {clip:g}: {self.clipped_share:.1%} of tokens"] if clip else []
        steps = [f"steps without a trained token, left out: {self.left_out}"] * bool(self.left_out)
        return cut + steps + [f"warning: {warning}" for warning in self.warnings]

    def text(self, limit: int | None = CHUNKS, *, start: int = 0, rollouts: slice = EVERY) -> str:
        """The table as plain text, a line about the chunks that it leaves out, and the footer.

        Args:
            limit, start, rollouts: which chunks, as for `table`.

        Example:
            >>> import stepcredit as sc
            >>> rollouts = sc.Rollouts(group=[0, 0], outcome=[1.0, 0.0], lengths=[2, 3])
            >>> print(sc.GRPO().explain(rollouts).text(1))
            GRPO(clip=None, ddof=1, eps=1e-06)
            group  rollout  tokens  outcome  advantage
            0            0     0-1   1.0000     0.7071
            chunk 0 of 2 is shown; text(limit=None) shows all
        """
        from stepcredit.credit.rich_table import literal, table_lines

        lines = table_lines(self.table(limit, start=start, rollouts=rollouts))
        left_out = self.left_out_of_table(limit, start=start, rollouts=rollouts)
        hint = [f"{left_out}; text(limit=None) shows all"] if left_out else []
        return "\n".join([*lines, *hint, *(str(literal(line)) for line in self.footer())])

    def __str__(self) -> str:
        """`text()`: the first 200 chunks."""
        return self.text()
