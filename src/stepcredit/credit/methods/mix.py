"""A weighted mean of the advantages of two methods."""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.composition import Composition, Part, any_method, part
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.groups import Group
from stepcredit.data.rollouts import Rollouts
from stepcredit.settings.fields import number


@register("mix")
@dataclass(frozen=True)
class Mix(Composition):
    """A weighted mean of the advantages of two methods, token by token.

        A_t = share A1_t + (1 - share) A2_t

    Args:
        first, second: the methods of A1 and A2: a name, {name: fields} or a method. A method that
            normalizes over the whole batch is refused.
        share: of the first, from 0 to 1.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        MethodError: an unknown method, or a bad field of one; it begins with the field.
        RolloutError, MethodError: what the two methods raise.

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps(ends=[[0, 1], [0]], scores=[[1.0, 0.0], [0.0]])
        >>> rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> method = sc.Mix(first="rloo", second={"turn-return": {"outcome_weight": 0}}, share=0.25)
        >>> method(rollouts).ragged()[0].tolist()
        [1.0, 0.25]

    Source: the interpolation of advantages at several grains; share 1 and 0 are the methods alone.
    """

    first: Part = part("first", "grpo", "the method of A1", any_method)
    second: Part = part("second", "pass", "the method of A2", any_method)
    share: float = number(0.5, "share of the first", at_least=0, at_most=1)

    equation = "A_t = share A1_t + (1 - share) A2_t"

    def credit(self, rollouts: Rollouts) -> Credit:
        """Both credits, read at common slots, and their weighted mean."""
        group, (slots, (first, second), stages) = Group.of(rollouts), self.joined(rollouts)
        one, other = self.share * first, (1 - self.share) * second
        scale = group.largest(one) + group.largest(other)
        return Credit(slots, one + other, stages, scale=scale)
