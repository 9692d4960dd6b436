"""TRL's reward metrics and model card, computed from our outcome."""

from __future__ import annotations

from typing import Any

import torch

import stepcredit as sc


def card_of(estimator: sc.Estimator) -> tuple[str, dict[str, Any]]:
    """What a model card calls the trainer, and the paper of its method, where it names one.

    Example:
        >>> card_of(sc.PURE())
        ('pure of stepcredit', {'id': '2504.15275', 'title': 'arXiv 2504.15275'})
    """
    paper = estimator.paper
    known = {"id": paper, "title": f"arXiv {paper}"} if paper else {}
    return f"{estimator.name} of stepcredit", known


def reward_figures(rollouts: sc.Rollouts) -> dict[str, float]:
    """TRL's figures of the reward, computed from the outcome, which the method learns from.

        reward                 its mean
        reward_std             its standard deviation, n - 1
        frac_reward_zero_std   share of responses whose group has one outcome throughout

    A trajectory of several completions is one response.

    Returns:
        Nothing where no outcome is known; no std for a single outcome.

    Example:
        >>> r = sc.Rollouts(["a", "a", "b", "b"], lengths=[1] * 4, outcome=[1.0, 0.0, 1.0, 1.0])
        >>> {name: round(value, 3) for name, value in reward_figures(r).items()}
        {'reward': 0.75, 'reward_std': 0.5, 'frac_reward_zero_std': 0.5}
    """
    rollouts = rollouts.joined()
    known = rollouts.outcome[rollouts.has_outcome]
    if not known.numel():
        return {}
    group = rollouts.group_index[rollouts.has_outcome]
    low, high = (
        torch.zeros(rollouts.num_groups, dtype=known.dtype).scatter_reduce(
            0, group, known, reduce, include_self=False
        )
        for reduce in ("amin", "amax")
    )
    found = {"reward": float(known.mean())}
    if known.numel() > 1:
        found["reward_std"] = float(known.std())
    return found | {"frac_reward_zero_std": float((low == high)[group].double().mean())}
