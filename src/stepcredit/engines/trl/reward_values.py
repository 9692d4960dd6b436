"""Outcome and format of completions, from the values of TRL's reward functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

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


def summed_outcome(
    names: Sequence[str], outcome_reward: str | None, format_reward: str | None, right_above: float
) -> Iterator[str]:
    """A line where the outcome is a sum of rewards, of which one is enough to count as right.

    Args:
        names, outcome_reward, format_reward: as in `outcome_values`.
        right_above: the outcome above which the metrics call a response right.

    Example:
        >>> print(*summed_outcome(["right", "layout"], None, None, 0.0))
        right_above: the outcome is right + layout, and one of them is enough to be above 0, where \
the metrics call a response right: set right_above, or name the outcome_reward
        >>> list(summed_outcome(["right", "layout"], None, "layout", 0.0))
        []
    """
    summed = [name for name in names if name != format_reward]
    if outcome_reward is None and len(summed) > 1 and right_above == 0:
        line = f"right_above: the outcome is {' + '.join(summed)}, and one of them is enough to be "
        line += "above 0, where the metrics call a response right: set right_above, or name the "
        yield f"{line}outcome_reward"


def equal_names(names: Sequence[str]) -> Iterator[str]:
    """A line for each name that several reward functions have: TRL logs them under one metric.

    Example:
        >>> print(*equal_names(["right", "<lambda>", "<lambda>"]))
        2 reward functions are called '<lambda>': their metrics are mixed, and the preflight tries \
the last alone; give each a name of its own (`__name__`)
    """
    for name, count in Counter(names).items():
        if count > 1:
            line = f"{count} reward functions are called {name!r}: their metrics are mixed, and the"
            yield f"{line} preflight tries the last alone; give each a name of its own (`__name__`)"


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
