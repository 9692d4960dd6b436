"""The sign of one method's advantages and the size of another's."""

from __future__ import annotations

from dataclasses import dataclass

from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.composition import Composition, Part, any_method, part
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.groups import Group, is_rounding
from stepcredit.data.rollouts import Rollouts


@register("sign-size")
@dataclass(frozen=True)
class SignSize(Composition):
    """The sign of one method's advantage and the size of another's, token by token.

        A_t = sign(A1_t) |A2_t|

    The first method decides whether a token is made more or less probable, the second by how much.
    It is 0 wherever either of them is. An A1 of at most 1e-9 of its group's largest |A1| may be a
    rounding error, and counts as 0.

    Args:
        first: the method whose sign counts: a name, {name: fields} or a method.
        second: the method whose size counts, likewise.
        clip: the last step: A is limited to [-clip, clip].

    Raises:
        MethodError: an unknown method, or a bad field of one; it begins with the field.
        RolloutError, MethodError: what the two methods raise.

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps(ends=[[0, 1], [0]], scores=[[1.0, -3.0], [0.0]])
        >>> rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
        >>> method = sc.SignSize(first="rloo", second={"turn-return": {"outcome_weight": 0}})
        >>> method(rollouts).ragged()[0].tolist()
        [2.0, 3.0]

    Source: the principle of RLSD (2604.03128): the reliable signal gives the direction, the dense
        one the size. RLSD's own rule, in which the size is the advantage times a bounded ratio of
        probabilities, is `rlsd`.
    """

    first: Part = part("first", "grpo", "the method whose sign counts", any_method)
    second: Part = part("second", "pass", "the method whose size counts", any_method)

    equation = "A_t = sign(A1_t) |A2_t|"

    def credit(self, rollouts: Rollouts) -> Credit:
        """Both credits, read at common slots; the sign of one times the size of the other."""
        group, (slots, (first, second), stages) = Group.of(rollouts), self.joined(rollouts)
        largest = group.to_rows(group.largest(first)).expand_as(first)
        sign = first.sign().masked_fill(is_rounding(first.abs(), largest), 0.0)
        return Credit(slots, sign * second.abs(), stages)
