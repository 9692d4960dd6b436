"""Turn returns: the discounted return of an agent's turns, less an unbiased baseline."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.chunks import Chunks
from stepcredit.credit.stages.groups import Group, Values
from stepcredit.credit.stages.process_streams import (
    DenseStream,
    check_one_process,
    dense_stream,
    find_process_stream,
)
from stepcredit.credit.stages.returns import return_to_go
from stepcredit.credit.stages.turn_baselines import trajectory_baseline, turn_baseline
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, step_slots, whole_responses
from stepcredit.settings.fields import choice, number


@register("turn-return")
@dataclass(frozen=True)
class TurnReturn(Estimator):
    """The discounted return of each turn, compared with the group's other responses.

        r_j = w_prc s_j, and w_out r_out is added at the last turn
        G_j = sum over l >= j of gamma^(l - j) r_l
        A_j = G_j - b_j
        turns         b_j = mean of G_j over the other responses that reach turn j
        trajectories  b_j = mean of G_1 over the other responses
        none          b_j = 0

    Turns are the steps of the process stream. If it scores tokens, or if there is none, turns are
    the rollouts' `step_ends` where they are known, and a turn's score is the sum of those of its
    tokens. Without them every token is a turn, and a response without scores is one turn.

    No response is in its own baseline, so all three leave the policy gradient unbiased. The usual
    mean over all responses that reach a turn multiplies the gradient of turn j by 1 - 1/n_j, n_j of
    them, and a turn that one response alone reaches teaches nothing. Here that turn is compared
    with the mean G_1 of the others.

    Args:
        gamma: the discount per turn, from 0 to 1.
        baseline: see above. The lowest variance has `turns` where turns have scores of their own,
            and `trajectories` where there is the outcome alone.
        process_weight: w_prc.
        outcome_weight: w_out.
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        A response alone in its group gets 0, except with baseline none. An unknown outcome adds
        nothing, and a response without scores has scores of 0. Format and gate are ignored.

    Raises:
        MethodError: a batch of several process streams, none named "process".

    Example:
        >>> import stepcredit as sc
        >>> steps = sc.Steps([[0, 1], [0, 1], [0]], [[0.0, 1.0], [0.0, 0.0], [0.0]])
        >>> rollouts = sc.Rollouts([0, 0, 0], process=steps, outcome=[1.0, 0.0, 0.5])
        >>> [row.tolist() for row in sc.TurnReturn()(rollouts).ragged()]
        [[1.75, 2.0], [-1.25, -2.0], [-0.5]]
        >>> sc.TurnReturn(baseline="trajectories")(rollouts).ragged()[0].tolist()
        [1.75, 1.75]

    Source: REINFORCE with a leave-one-out baseline, as RLOO (2402.14740), by turn.
    """

    gamma: float = number(1.0, "discount per turn", at_least=0, at_most=1)
    baseline: str = choice(
        "turns", ("turns", "trajectories", "none"), "what a turn's return is compared with"
    )
    process_weight: float = number(1.0, "weight of the turns' scores")
    outcome_weight: float = number(1.0, "weight of the outcome, at the last turn")

    equation = "A_j = sum_{l >= j} gamma^(l - j) r_l - mean of the other responses' return"

    @property
    def reads(self) -> Reads:
        """One process stream, where steps end, and the outcome where it is known."""
        return Reads(process="one", steps=True)

    @property
    def standardizes(self) -> bool:
        """False: returns keep their unit."""
        return False

    def check_streams(self, signals: Collection[str]) -> None:
        """Of several process streams one must be named "process"."""
        check_one_process(signals)

    def credit(self, rollouts: Rollouts) -> Credit:
        """Turn rewards, their discounted returns, less the baseline."""
        group, (scores, slots) = Group.of(rollouts), _turns(rollouts)
        outcome = self.outcome_weight * rollouts.outcome[:, None]
        reward = self.process_weight * scores + outcome * slots.end_slots()
        to_go = return_to_go(reward, gamma=self.gamma)
        baseline = self._baseline(to_go, slots, group)
        stages = {"reward": reward, "return": to_go, "baseline": baseline}
        scale = group.largest(to_go) + group.largest(baseline * slots.mask)
        return Credit(slots, (to_go - baseline) * slots.mask, lambda: stages, scale=scale)

    def _baseline(self, returns: Values, slots: Slots, group: Group) -> Values:
        """What is subtracted; the return itself for a response alone in its group."""
        if self.baseline == "none":
            return torch.zeros_like(returns)
        if self.baseline == "turns":
            found = turn_baseline(returns, slots.mask, group)
        else:
            found = trajectory_baseline(returns, group)
        rivals = group.others(torch.ones_like(returns[:, 0]))
        return torch.where(rivals[:, None] > 0, found, returns)


def _turns(rollouts: Rollouts) -> tuple[Values, Slots]:
    """The score of each turn, and where turns lie."""
    ends, stream = rollouts.step_ends, find_process_stream(rollouts)
    slots = whole_responses(rollouts.lengths)
    if ends is not None:
        slots = step_slots(ends.values, ends.counts, rollouts.lengths)
    if stream is None:
        return torch.zeros_like(slots.mask, dtype=torch.float64), slots
    table = dense_stream(stream, rollouts)
    if table.slots.ends is not None:
        return table.values, table.slots
    if ends is None:
        return table.values, _scored_tokens(table)
    return Chunks(slots).read(table.values, table.slots, "sum"), slots


def _scored_tokens(table: DenseStream) -> Slots:
    """Every token of a response with scores, and one slot for a response without."""
    tokens, scored = table.slots, table.mask.any(1)
    if bool(scored.all()):
        return tokens
    last = tokens.lengths[:, None] - 1
    ends = torch.where(scored[:, None], torch.minimum(tokens.last(), last), last)
    return Slots(torch.where(scored, tokens.counts, 1), tokens.lengths, ends)
