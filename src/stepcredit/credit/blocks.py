"""Batches cut into blocks of whole groups, so that a CPU's tables stay small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from stepcredit.data.rollouts import Rollouts

SCORES_PER_BLOCK = 262_144
"""Scores per block: each block costs its calls, and larger tables cost memory traffic. Of the sizes
tried, from 65,536 to 524,288, the fastest for a token signal were 262,144 and 327,680."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """The rollouts with the rows of each group together, for work block by block.

    Args:
        ordered: the rollouts, the rows of each group together.
        order: for each row of `ordered`, its row in the batch; None if the order is unchanged.
    """

    ordered: Rollouts
    order: Int[Tensor, " rollout"] | None

    @classmethod
    def of(cls, rollouts: Rollouts) -> Blocks:
        """The blocks of rollouts. No method reads the response mask, so they do without it.

        Args:
            rollouts: one per trajectory, as `Rollouts.joined` gives them.

        Example:
            >>> Blocks.of(Rollouts(["a", "b", "a"], [1, 1, 1])).order.tolist()
            [0, 2, 1]
        """
        assert rollouts.trajectories is None, "parts must be joined before they are credited"
        if rollouts.response_mask is not None:
            rollouts = rollouts.replaced(response_mask=None)
        order = rollouts.group_order
        return cls(rollouts if order is None else rollouts.take(order), order)

    def __iter__(self) -> Iterator[Rollouts]:
        """The blocks; on other devices than a CPU each is as large as its streams allow."""
        on_cpu = self.ordered.device.type == "cpu"
        return self.ordered.blocks(SCORES_PER_BLOCK if on_cpu else float("inf"))

    def with_spans(self) -> Iterator[tuple[Rollouts, slice, slice]]:
        """Each block, and which rows and groups of `ordered` it holds."""
        row = group = 0
        for block in self:
            rows = slice(row, row + block.num_rollouts)
            groups = slice(group, group + block.num_groups)
            yield block, rows, groups
            row, group = rows.stop, groups.stop

    def with_rows(self) -> Iterator[tuple[Rollouts, Int[Tensor, " rollout"]]]:
        """Each block, and the rows of the batch that it holds, on the CPU."""
        count = self.ordered.num_rollouts
        order = torch.arange(count, device="cpu") if self.order is None else self.order.cpu()
        for block, rows, _ in self.with_spans():
            yield block, order[rows]

    @property
    def back(self) -> Int[Tensor, " rollout"] | None:
        """For each row of the batch, its row in `ordered`; None: the same.

        Example:
            >>> Blocks.of(Rollouts(["a", "b", "a"], [1, 1, 1])).back.tolist()
            [0, 2, 1]
        """
        if self.order is None:
            return None
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(self.order.numel(), device=self.order.device)
        return back

    def in_batch_order(self, values: Shaped[Tensor, " rollout"]) -> Shaped[Tensor, " rollout"]:
        """One value per row of `ordered`, in the batch's order."""
        back = self.back
        return values if back is None else values[back]
