"""`LeadStream`, what a chunker looks at, and `Chunks`, what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.credit.stages.groups import Group, Mask, Values
from stepcredit.data.forest import segment_sum
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, every_token

READINGS = ("last", "mean", "sum")
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

    def read(self, values: Values, source: Slots, how: str = "last") -> Values:
        """A table over other slots, read chunk by chunk.

        Args:
            values: (rollout, source slot), 0 off the mask.
            source: its slots; each token of a slot has the slot's value.
            how: "last", at the last token of each slot; "mean" or "sum", over the trained tokens
                of each chunk.

        Returns:
            (rollout, slot); "mean" and "sum" are equal on all slots of a chunk.

        Example:
            >>> tokens = every_token(torch.tensor([3]))
            >>> cut = Chunks(tokens, torch.tensor([[False, True, True]]))
            >>> z = torch.tensor([[1.0, 3.0, 5.0]]).double()
            >>> cut.read(z, tokens, "mean").tolist(), cut.read(z, tokens, "sum").tolist()
            ([[2.0, 2.0, 5.0]], [[4.0, 4.0, 5.0]])
        """
        if how == "last":
            return self.slots.read(values, source)
        fine = source
        if source is not self.slots and source.ends is not None:
            fine = every_token(self.slots.lengths)
        chunk, width = self._chunk_numbers(), self.slots.width
        held = chunk if fine is self.slots else chunk.gather(1, self.slots.holding(fine))
        sizes = fine.sizes.to(torch.float64)
        total = segment_sum(fine.read(values, source) * sizes, held, width)
        if how == "mean":
            total = total / segment_sum(sizes, held, width).clamp(min=1)
        return torch.where(self.slots.mask, total.gather(1, chunk), 0.0)

    def _chunk_numbers(self) -> Int[Tensor, "rollout slot"]:
        """The number of the chunk that each slot belongs to, from 0."""
        ends = self.slots.mask if self.chunk_ends is None else self.chunk_ends
        return (ends.cumsum(1) - ends.to(torch.int64)).clamp(max=self.slots.width - 1)


Chunker = Callable[[LeadStream], Chunks]
