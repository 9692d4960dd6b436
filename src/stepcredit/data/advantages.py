"""`Advantages`: what an estimator returns, one advantage per trained token, in any layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int, Shaped
from torch import Tensor

from stepcredit.data.forest import (
    broadcast,
    is_right_padded,
    take_rows,
    to_dense,
    true_counts,
)
from stepcredit.data.masking import tokens_to_response
from stepcredit.data.packing import Rows, pack_numbers, trained_of, whole_number
from stepcredit.data.rules import counted
from stepcredit.data.streams import Stream, value_range
from stepcredit.errors import RolloutError


@dataclass(frozen=True, eq=False)
class Advantages:
    """One advantage per trained token, held by chunk; the methods give it in a layout.

    Args:
        values: advantages packed, one per chunk (float32).
        sizes: tokens that each value stands for, 0 allowed; the last of each rollout is 0, a place
            for padding. None: one token each, and no such place.
        chunks: values per rollout.
        lengths: trained tokens per rollout.
        response_mask: which tokens of each response are trained, for `on_response`; None: all.

    Example:
        >>> a = Advantages(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([2, 1, 0]),
        ...                torch.tensor([3]), torch.tensor([3]))
        >>> a.packed().tolist()
        [0.5, 0.5, -1.0]
        >>> a.padded(torch.tensor([[0, 1, 1, 0, 1]])).tolist()
        [[0.0, 0.5, 0.5, 0.0, -1.0]]
    """

    values: Float32[Tensor, " chunk"]
    sizes: Int[Tensor, " chunk"] | None
    chunks: Int[Tensor, " rollout"]
    lengths: Int[Tensor, " rollout"]
    response_mask: Stream | None = None

    def packed(self) -> Float32[Tensor, " token"]:
        """All rollouts' advantages, one after the other: (sum of lengths,).

        The result may share memory with this object, and so may that of `ragged`: clone it before
        you change it.
        """
        if self.sizes is None:
            return self.values
        return broadcast(self.values, self.sizes, total=int(self.lengths.sum()))

    def ragged(self) -> list[Float32[Tensor, " token"]]:
        """One tensor of advantages per rollout, in the rollouts' order: views of `packed()`."""
        return list(torch.split(self.packed(), self.lengths.tolist()))

    def on_response(self) -> list[Float32[Tensor, " token"]]:
        """One tensor per rollout, with one advantage per response token, 0 where it isn't trained.

        It goes back from `Rollouts(mask=...)`: tensor i has as many values as response i has
        tokens, those of tools included. If every token is trained it is `ragged()`.

        Example:
            >>> import stepcredit as sc
            >>> r = sc.Rollouts(["q", "q"], outcome=[1.0, 0.0], mask=[[1, 0, 1], [1, 1]])
            >>> [row.tolist() for row in sc.GRPO(eps=0.0, ddof=0)(r).on_response()]
            [[1.0, 0.0, 1.0], [-1.0, -1.0]]
        """
        mask = self.response_mask
        if mask is None or mask.values.numel() == int(self.lengths.sum()):  # it trains every token
            return self.ragged()
        values = tokens_to_response(self.packed(), mask.values)
        return list(torch.split(values, mask.counts.tolist()))

    def padded(
        self, mask: Shaped[Tensor, "rollout token"] | None = None, *, width: int | None = None
    ) -> Float32[Tensor, "rollout token"]:
        """Advantages at a trainer's padded positions, 0 everywhere else.

        Args:
            mask: nonzero where a token is trained; row i has `lengths[i]` of them, anywhere. A
                tensor, an array or a list of lists; values of floats and lists must be 0 or 1.
            width: instead of a mask: pad on the right to this many tokens.

        Returns:
            (rollout, token), float32.

        Raises:
            RolloutError: the mask's trained tokens do not match the rollouts' lengths.
        """
        if mask is None:
            return self._right_padded(self._checked_width(width))
        trained = trained_of(mask).to(self.values.device)
        shape = tuple(trained.shape)
        if shape[0] != self.lengths.numel():
            expected = f"({self.lengths.numel()}, tokens)"
            raise RolloutError(f"shape is {shape}, expected {expected}", field="mask")
        if width is not None and whole_number(width, "width") != shape[1]:
            raise RolloutError(f"{width}, but the mask has {shape[1]} tokens", field="width")
        if is_right_padded(trained, self.lengths):
            return self._right_padded(shape[1])
        counts = true_counts(trained)
        if not torch.equal(counts, self.lengths):
            row = int((counts != self.lengths).nonzero()[0])
            had = f"{int(counts[row])} trained tokens"
            raise RolloutError(
                f"{had}, the rollout has {int(self.lengths[row])}", row=row, field="mask"
            )
        return tokens_to_response(self.packed(), trained)

    @property
    def value_sizes(self) -> Int[Tensor, " chunk"]:
        """Tokens that each value stands for; 0 for a place for padding."""
        if self.sizes is None:
            return torch.ones_like(self.values, dtype=torch.int64)
        return self.sizes

    def take(self, rows: Int[Tensor, " row"]) -> Advantages:
        """The advantages of the given rollouts, in the given order.

        Args:
            rows: numbers of rollouts, from 0, in any order and as often as wanted.

        Example:
            >>> a = from_ragged([[1.0, 2.0], [3.0]])
            >>> a.take(torch.tensor([1, 0])).packed().tolist()
            [3.0, 1.0, 2.0]
        """
        sizes = None if self.sizes is None else take_rows(self.sizes, self.chunks, rows)
        values = take_rows(self.values, self.chunks, rows)
        mask = None if self.response_mask is None else self.response_mask._taken(rows)
        return Advantages(values, sizes, self.chunks[rows], self.lengths[rows], mask)

    @classmethod
    def cat(cls, parts: Sequence[Advantages]) -> Advantages:
        """The advantages of several batches, one after the other.

        Args:
            parts: at least one.

        Example:
            >>> Advantages.cat([from_ragged([[1.0]]), from_ragged([[2.0, 3.0]])]).lengths.tolist()
            [1, 2]
        """
        if any(part.sizes is not None for part in parts):
            parts = [part._with_sizes() for part in parts]
        sizes = [part.sizes for part in parts if part.sizes is not None]
        mask = None
        if any(part.response_mask is not None for part in parts):
            masks = [part._mask_or_all for part in parts]
            values, counts = [m.values for m in masks], [m.counts for m in masks]
            mask = Stream._of(values=torch.cat(values), counts=torch.cat(counts))
        return cls(
            torch.cat([part.values for part in parts]),
            torch.cat(sizes) if sizes else None,
            torch.cat([part.chunks for part in parts]),
            torch.cat([part.lengths for part in parts]),
            mask,
        )

    @property
    def _mask_or_all(self) -> Stream:
        """The mask of the response tokens; all True where the rollouts have none."""
        if self.response_mask is not None:
            return self.response_mask
        every = self.lengths.new_ones(int(self.lengths.sum()), dtype=torch.bool)
        return Stream._of(values=every, counts=self.lengths)

    def _with_sizes(self) -> Advantages:
        """The same with a size for each value, and a place for padding at each rollout's end."""
        if self.sizes is not None:
            return self
        closing = self.values.new_zeros(1)
        rows = torch.split(self.values, self.chunks.tolist())
        values = torch.cat([part for row in rows for part in (row, closing)])
        chunks = self.chunks + 1
        sizes = torch.ones_like(values, dtype=torch.int64)
        sizes[chunks.cumsum(0) - 1] = 0
        return Advantages(values, sizes, chunks, self.lengths, self.response_mask)

    def to(self, device: torch.device | str) -> Advantages:
        """The same advantages on another device."""
        sizes = None if self.sizes is None else self.sizes.to(device)
        mask = None if self.response_mask is None else self.response_mask.to(device)
        chunks, lengths = self.chunks.to(device), self.lengths.to(device)
        return Advantages(self.values.to(device), sizes, chunks, lengths, mask)

    def __repr__(self) -> str:
        """Sizes and the range of the advantages, on one line.

        Example:
            >>> from_ragged([torch.tensor([1.0, -0.5]), torch.tensor([3.0])])
            Advantages(2 responses, 3 tokens, from -0.5 to 3)
        """
        tokens = counted(int(self.lengths.sum()), "token")
        held = self.values if self.sizes is None else self.values[self.sizes > 0]
        return f"Advantages({counted(len(self.lengths), 'response')}, {tokens}{value_range(held)})"

    def _checked_width(self, width: int | None) -> int:
        longest = int(self.lengths.max())
        if width is None or whole_number(width, "width") < longest:
            raise RolloutError(f"needs a mask, or at least {longest}", field="width")
        return int(width)

    def _right_padded(self, width: int) -> Float32[Tensor, "rollout token"]:
        """Write values and padding in one broadcast: each row's last chunk is its padding."""
        shape = (self.lengths.numel(), width)
        if self.sizes is None:
            table = to_dense(self.values, self.lengths, width=width)
            return table.clone() if table.data_ptr() == self.values.data_ptr() else table
        sizes = self.sizes.clone()
        sizes[self.chunks.cumsum(0) - 1] = width - self.lengths
        total = shape[0] * width
        return broadcast(self.values, sizes, total=total).view(shape)


def from_ragged(rows: Rows) -> Advantages:
    """Advantages from one tensor per rollout, or one list.

    Raises:
        RolloutError: a value that float32 cannot hold.

    Example:
        >>> from_ragged([torch.tensor([1.0, 2.0]), torch.tensor([3.0])]).lengths.tolist()
        [2, 1]
    """
    values, lengths = pack_numbers(rows, None, "advantages")
    return Advantages(values.to(torch.float32), None, lengths, lengths)
