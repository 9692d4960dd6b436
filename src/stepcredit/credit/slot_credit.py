"""`Credit`: what a method's `credit` returns, and the checks of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64

from stepcredit.credit.stages.groups import Group, Mask, Values, is_rounding
from stepcredit.data.forest import from_row_ends
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, whole_responses
from stepcredit.errors import MethodError


@dataclass(frozen=True, eq=False)
class Credit:
    """Advantages by slot, and every stage that led to them.

    Args:
        slots: where the table's columns lie in the tokens of each response.
        advantage: (rollout, slot) float64; equal on all slots of a chunk.
        stages: returns the tables (rollout, slot) or (rollout, 1) that led to the advantages, by
            name and in order; only `explain` calls it.
        chunk_ends: True on the last slot of each chunk; None: every slot is a chunk.
        scale: size of the terms that were added up in each group. If all advantages of a group are
            rounding noise beside it (at most 1e-9 of it), the group gets 0.
        entering: returns the size of the terms that the advantages depend on, where `scale` may
            count others too. It is called for a batch in which `scale` alone gives a group 0.
    """

    slots: Slots
    advantage: Values
    stages: Callable[[], dict[str, Values]] = dict
    chunk_ends: Mask | None = None
    scale: Float64[torch.Tensor, " group"] | None = None
    entering: Callable[[], Float64[torch.Tensor, " group"]] | None = None

    from_end: ClassVar[bool] = False
    """Whether each row of `advantage` is counted from the response's last slot."""

    @classmethod
    def flat(cls, rollouts: Rollouts, advantage: Values, **stages: Values) -> Credit:
        """One advantage per response, on all its tokens.

        Args:
            rollouts: the rollouts.
            advantage: (rollout, 1).
            stages: the tables that led to it, for `explain`.
        """
        return cls(whole_responses(rollouts.lengths), advantage, lambda: stages)

    @classmethod
    def checked(cls, credit: object, rollouts: Rollouts) -> Credit:
        """What a method's `credit` returned for these rollouts.

        Raises:
            MethodError: it is no `Credit`, or it does not hold one advantage per slot of these
                rollouts.
        """
        if not isinstance(credit, Credit):
            raise MethodError(f"credit() returns {type(credit).__name__}, expected a Credit")
        slots, got = (rollouts.num_rollouts, credit.slots.width), tuple(credit.advantage.shape)
        if got != slots or credit.slots.counts.numel() != rollouts.num_rollouts:
            raise MethodError(f"credit() returns advantages of shape {got}, expected {slots}")
        return credit

    @property
    def last_slots(self) -> Mask:
        """True on the last slot of each chunk."""
        return self.slots.mask if self.chunk_ends is None else self.chunk_ends

    def in_order(self) -> Credit:
        """The same credit with the advantages in the order of the slots."""
        return self

    def without_rounding_noise(self, group: Group) -> Values:
        """The advantages, in their order; 0 for a group whose terms cancel up to rounding."""
        if self.scale is None:
            return self.advantage
        at_first = group.largest(self.advantage[:, :1])  # enough for nearly every group
        if not bool(is_rounding(at_first, self.scale).any()):
            return self.advantage
        largest = group.largest(self.in_order().advantage)
        noise = is_rounding(largest, self.scale)
        if not bool(noise.any()):
            return self.advantage
        if self.entering is not None and bool((noise & (largest > 0)).any()):
            noise = is_rounding(largest, self.entering())
        return torch.where(group.to_rows(noise), 0.0, self.advantage)


class CreditFromEnd(Credit):
    """A credit each row of whose advantages is counted from the response's last slot.

    What stands past a response's first slot has no meaning.

    Example:
        >>> from stepcredit.data.slots import every_token
        >>> slots, turned = every_token(torch.tensor([2])), torch.tensor([[1.0, 2.0]]).double()
        >>> CreditFromEnd(slots, turned).in_order().advantage.tolist()
        [[2.0, 1.0]]
    """

    from_end = True

    def in_order(self) -> Credit:
        """The same credit with the advantages in the order of the slots."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        table = from_row_ends(self.advantage, self.slots.counts)
        return Credit(**fields | {"advantage": table})
