"""`explain`: every stage of an estimator by chunk, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Int
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from stepcredit.credit.estimator import Estimator, credit_of, group_of, grouped
from stepcredit.credit.stages.batch_norm import Moments
from stepcredit.data.advantages import Advantages, from_ragged
from stepcredit.data.forest import broadcast, offsets, to_packed
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import SettingError

CHUNKS = 200
"""Chunks that a table shows unless it is given another limit."""
EVERY = slice(None)
"""All rollouts."""
WIDEST = 1_000_000
"""Characters per line at which a table is laid out: wider than any."""


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
        stages: {name: one value a chunk}, in the order they were computed.
        advantage: the last column: what every token of the chunk gets.
        warnings: what these rollouts cannot teach.
        clipped_share: share of trained tokens whose advantage `clip` cut.
        left_out: steps without a trained token, whose scores were left out.
    """

    method: Estimator
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
        title = literal(repr(self.method))
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("group", "rollout", "tokens", *self.stages, "advantage"):
            table.add_column(literal(heading), justify="left" if heading == "group" else "right")
        shown = self._rows(self._shown(limit, start, rollouts))
        for before, row in zip([None, *shown], shown, strict=False):
            new = before is None or before["rollout"] != row["rollout"]
            place = [str(row["group"]), str(row["rollout"])] if new else ["", ""]
            numbers = [f"{row[name]:.4f}" for name in (*self.stages, "advantage")]
            table.add_row(*map(literal, place), f"{row['first']}-{row['last']}", *numbers)
        return table

    def left_out_of_table(
        self, limit: int | None = CHUNKS, *, start: int = 0, rollouts: slice = EVERY
    ) -> str | None:
        """Which chunks `table` shows with the same arguments; None where it leaves none out.

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
        """The lines below the table: what was clipped, and the warnings."""
        clip = self.method.clip
        cut = [f"clipped at {clip:g}: {self.clipped_share:.1%} of tokens"] if clip else []
        steps = [f"steps without a trained token, left out: {self.left_out}"] * bool(self.left_out)
        return cut + steps + [f"warning: {warning}" for warning in self.warnings]

    def text(self, limit: int | None = CHUNKS, *, start: int = 0, rollouts: slice = EVERY) -> str:
        """The table as plain text, what it leaves out, and the footer.

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
        lines = plain(self.table(limit, start=start, rollouts=rollouts))
        left_out = self.left_out_of_table(limit, start=start, rollouts=rollouts)
        hint = [f"{left_out}; text(limit=None) shows all"] if left_out else []
        return "\n".join([*lines, *hint, *(str(literal(line)) for line in self.footer())])

    def __str__(self) -> str:
        """`text()`: the first 200 chunks."""
        return self.text()


def plain(table: Table) -> list[str]:
    """The lines of a table as wide as its cells are, so that no number is cut or wrapped."""
    console = Console(width=WIDEST, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def literal(text: str) -> Text:
    """Text that rich shows as it is: no markup, and nothing that a terminal would obey.

    Example:
        >>> print(literal("[b]x\\n"))
        [b]x\\n
    """
    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def explain(method: Estimator, rollouts: Rollouts, moments: Moments | None = None) -> Explanation:
    """Run the estimator's own stages and keep them, chunk by chunk.

    Args:
        method: any estimator.
        rollouts: any rollouts.
        moments: with a `batch_step`, the moments of the batch that these are a part of.

    Returns:
        An `Explanation`, rows in the rollouts' order.
    """
    method.check(rollouts)
    ordered, order = grouped(rollouts)
    if method.batch_step is not None and moments is None:
        moments = method.moments(ordered)
    rows = torch.arange(ordered.num_rollouts, device="cpu") if order is None else order.cpu()
    parts = [_Part.of(method, block, moments) for block in _with_rows(method, ordered, rows)]
    columns = _joined([part.columns for part in parts])
    back = columns["rollout"].argsort(stable=True)
    columns = {name: column[back] for name, column in columns.items()}
    cut = sum(part.clipped for part in parts)
    place = {name: columns.pop(name) for name in ("rollout", "first", "last")}
    return Explanation(
        method=method,
        group=[rollouts.group_labels[g] for g in rollouts.group_index[place["rollout"]].tolist()],
        **place,
        advantage=columns.pop("advantage"),
        stages=columns,
        lengths=rollouts.lengths.cpu(),
        warnings=method.notes(rollouts),
        clipped_share=cut / int(rollouts.lengths.sum()),
        left_out=rollouts.left_out,
    )


def _with_rows(
    method: Estimator, ordered: Rollouts, rows: Tensor
) -> Iterator[tuple[Rollouts, Tensor]]:
    at = 0
    for block in method._blocks(ordered):
        yield block, rows[at : at + block.num_rollouts]
        at += block.num_rollouts


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All blocks' columns, one after the other; 0 where a block's groups lack a stream."""
    names = dict.fromkeys(name for part in parts for name in part)
    blank = [torch.zeros_like(part["advantage"]) for part in parts]
    return {
        name: torch.cat([part.get(name, zero) for part, zero in zip(parts, blank, strict=True)])
        for name in names
    }


@dataclass(frozen=True, eq=False)
class _Part:
    """One block's columns, packed by chunk, and how many tokens were clipped."""

    columns: dict[str, Tensor]
    clipped: int

    @classmethod
    def of(
        cls, method: Estimator, block: tuple[Rollouts, Tensor], moments: Moments | None
    ) -> _Part:
        rollouts, rows = block
        credit = credit_of(method, rollouts)
        final = credit.settled(group_of(rollouts))
        if method.batch_step is not None and moments is not None:
            final = method.batch_step(final, moments)
        cut = (method.clipped(final) != final) & credit.slots.mask
        stages = {**credit.stages(), "advantage": method.clipped(final)}
        ends = credit.chunk_ends
        counts = ends.sum(1)
        columns = {name: _by_chunk(table, ends) for name, table in stages.items()}
        last = credit.slots.last()[ends]
        first = torch.cat([last.new_zeros(1), last[:-1] + 1])
        first[offsets(counts)[:-1]] = 0
        place = {
            "rollout": torch.repeat_interleave(rows, counts.cpu()),
            "first": first,
            "last": last,
        }
        tokens = int(
            (
                to_packed(credit.slots.sizes, credit.slots.counts)[
                    to_packed(cut, credit.slots.counts)
                ]
            ).sum()
        )
        return cls({name: value.cpu() for name, value in {**place, **columns}.items()}, tokens)


def _by_chunk(table: Tensor, ends: Tensor) -> Tensor:
    return table.expand(ends.shape)[ends].to(torch.float32)
