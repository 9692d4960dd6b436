"""Standardize within a key: the steps of a group that were taken in the same state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stepcredit.credit.stages.groups import Group, Values, standardized
from stepcredit.data.forest import group_sum, to_dense, to_packed
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, step_slots
from stepcredit.errors import MethodError

COMBINES = ("fallback", "weighted")
PerStep = Float64[Tensor, " step"]


@dataclass(frozen=True, eq=False)
class StateGroups:
    """The steps of each group by the state that they were taken in, at one or several levels.

    Args:
        slots: the steps, as columns of a table; a response whose states are not known is one slot.
        counts: steps with a known state per rollout; they are in its first slots.
        levels: for each level, from the finest to the coarsest, the state of each packed step.

    Example:
        >>> from stepcredit.data.streams import Steps
        >>> steps = Steps([[0, 1], [0]], [[1.0, 2.0], [4.0]])
        >>> r = Rollouts([0, 0], process=steps, step_states=[["s", "t"], ["s"]])
        >>> StateGroups.of(r).members()[0].tolist()
        [[2.0, 1.0], [2.0, 0.0]]
    """

    slots: Slots
    counts: Int[Tensor, " rollout"]
    levels: Sequence[Group]

    @classmethod
    def of(cls, rollouts: Rollouts) -> StateGroups:
        """The states of the rollouts' steps.

        Args:
            rollouts: whole groups; a response whose states are not known is in no state.

        Raises:
            MethodError: the rollouts have no `step_states`.
        """
        states = rollouts.step_states
        if states is None:
            raise MethodError("the rollouts have no step_states")
        numbered = states.of_groups(rollouts.group_index, rollouts.num_groups)
        slots = step_slots(states.ends, states.counts, rollouts.lengths)
        return cls(slots, states.counts, [Group(index, count) for index, count in numbered])

    def members(self) -> list[Values]:
        """For each level: how many steps of the group are in each step's state, itself included."""
        return [self._dense(_members(level)) for level in self.levels]

    @property
    def alone_share(self) -> float:
        """Share of the steps whose state no other step of their group is in, at any level.

        Levels are nested, so the coarsest decides.
        """
        return float((_members(self.levels[-1]) == 1).to(torch.float64).mean())

    def standardize(
        self,
        values: Values,
        operator: str = "masked_norm",
        *,
        ddof: int = 1,
        eps: float = 1e-6,
        combine: str = "fallback",
        alpha: float = 1.0,
    ) -> Values:
        """N(x; S) of every step, S the values of all steps of its group in the same state.

            fallback  the N of the finest level at which the step's state has another member
            weighted  sum_k w_k N_k / sum_k w_k over these levels, w_k = (k + 1)^alpha

        k counts levels from 0, the coarsest. With one level both are the same.

        Args:
            values: (rollout, step).
            operator: as for `standardize`.
            ddof, eps: of masked_norm.
            combine: which levels count.
            alpha: 0 weighs all levels alike; the larger it is, the more the finest counts.

        Returns:
            (rollout, step) float64; 0 for a step whose state was met once, at all levels.

        Raises:
            MethodError: an unknown operator, or another `combine`.

        Example:
            >>> rollouts = Rollouts([0, 0], [1, 1], step_ends=[[0], [0]],
            ...                     step_states=[[["s", "x"]], [["t", "x"]]])
            >>> x = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
            >>> StateGroups.of(rollouts).standardize(x, "center").tolist()
            [[0.5], [-0.5]]

        Source: GiGPO (2505.10978) for one level, HGPO (2602.22817) for the weights. Differs:
            `fallback` is added here.
        """
        if combine not in COMBINES:
            expected = ", ".join(COMBINES)
            raise MethodError(f"expected one of {expected}, got {combine!r}", field="combine")
        packed = to_packed(values, self.counts)[:, None]
        normed = [
            standardized(packed, None, level, operator, ddof=ddof, eps=eps).values[:, 0]
            for level in self.levels
        ]
        shared = [_members(level) > 1 for level in self.levels]
        if combine == "weighted":
            weights = [(k + 1.0) ** alpha for k in reversed(range(len(self.levels)))]
            return self._dense(_weighted(normed, shared, weights))
        found = torch.zeros_like(normed[0])
        for value, has_others in zip(reversed(normed), reversed(shared), strict=True):
            found = torch.where(has_others, value, found)
        return self._dense(found)

    def _dense(self, values: PerStep) -> Values:
        return to_dense(values, self.counts, width=self.slots.width)


def _members(level: Group) -> PerStep:
    ones = torch.ones_like(level.index, dtype=torch.float64)
    return group_sum(ones, level.index, level.count)[level.index]


def _weighted(
    normed: Sequence[PerStep], shared: Sequence[Tensor], weights: Sequence[float]
) -> PerStep:
    """The weighted mean over the levels at which a step is not alone; 0 where there is none."""
    total, size = torch.zeros_like(normed[0]), torch.zeros_like(normed[0])
    for value, has_others, weight in zip(normed, shared, weights, strict=True):
        total += torch.where(has_others, weight * value, 0.0)
        size += weight * has_others
    return total / torch.where(size > 0, size, 1.0)
