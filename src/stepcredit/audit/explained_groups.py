"""A method's explanation of some responses, with what it takes from the whole batch kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.explanation import Explanation
from stepcredit.data.rollouts import Rollouts


def explained_groups(
    method: Estimator, rollouts: Rollouts, rows: Sequence[int]
) -> tuple[Explanation, list[int]]:
    """The explanation of the groups that hold some rows.

    What a method takes from the whole batch (a scale, moments) is that of the whole batch.

    Args:
        method: any method that runs on the batch.
        rollouts: the batch.
        rows: numbers of responses.

    Returns:
        The explanation, and the numbers of its responses in the batch, in order.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(["a", "b", "a"], lengths=[1, 1, 1], outcome=[1.0, 0.0, 0.0])
        >>> explained_groups(sc.GRPO(), r, [2])[1]
        [0, 2]
    """
    group = rollouts.group_index
    held = torch.isin(group, group[torch.as_tensor(rows)]).nonzero()[:, 0]
    bound = method if method.batch_scale is None else method.for_batch(rollouts)
    explained = bound.explain(rollouts.take(held), moments=bound.moments(rollouts))
    return explained, held.tolist()
