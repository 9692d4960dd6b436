"""Outcome and format of completions, from the values of TRL's reward functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def outcome_values(
    rewards: Tensor, names: Sequence[str], outcome_reward: str | None, format_reward: str | None
) -> list[float | None] | None:
    """The outcome of each completion, None where it is unknown; None: no function gives one.

    Args:
        rewards: (completion, reward function), NaN where a function gave None.
        names: of the reward functions.
        outcome_reward: the function that gives the outcome; None: the sum of all but the format's.
        format_reward: the function that gives the format reward.

    Example:
        >>> rewards = torch.tensor([[1.0, 0.5], [torch.nan, 1.0]])
        >>> outcome_values(rewards, ["right", "layout"], None, "layout")
        [1.0, None]
    """
    if outcome_reward is not None:
        return _known_values(rewards[:, names.index(outcome_reward)])
    columns = [i for i, name in enumerate(names) if name != format_reward]
    if not columns:
        return None
    chosen = rewards[:, columns]
    return _known_values(chosen.nansum(1).masked_fill(chosen.isnan().all(1), torch.nan))


def format_values(
    rewards: Tensor, names: Sequence[str], format_reward: str | None
) -> list[float | None] | None:
    """The format reward of each completion; None: there is none.

    Args:
        rewards, names, format_reward: as in `outcome_values`.
    """
    if format_reward is None:
        return None
    return _known_values(rewards[:, names.index(format_reward)])


def _known_values(column: Tensor) -> list[float | None]:
    return [None if value != value else value for value in column.double().tolist()]
