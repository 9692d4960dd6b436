"""REINFORCE++: the advantages of another method, normalized over the whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.composition import Composition, Part, any_method, part
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.batch_norm import WHITENING, BatchNorm
from stepcredit.data.rollouts import Rollouts


@register("reinforce-plus-plus")
@dataclass(frozen=True)
class ReinforcePlusPlus(Composition):
    """The advantages of another method, whitened over the batch's trained tokens.

        A_t = (a_t - mean a) / sqrt(variance of a + 1e-8)

    The default, a = outcome - mean of the group, is REINFORCE++ with a group baseline. With
    `{"pass": {"operator": "center"}}` the streams are fused over that baseline, and the batch's std
    takes the place of the groups' own.

    Args:
        of: the method of a: a name, {name: fields} or a method. One that normalizes over the whole
            batch itself is refused.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        A batch of one token, or of equal a, gives 0.

    Raises:
        MethodError: an unknown method, or a bad field of it; it begins with the field.
        RolloutError, MethodError: what that method raises.

    Example:
        >>> import stepcredit as sc
        >>> rollouts = sc.Rollouts([0, 0, 1, 1], lengths=[1] * 4, outcome=[1.0, 0.0, 1.0, 1.0])
        >>> [round(x, 3) for x in sc.ReinforcePlusPlus()(rollouts).packed().tolist()]
        [1.225, -1.225, 0.0, 0.0]

    Source: REINFORCE++ (2501.03262), its variant with a group baseline. Differs: any method can
        stand in the place of the baseline's.
    """

    of: Part = part("of", "dr-grpo", "the method that is whitened", any_method)

    part_fields: ClassVar[tuple[str, ...]] = ("of",)
    paper = "2501.03262"
    equation = "A_t = (a_t - mean a) / sqrt(variance of a + 1e-8)"

    @property
    def standardizes(self) -> bool:
        """Always, by the batch's std."""
        return True

    @property
    def batch_step(self) -> BatchNorm:
        """Whitening over the batch's trained tokens: always."""
        return WHITENING

    def credit(self, rollouts: Rollouts) -> Credit:
        """The credit of the method inside, with its own clip."""
        slots, (advantage,), stages = self.joined(rollouts)
        return Credit(slots, advantage, stages)
