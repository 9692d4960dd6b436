"""Which baselines of turn returns bias the policy gradient, and by how much: an exact table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int64

from stepcredit.credit.methods.turn_return import TurnReturn
from stepcredit.oracles.contestants import credit_of
from stepcredit.oracles.every_group import GROUP_SIZE, SignalledGroups, WorldGroups
from stepcredit.oracles.gradient_validity import NO_GRADIENT, MeanGradient, Validity
from stepcredit.oracles.step_scores import SIGNALS
from stepcredit.oracles.worlds import WORLDS

TURN_WORLDS = ("delayed", "recovery", "horizon")
"""The tasks of the table: a delayed effect, a repair, and responses of several lengths."""

Steps = Float64[np.ndarray, " step"]
Returns = Float64[np.ndarray, "rollout turn"]
Reached = Bool[np.ndarray, "rollout turn"]
Baseline = Callable[["TurnTable"], Returns]


@dataclass(frozen=True, eq=False)
class TurnTable:
    """The returns of one world's groups by turn; every turn's is the outcome.

    Args:
        returns: (rollout, turn); 0 where a response has no such turn.
        reached: which turns a response has.
        size: responses per group; those of a group stand together.
    """

    returns: Returns
    reached: Reached
    size: int

    @classmethod
    def of(cls, groups: WorldGroups) -> TurnTable:
        """The table of every group of a world."""
        outcomes = np.array([t.outcome for t in groups.world.trajectories])[groups.members]
        turns = np.arange(groups.lengths.max())
        reached = turns < groups.lengths[:, None]
        return cls(outcomes[:, None] * reached, reached, groups.size)

    def in_group(self, table: Returns) -> Returns:
        """The sum of each column over the rows of a row's group."""
        total = table.reshape(-1, self.size, table.shape[1]).sum(1)
        return np.repeat(total, self.size, 0)

    @property
    def count(self) -> Returns:
        """How many responses of the group reach a turn, the response itself counted."""
        return self.in_group(self.reached.astype(np.float64))

    @property
    def mean(self) -> Returns:
        """The mean return over those."""
        return self.in_group(self.returns) / np.maximum(self.count, 1.0)

    @property
    def rivals(self) -> Returns:
        """How many other responses of the group reach a turn."""
        return self.count - self.reached

    @property
    def rivals_mean(self) -> Returns:
        """The mean return over the others; 0 where there are none."""
        total = self.in_group(self.returns) - self.returns
        return np.divide(total, self.rivals, where=self.rivals > 0, out=np.zeros_like(total))


def _of_estimator(baseline: str, groups: WorldGroups) -> Steps:
    """The credit of `turn-return` for the outcome alone."""
    method = TurnReturn(baseline=baseline, process_weight=0.0)
    return credit_of(method, SignalledGroups((groups,), SIGNALS["right"]))


def _of_rule(rule: Baseline, groups: WorldGroups) -> Steps:
    table = TurnTable.of(groups)
    credit: Steps = rule(table)[table.reached]
    return credit


def _mean_of_all_responses(table: TurnTable) -> Returns:
    return table.returns - table.mean[:, :1]


def _mean_of_the_turn(table: TurnTable) -> Returns:
    return table.returns - table.mean


def _normalized_turn(table: TurnTable) -> Returns:
    deviation = np.where(table.reached, table.returns - table.mean, 0.0)
    variance = table.in_group(deviation**2) / np.maximum(table.rivals, 1.0)
    return deviation / (np.sqrt(variance) + 1e-6)


def _mean_of_all_turns(table: TurnTable) -> Returns:
    turns = table.in_group(table.reached.sum(1, keepdims=True).astype(np.float64))
    return table.returns - table.in_group(table.returns.sum(1, keepdims=True)) / turns


def _others_or_no_credit(table: TurnTable) -> Returns:
    return np.where(table.rivals > 0, table.returns - table.rivals_mean, 0.0)


