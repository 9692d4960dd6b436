"""Pools of step scores, outcomes and formats that are standardized together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from stepcredit.credit.stages.fusion import SCALARS, PerRollout, sum_tables
from stepcredit.credit.stages.groups import Group, Mask, Values, is_rounding
from stepcredit.credit.stages.process_streams import DenseStream
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import whole_responses

Normal = Callable[[Values, Mask], Values]


def no_scores(rollouts: Rollouts) -> DenseStream:
    """One slot per response with score 0, for groups without a process stream.

    Example:
        >>> no_scores(Rollouts([0], [3])).values.tolist()
        [[0.0]]
    """
    slots = whole_responses(rollouts.lengths)
    zero = torch.zeros_like(slots.mask, dtype=torch.float64)
    return DenseStream(zero, slots.mask, slots, slots.counts)


def weighted_sum(
    tables: Mapping[str, Values], lead: DenseStream, weights: Mapping[str, float], group: Group
) -> Values:
    """Sum over streams of w x at each score; 0 where the terms cancel up to rounding.

    Args:
        tables: streams on the slots of the leading one, outcome and format as (rollout, 1).
        lead: the leading stream, whose mask is True where there is a score.
        weights: of the streams.
        group: which rows form a group; rounding is relative to its largest sum of |w x|.

    Returns:
        (rollout, slot), 0 off the mask.
    """
    terms = [weights[name] * tables[name] * lead.mask for name in tables if name in weights]
    total = sum_tables(terms, lead.values)
    sizes = sum_tables([term.abs() for term in terms], lead.values)
    noise = is_rounding(total.abs(), group.to_rows(group.largest(sizes)))
    return torch.where(noise, 0.0, total)


def standardized_union(
    values: Mapping[str, Values],
    scalars: Mapping[str, PerRollout],
    lead: DenseStream,
    weights: Mapping[str, float],
    normal: Normal,
) -> Values:
    """Sum over streams of w N(x), N of one mean and std over all scores, outcomes and formats.

    Args:
        values: process streams on the slots of the leading one.
        scalars: outcome and format, (rollout, 1); an unknown one is 0.
        lead: the leading stream, whose mask is True where there is a score.
        weights: of the streams.
        normal: standardizes a table under a mask.

    Returns:
        (rollout, slot), 0 off the mask.
    """
    known = torch.ones_like(lead.mask[:, :1])
    union = torch.cat([*values.values(), *scalars.values()], 1)
    mask = torch.cat([lead.mask] * len(values) + [known] * len(scalars), 1)
    widths = [lead.slots.width] * len(values) + [1] * len(scalars)
    parts = torch.split(normal(union, mask), widths, 1)
    named = dict(zip([*values, *SCALARS], parts, strict=True))
    weighted = [weights[name] * named[name] for name in weights if name in named]
    return sum_tables(weighted, lead.values) * lead.mask
