"""`Slots`: where a dense table's columns lie in the tokens of each response."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from stepcredit.data.forest import slot_mask, to_dense, width_of, zero_past_end_
from stepcredit.data.streams import Steps, Stream


@dataclass(frozen=True, eq=False)
class Slots:
    """Each response cut into consecutive slots, every trained token in exactly one of them.

    Args:
        counts: slots per response.
        lengths: trained tokens per response.
        ends: (rollout, slot) index of each slot's last token; entries beyond the response's last
            slot must not be smaller than the last end. None: every token is a slot.
        mask: True where a response has a slot; made from `counts` if it is left out.
    """

    counts: Int[Tensor, " rollout"]
    lengths: Int[Tensor, " rollout"]
    ends: Int[Tensor, "rollout slot"] | None = None
    mask: Bool[Tensor, "rollout slot"] = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.mask is None:
            object.__setattr__(self, "mask", slot_mask(self.counts, self.width))

    @cached_property
    def width(self) -> int:
        """Columns of the dense table."""
        return width_of(self.counts) if self.ends is None else self.ends.shape[1]

    def last(self) -> Int[Tensor, "rollout slot"]:
        """Index of each slot's last token; without a meaning beyond the response's last slot."""
        if self.ends is not None:
            return self.ends
        return torch.arange(self.width, device=self.counts.device).expand(len(self.counts), -1)

    @cached_property
    def sizes(self) -> Int[Tensor, "rollout slot"]:
        """Tokens in each slot, 0 beyond the response's last slot.

        Example:
            >>> Slots(torch.tensor([2]), torch.tensor([5]), torch.tensor([[1, 4]])).sizes.tolist()
            [[2, 3]]
        """
        if self.ends is None:
            return self.mask.to(torch.int64)
        return self.sizes_and_place[:, :-1]

    @cached_property
    def sizes_and_place(self) -> Int[Tensor, "rollout slot+1"]:
        """`sizes`, and a column of 0: `Advantages` keeps a place for padding there.

        Example:
            >>> steps = Slots(torch.tensor([2]), torch.tensor([5]), torch.tensor([[1, 4]]))
            >>> steps.sizes_and_place.tolist()
            [[2, 3, 0]]
        """
        assert self.ends is not None
        sizes = self.ends.new_zeros((len(self.ends), self.width + 1))
        torch.sub(self.ends[:, 1:], self.ends[:, :-1], out=sizes[:, 1:-1])
        sizes[:, 0] = self.ends[:, 0] + 1
        zero_past_end_(sizes[:, :-1], self.counts, self.mask)
        return sizes

    def end_slots(self) -> Bool[Tensor, "rollout slot"]:
        """True on each response's last slot."""
        columns = torch.arange(self.width, device=self.counts.device)
        return columns == self.counts[:, None] - 1

    def read(
        self, table: Float64[Tensor, "rollout source"], source: Slots
    ) -> Float64[Tensor, "rollout slot"]:
        """A table over other slots, read at the last token of each of these slots; 0 past the end.

        Example:
            >>> steps = Slots(torch.tensor([2]), torch.tensor([3]), torch.tensor([[1, 2]]))
            >>> tokens = Slots(torch.tensor([3]), torch.tensor([3]))
            >>> tokens.read(torch.tensor([[0.5, 0.25]]), steps).tolist()
            [[0.5, 0.5, 0.25]]
        """
        if source is self:
            return table
        value = table.gather(1, source.holding(self))
        return torch.where(self.mask, value, 0.0)

    def holding(self, other: Slots) -> Int[Tensor, "rollout other"]:
        """Which of these slots holds the last token of each of the other slots.

        The entries beyond a response's last slot have no meaning.

        Example:
            >>> steps = Slots(torch.tensor([2]), torch.tensor([3]), torch.tensor([[1, 2]]))
            >>> steps.holding(every_token(torch.tensor([3]))).tolist()
            [[0, 0, 1]]
        """
        at = other.last()
        if self.ends is not None:
            at = torch.searchsorted(self.ends, at.contiguous())
        return at.clamp(max=self.width - 1)


def slots_of(stream: Stream, lengths: Int[Tensor, " rollout"]) -> Slots:
    """The slots that a stream scores: its steps, or every token.

    A rollout without the stream is one step (its whole response) for `Steps`, and its tokens for
    other streams.

    Example:
        >>> slots_of(Steps([[1, 2], []], [[0.5, 0.5], []]), torch.tensor([3, 4])).ends[1, 0].item()
        3
    """
    if not isinstance(stream, Steps):
        return every_token(lengths)
    return step_slots(stream.ends, stream.counts, lengths)


def step_slots(
    ends: Int[Tensor, " slot"], counts: Int[Tensor, " rollout"], lengths: Int[Tensor, " rollout"]
) -> Slots:
    """Slots from packed step ends; a rollout without any is one slot."""
    width = width_of(counts)
    mask = slot_mask(counts, width)
    table = to_dense(ends, counts, width=width, fill=lengths[:, None] - 1, mask=mask)
    if int(counts.min()) > 0:
        return Slots(counts, lengths, table, mask)
    return Slots(counts.clamp(min=1), lengths, table)


def every_token(lengths: Int[Tensor, " rollout"]) -> Slots:
    """One slot per token.

    Example:
        >>> every_token(torch.tensor([2])).sizes.tolist()
        [[1, 1]]
    """
    return Slots(lengths, lengths)


def whole_responses(lengths: Int[Tensor, " rollout"]) -> Slots:
    """One slot per response.

    Example:
        >>> whole_responses(torch.tensor([3])).sizes.tolist()
        [[3]]
    """
    return Slots(torch.ones_like(lengths), lengths, lengths[:, None] - 1)