def _others_or_zero(table: TurnTable) -> Returns:
    return table.returns - table.rivals_mean


TURN_BASELINES: Mapping[str, Callable[[WorldGroups], Steps]] = {
    "none (`turn-return`)": partial(_of_estimator, "none"),
    "others' trajectories (`turn-return`)": partial(_of_estimator, "trajectories"),
    "others at the turn (`turn-return`)": partial(_of_estimator, "turns"),
    "others at the turn, a lone turn: 0": partial(_of_rule, _others_or_zero),
    "others at the turn, a lone turn: no credit": partial(_of_rule, _others_or_no_credit),
    "all trajectories, itself counted": partial(_of_rule, _mean_of_all_responses),
    "all at the turn, itself counted": partial(_of_rule, _mean_of_the_turn),
    "all at the turn, divided by their std": partial(_of_rule, _normalized_turn),
    "all turns of the group, itself counted": partial(_of_rule, _mean_of_all_turns),
}
"""What a turn's return is compared with, and the credit that this gives each step of each rollout.

The first three are those of `turn-return`; a lone turn is one that no other response reaches.
"""


@dataclass(frozen=True)
class TurnBaselineRow:
    """One baseline in one task.

    Args:
        baseline: its name.
        world: the task's name.
        error: relative error of the mean gradient at its best scale, as in `Validity`.
        variance: of the gradient of one group, as in `Validity`.
        scales: for each turn, the factor by which its exact gradient is multiplied on average:
            E[g_t] . exact_t / |exact_t|^2; None for a turn without an exact gradient. Where all
            are equal, the direction of the whole gradient is right, as far as these turns go.
    """

    baseline: str
    world: str
    error: float
    variance: float
    scales: tuple[float | None, ...]


def turn_baseline_table(
    worlds: Iterable[str] = TURN_WORLDS, group_size: int = GROUP_SIZE
) -> list[TurnBaselineRow]:
    """Every baseline in some tasks, over all groups that the policy can sample.

    The return of every turn is the outcome (gamma 1), so the exact gradient is that of the expected
    outcome, and each turn has a part of it.

    Args:
        worlds: names of worlds.
        group_size: responses per group, 2 or more.

    Example:
        >>> rows = {row.baseline: row for row in turn_baseline_table(["horizon"])}
        >>> [round(x, 3) for x in rows["others at the turn (`turn-return`)"].scales]
        [1.0, 1.0, 1.0, 1.0]
        >>> [round(x, 3) for x in rows["all at the turn, itself counted"].scales]
        [0.75, 0.75, 0.531, 0.14]
    """
    parts = [WorldGroups(WORLDS[name], group_size) for name in worlds]
    return [
        _row(name, credit(groups), groups)
        for groups in parts
        for name, credit in TURN_BASELINES.items()
    ]


def _row(name: str, credit: Steps, groups: WorldGroups) -> TurnBaselineRow:
    validity = Validity.of([MeanGradient.of(groups, credit)])
    turns = turn_of_each_step(groups)
    exact = groups.world.advantage[groups.steps]
    scales = tuple(
        _scale(credit * (turns == turn), exact * (turns == turn), groups)
        for turn in range(int(turns.max()) + 1)
    )
    return TurnBaselineRow(name, groups.world.name, validity.error, validity.variance, scales)


def turn_of_each_step(groups: WorldGroups) -> Int64[np.ndarray, " step"]:
    """The number of each step in its response, from 0."""
    return np.concatenate([np.arange(length) for length in groups.lengths])


def _scale(credit: Steps, advantage: Steps, groups: WorldGroups) -> float | None:
    """The mean gradient of some steps beside their exact one, along the exact one."""
    exact = MeanGradient.of(groups, advantage).mean
    length = float(exact @ exact)
    if length <= NO_GRADIENT**2:
        return None
    return float(MeanGradient.of(groups, credit).mean @ exact) / length
