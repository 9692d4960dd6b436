"""`LeadStream`, what a chunker looks at, and `Chunks`, what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.credit.stages.groups import Group, Mask, Values
from stepcredit.data.forest import all_true, segment_sum, to_dense, true_counts
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, every_token
from stepcredit.data.streams import Stream

READINGS = ("last", "mean", "sum", "ends")
"""How the process part of a chunk's value is read."""


@dataclass(frozen=True, eq=False)
class LeadStream:
    """The process stream that chunks follow: what a chunker looks at.

    Args:
        raw: its scores (rollout, slot), 0 off `mask`.
        standardized: the scores after the group operator N, 0 off `mask`.
        mask: which slots hold a score; a rollout without the stream has none.
        slots: where the columns lie: the stream's steps, or every token.
        group: which rows form a group.
        rollouts: the rollouts, for chunkers that read step ends or text.
    """

    raw: Values
    standardized: Values
    mask: Mask
    slots: Slots
    group: Group
    rollouts: Rollouts

    @property
    def scores_tokens(self) -> bool:
        """Whether the stream has one score per token."""
        return self.slots.ends is None

    @property
    def token_slots(self) -> Slots:
        """One slot per token: the stream's own slots if it scores tokens."""
        return self.slots if self.scores_tokens else every_token(self.slots.lengths)

    @property
    def present(self) -> Bool[Tensor, " rollout"]:
        """Which rollouts have the stream."""
        return self.mask[:, 0]


@dataclass(frozen=True, eq=False)
class Chunks:
    """Slots, and which of them end a chunk.

    Args:
        slots: consecutive slots that hold every trained token.
        chunk_ends: True on the last slot of each chunk; None: every slot is a chunk.
    """

    slots: Slots
    chunk_ends: Mask | None = None

    def cut_at(self, part_ends: Stream, where: Bool[Tensor, " rollout"]) -> Chunks:
        """The same chunks, which also end at the last token of each part of a trajectory.

        Args:
            part_ends: the parts' last tokens, one row per trajectory.
            where: which trajectories are cut.

        Example:
            >>> ends = Stream._of(values=torch.tensor([1, 3]), counts=torch.tensor([2]))
            >>> whole = Chunks(every_token(torch.tensor([4])), torch.arange(4)[None] == 3)
            >>> whole.cut_at(ends, torch.tensor([True])).chunk_ends.tolist()
            [[False, True, False, True]]
        """
        slots, lengths = self.slots, self.slots.lengths
        last = to_dense(part_ends.values, part_ends.counts, fill=lengths[:, None] - 1)
        last = torch.where(where[:, None], last, lengths[:, None] - 1)
        parts = Slots(part_ends.counts, lengths, last)
        held = slots.holding(parts)
        if not all_true(slots.last().gather(1, held) == last):
            return self._on_tokens().cut_at(part_ends, where)
        if self.chunk_ends is None:
            return self
        at_part_end = torch.zeros_like(self.chunk_ends).scatter_(1, held, True)
        return Chunks(slots, self.chunk_ends | at_part_end)

    def _on_tokens(self) -> Chunks:
        """The same chunks, with one slot per token."""
        tokens = every_token(self.slots.lengths)
        ends = self.slots.mask if self.chunk_ends is None else self.chunk_ends
        held = self.slots.holding(tokens)
        last = self.slots.last().gather(1, held) == tokens.last()
        return Chunks(tokens, tokens.mask & last & ends.gather(1, held))

    def read(self, values: Values, source: Slots, how: str = "last") -> Values:
        """A table over other slots, read chunk by chunk.

        Args:
            values: (rollout, source slot), 0 off the mask.
            source: its slots; each token of a slot has the slot's value.
            how: "last", at the last token of each slot; "mean" or "sum", over the trained tokens
                of each chunk; "ends", the sum over the source slots that end in each chunk.

        Returns:
            (rollout, slot); except for "last", equal on all slots of a chunk.

        Example:
            >>> tokens = every_token(torch.tensor([3]))
            >>> cut = Chunks(tokens, torch.tensor([[False, True, True]]))
            >>> z = torch.tensor([[1.0, 3.0, 5.0]]).double()
            >>> cut.read(z, tokens, "mean").tolist(), cut.read(z, tokens, "sum").tolist()
            ([[2.0, 2.0, 5.0]], [[4.0, 4.0, 5.0]])
            >>> step = Slots(torch.tensor([1]), torch.tensor([3]), torch.tensor([[2]]))
            >>> Chunks(tokens).read(torch.tensor([[7.0]]).double(), step, "ends").tolist()
            [[0.0, 0.0, 7.0]]
        """
        if how == "last":
            return self.slots.read(values, source)
        chunk, width = self._chunk_numbers(), self.slots.width
        if how == "ends":
            total = segment_sum(values, chunk.gather(1, self.slots.holding(source)), width)
        else:
            total = self._over_tokens(values, source, chunk, how)
        return torch.where(self.slots.mask, total.gather(1, chunk), 0.0)

    def _over_tokens(self, values: Values, source: Slots, chunk: Tensor, how: str) -> Values:
        """The mean or sum of a table over each chunk's trained tokens, by number of the chunk."""
        fine = source
        if source is not self.slots and source.ends is not None:
            fine = every_token(self.slots.lengths)
        held = chunk if fine is self.slots else chunk.gather(1, self.slots.holding(fine))
        sizes = fine.sizes.to(torch.float64)
        total = segment_sum(fine.read(values, source) * sizes, held, self.slots.width)
        if how == "sum":
            return total
        return total / segment_sum(sizes, held, self.slots.width).clamp(min=1)

    def _chunk_numbers(self) -> Int[Tensor, "rollout slot"]:
        """The number of the chunk that each slot belongs to, from 0."""
        ends = self.slots.mask if self.chunk_ends is None else self.chunk_ends
        return (ends.cumsum(1) - ends.to(torch.int64)).clamp(max=self.slots.width - 1)


Chunker = Callable[[LeadStream], Chunks]


def chunks_within_parts(rule: Chunker, lead: LeadStream) -> Chunks:
    """The chunks of the leading stream; none of them spans two parts of a trajectory.

    Every method calls its chunker here. The chunker sees the whole trajectory, and a chunk also
    ends where a part does. A trajectory without the leading stream that the chunker leaves whole
    has no chunks, and is not cut.

    Args:
        rule: the chunker.
        lead: what it looks at.

    Example:
        >>> from stepcredit.data.streams import Tokens
        >>> from stepcredit.credit.stages.process_streams import dense_stream
        >>> scores = Tokens([[0.5, 0.5], [0.5, 1.0]])
        >>> r = Rollouts([0, 0], process=scores, trajectory=["a", "a"]).joined()
        >>> table = dense_stream(r.streams["process"], r)
        >>> lead = LeadStream(*[table.values] * 2, table.mask, table.slots, Group.of(r), r)
        >>> whole = Chunks(table.slots, table.slots.end_slots())
        >>> chunks_within_parts(lambda lead: whole, lead).chunk_ends.tolist()
        [[False, True, False, True]]
    """
    chunks, part_ends = rule(lead), lead.rollouts.part_ends
    if part_ends is None:
        return chunks
    ends = chunks.slots.mask if chunks.chunk_ends is None else chunks.chunk_ends
    return chunks.cut_at(part_ends, lead.present | (true_counts(ends) > 1))
