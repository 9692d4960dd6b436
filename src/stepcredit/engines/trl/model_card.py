"""What TRL shows of a run, by our numbers: its reward figures, and the model card."""

from __future__ import annotations

from typing import Any

import torch

import stepcredit as sc

PAPERS = {
    **dict.fromkeys(("pass", "pass-min"), "2606.29296"),
    **dict.fromkeys(("grpo", "grpo-process"), "2402.03300"),
    "pure": "2504.15275",
    "dr-grpo": "2503.20783",
    "rloo": "2402.14740",
    "gdpo": "2601.05242",
    "opd": "2306.13649",
    "g-opd": "2602.12125",
    "prime": "2502.01456",
}
"""Where the methods were introduced, on arXiv."""


def card_of(estimator: sc.Estimator) -> tuple[str, dict[str, Any]]:
    """What a model card calls the trainer, and the paper of its method, if it is one of ours.

    Example:
        >>> card_of(sc.PURE())
        ('pure of stepcredit', {'id': '2504.15275', 'title': 'arXiv 2504.15275'})
    """
    paper = PAPERS.get(estimator.name)
    known = {} if paper is None else {"id": paper, "title": f"arXiv {paper}"}
    return f"{estimator.name} of stepcredit", known


def reward_figures(rollouts: sc.Rollouts) -> dict[str, float]:
    """TRL's figures of the reward, of the outcome: what the method learns from.

        reward                 its mean
        reward_std             its standard deviation, n - 1
        frac_reward_zero_std   share of responses in groups that have all one outcome

    Returns:
        none of them where no outcome is known; a single one has no std.

    Example:
        >>> r = sc.Rollouts(["a", "a", "b", "b"], lengths=[1] * 4, outcome=[1.0, 0.0, 1.0, 1.0])
        >>> {name: round(value, 3) for name, value in reward_figures(r).items()}
        {'reward': 0.75, 'reward_std': 0.5, 'frac_reward_zero_std': 0.5}
    """
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
