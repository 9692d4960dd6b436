"""A method's advantages as a return, what divides it, and a part that is equal on all tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepcredit.audit.explained_groups import explained_groups
from stepcredit.audit.stored_advantages import Counts, Floats
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.explanation import Explanation
from stepcredit.data.forest import broadcast
from stepcredit.data.rollouts import Rollouts

NEARLY = 1e-4
"""Rounding of stages to float32, in parts of the largest advantage."""


@dataclass(frozen=True, eq=False)
class ReturnParts:
    """Advantages as `A = returns / divisors + rest`, where `rest` is one number per response.

    Args:
        returns: a sum over what follows: each token's is its own reward plus that of the next one.
        divisors: what the return is divided by; 1 where nothing is.
        rest: what is added on all tokens of a response, such as an outcome.
    """

    returns: Floats
    divisors: Floats
    rest: Floats

    @classmethod
    def of(cls, method: Estimator, rollouts: Rollouts, rows: Counts) -> ReturnParts | None:
        """The parts of some responses, packed over their trained tokens, as `explain` shows them.

        Args:
            method: a method that runs on the batch.
            rollouts: the batch.
            rows: numbers of the responses, in order.

        Returns:
            None where the advantages are not made in this way: of a method without a return, with
            a minimum of what follows or a discount, or that standardizes or limits its returns.

        Example:
            >>> import stepcredit as sc
            >>> steps = sc.Steps([[0, 1], [0]], [[0.5, 0.25], [0.25]])
            >>> rollouts = sc.Rollouts([0, 0], process=steps, outcome=[1.0, 0.0])
            >>> method = sc.PURE(form="sum", baseline="rollout")
            >>> parts = ReturnParts.of(method, rollouts, np.array([0]))
            >>> parts.returns.tolist(), parts.rest.tolist()
            ([0.75, 0.25], [0.75, 0.75])
            >>> ReturnParts.of(sc.PASSMin(), rollouts, np.array([0])) is None
            True
        """
        explained, held = explained_groups(method, rollouts, rows.tolist())
        columns = _parts(explained)
        if columns is None:
            return None
        chosen = torch.as_tensor(np.isin(held, rows))
        wanted = broadcast(chosen, explained.lengths)
        sizes = explained.last - explained.first + 1
        return cls(*(broadcast(each, sizes)[wanted].double().numpy() for each in columns))


def _parts(explained: Explanation) -> tuple[Tensor, Tensor, Tensor] | None:
    """The three columns by chunk; the return is the stage itself, or the stage less a baseline."""
    stages, advantage = explained.stages, explained.advantage.double()
    if "return_to_go" not in stages:
        return None
    divisors = stages.get("divisor", torch.ones_like(advantage)).double()
    divisors = torch.where(divisors == 0, 1.0, divisors)
    returns = stages["return_to_go"].double()
    scale = float(returns.abs().max())
    rewards = _rewards(returns, explained)
    if not any(_is_one_per_response(rewards - x, explained, scale) for x in stages.values()):
        return None  # no stage is what is summed: there is a discount
    below = [stages["baseline"].double()] if "baseline" in stages else []
    for found in (returns, *(returns - each for each in below)):
        rest = advantage - found / divisors
        if _is_one_per_response(rest, explained, float(advantage.abs().max())):
            return found, divisors, rest
    return None


def _rewards(returns: Tensor, explained: Explanation) -> Tensor:
    """What each chunk adds to the return that follows it."""
    following = torch.cat([returns[1:], returns.new_zeros(1)])
    is_last = torch.cat([explained.rollout[1:] != explained.rollout[:-1], torch.ones(1).bool()])
    return returns - torch.where(is_last, 0.0, following)


def _is_one_per_response(values: Tensor, explained: Explanation, scale: float) -> bool:
    """Whether all chunks of a response have the same value, up to rounding."""
    counts = explained.rollout.bincount(minlength=explained.lengths.numel())
    firsts = counts.cumsum(0) - counts
    apart = values - broadcast(values[firsts], counts)
    return float(apart.abs().max()) <= NEARLY * scale
