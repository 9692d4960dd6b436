"""Credit for trainers that keep a trajectory as turns: advantages of each turn's sampled tokens.

A trainer's own file needs little more than this: it says how many tokens each turn has, and writes
what it gets back to where its loss reads it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from torch import Tensor

import stepcredit as sc
from stepcredit.data.rules import counted
from stepcredit.errors import EngineError

__all__ = ["TurnTrajectory", "turn_advantages", "turn_tokens"]

StateKey = str | int | Sequence[str | int]


@dataclass(frozen=True)
class TurnTrajectory:
    """One trajectory, as its turns.

    Args:
        group: the prompt or task that it answers; its group must be whole.
        tokens: number of sampled tokens of each turn, in order; a turn without any has no credit.
        outcome: the trajectory's outcome; None: unknown, for all of the group.
        scores: a process score per turn; None: there is no process signal.
        states: the key of the state in which each turn was taken, or several keys from the finest
            to the coarsest; None: they are not known.
    """

    group: Hashable
    tokens: Sequence[int]
    outcome: float | None = None
    scores: Sequence[float] | None = None
    states: Sequence[StateKey] | None = None


def turn_advantages(
    trajectories: Sequence[TurnTrajectory], estimator: sc.Estimator | None = None
) -> list[list[list[float]]]:
    """The advantages of every sampled token: by trajectory, turn and token.

    A turn is a step, and the turns of a trajectory are one response, whatever sequences the trainer
    makes of them. Turns without a sampled token are left out, with their score and state, and so
    are trajectories without any from their group.

    Args:
        trajectories: of whole groups, in any order.
        estimator: the method; None: PASS.

    Raises:
        EngineError: scores or states of another number than the turns; or only some trajectories
            have them. It names the trajectory by its row.
        RolloutError, MethodError: as the method raises them.

    Example:
        >>> import stepcredit as sc
        >>> pair = [TurnTrajectory("a", [2, 1], 1.0), TurnTrajectory("a", [1, 0], 0.0)]
        >>> turn_advantages(pair, sc.DrGRPO())
        [[[0.5, 0.5], [0.5]], [[-0.5], []]]
    """
    for name in ("scores", "states"):
        _check_turns(trajectories, name)
    credited = [each for each in trajectories if any(each.tokens)]
    rows = iter(_credit(credited, estimator or sc.PASS()) if credited else ())
    found = []
    for each in trajectories:
        values = next(rows) if any(each.tokens) else []
        ends = [*accumulate(each.tokens)]
        cuts = zip([0, *ends], ends, strict=False)
        found.append([values[start:end] for start, end in cuts])
    return found


def turn_tokens(mask: Sequence[int] | Tensor) -> list[int]:
    """Number of sampled tokens of each turn: of each run of set flags in a response's mask.

    Args:
        mask: a flag per token of one response, set where the model sampled it.

    Example:
        >>> turn_tokens([0, 1, 1, 0, 1])
        [2, 1]
    """
    flags = mask.tolist() if isinstance(mask, Tensor) else mask
    return [sum(1 for _ in run) for is_set, run in groupby(flags, bool) if is_set]


def _credit(trajectories: Sequence[TurnTrajectory], estimator: sc.Estimator) -> list[list[float]]:
    ends = [[end - 1 for end in accumulate(filter(None, each.tokens))] for each in trajectories]
    scores = _of_turns_with_tokens(trajectories, "scores")
    states = _of_turns_with_tokens(trajectories, "states")
    rollouts = sc.Rollouts(
        group=[each.group for each in trajectories],
        lengths=[sum(each.tokens) for each in trajectories],
        process=None if scores is None else sc.Steps(ends, scores),
        outcome=[each.outcome for each in trajectories],
        step_ends=ends,
        step_states=states,
    )
    return [row.tolist() for row in estimator(rollouts).ragged()]


def _of_turns_with_tokens(
    trajectories: Sequence[TurnTrajectory], name: str
) -> list[list[Any]] | None:
    """Scores or states of the turns that have a token; None where there are none."""
    given = [vars(each)[name] for each in trajectories]
    if given[0] is None:
        return None
    return [
        [value for value, count in zip(values, each.tokens, strict=True) if count]
        for each, values in zip(trajectories, given, strict=True)
    ]


def _check_turns(trajectories: Sequence[TurnTrajectory], name: str) -> None:
    """Refuse scores or states of another number than the turns, or of some trajectories alone."""
    given = [vars(each)[name] for each in trajectories]
    has_some = any(values is not None for values in given)
    for row, (each, values) in enumerate(zip(trajectories, given, strict=True)):
        if has_some and values is None:
            raise EngineError(f"missing: other trajectories have {name}", row=row, field=name)
        if values is not None and len(values) != len(each.tokens):
            turns = counted(len(each.tokens), "turn")
            raise EngineError(f"{len(values)} values for {turns}", row=row, field=name)
