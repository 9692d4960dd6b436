"""rLLM: one advantage per token on the steps of trajectories, for `use_precomputed_advantage`.

Copy this file beside your training script, and put the credit before rLLM's own collection, with
`rllm.algorithm.use_precomputed_advantage=true` in the config:

    import rllm.trainer.algorithms.advantage as rllm_advantage
    from rllm_advantages import with_credit

    collect = rllm_advantage.collect_reward_and_advantage_from_trajectory_groups
    rllm_advantage.collect_reward_and_advantage_from_trajectory_groups = with_credit(
        collect, sc.PASS(k=0.7), step_score=lambda step: step.reward
    )

A module that has imported the function by name needs the same line. A step of rLLM is one call of
the model, and here a step of the response; the outcome is the trajectory's reward. rLLM replaces a
list of another length than `response_ids` by zeros with a warning, so this file hands over lists of
that length, and nothing for it to replace. Written for rLLM as of August 2026 (commit 9beb6e0f).
"""

from collections.abc import Callable, Sequence
from typing import Any

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages


def with_credit(
    collect: Callable[..., dict], estimator: sc.Estimator | None = None, **settings: Any
) -> Callable[..., dict]:
    """rLLM's collection, with `credit_groups` before it.

    Args:
        collect: `collect_reward_and_advantage_from_trajectory_groups`.
        estimator, settings: as for `credit_groups`.
    """

    def collected(groups: Sequence[Any], *args: Any, **kwargs: Any) -> dict:
        credit_groups(groups, estimator, **settings)
        return collect(groups, *args, **kwargs)

    return collected


def credit_groups(
    groups: Sequence[Any],
    estimator: sc.Estimator | None = None,
    *,
    step_score: Callable[[Any], float] | None = None,
    step_state: Callable[[Any], str] | None = None,
) -> None:
    """Write `advantage` into every step of whole groups.

    Args:
        groups: rLLM's `TrajectoryGroup`s.
        estimator: the method; default: PASS.
        step_score: returns a step's process score; None: there is no process signal.
        step_state: returns the key of the state in which a step was taken, which `gigpo` reads.
    """
    found = [(at, one) for at, group in enumerate(groups) for one in group.trajectories]
    trajectories = [
        TurnTrajectory(
            group=at,
            tokens=[len(step.response_ids) for step in one.steps],
            outcome=one.reward,
            scores=None if step_score is None else [float(step_score(s)) for s in one.steps],
            states=None if step_state is None else [step_state(s) for s in one.steps],
        )
        for at, one in found
    ]
    for (_, one), credit in zip(found, turn_advantages(trajectories, estimator), strict=True):
        for step, advantages in zip(one.steps, credit, strict=True):
            step.advantage = advantages
