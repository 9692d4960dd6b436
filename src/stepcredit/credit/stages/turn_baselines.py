"""Baselines of turn returns, made of the other responses of the group alone.

A baseline that depends on the response's own choices biases the policy gradient. The mean over all
responses that reach a turn, the response itself counted, multiplies the gradient of that turn by
1 - 1/n, n the number of responses that reach it; so a turn that one response alone reaches teaches
nothing. Here a response is never in its own baseline.
"""

from __future__ import annotations

import torch

from stepcredit.credit.stages.groups import Group, Mask, PerRow, Values
from stepcredit.data.forest import group_sum


def trajectory_baseline(returns: Values, group: Group) -> PerRow:
    """The mean return of the group's other responses, from their first turn on.

        b_i = mean over the others k of G_k1

    Args:
        returns: G, (rollout, turn).
        group: which rows form a group.

    Returns:
        (rollout, 1); 0 for a response alone in its group.

    Example:
        >>> pair, g = Group(torch.tensor([0, 0]), 1), torch.tensor([[3.0, 1.0], [5.0, 2.0]])
        >>> trajectory_baseline(g.double(), pair).tolist()
        [[5.0], [3.0]]
    """
    first = returns[:, 0]
    rivals = group.others(torch.ones_like(first)).clamp(min=1)
    return (group.others(first) / rivals)[:, None]


def turn_baseline(returns: Values, mask: Mask, group: Group) -> Values:
    """The mean return of the same turn over the group's other responses that reach it.

        b_ij = mean over the others k that reach turn j of G_kj
        b_ij = mean over the others k of G_k1                    where no other reaches turn j

    Args:
        returns: G, (rollout, turn), 0 past a response's last turn.
        mask: which turns a response has.
        group: which rows form a group.

    Returns:
        (rollout, turn); 0 for a response alone in its group. It has no meaning off the mask.

    Example:
        >>> three = Group(torch.tensor([0, 0, 0]), 1)
        >>> g = torch.tensor([[1.0, 4.0], [2.0, 8.0], [6.0, 0.0]]).double()
        >>> mask = torch.tensor([[True, True], [True, True], [True, False]])
        >>> turn_baseline(g, mask, three).tolist()[:2]
        [[4.0, 8.0], [3.5, 4.0]]
    """
    reached = mask.to(torch.float64)
    rivals = _over_others(reached, group)
    others = _over_others(returns * reached, group) / rivals.clamp(min=1)
    return torch.where(rivals > 0, others, trajectory_baseline(returns, group))


def _over_others(table: Values, group: Group) -> Values:
    """The sum of each slot over the other rows of a row's group."""
    total = group_sum(table, group.index, group.count).index_select(0, group.index)
    return total - table
