"""verifiers and prime-rl: one advantage per sampled token on the messages of a trace.

    from verifiers_traces import credit_traces

    credit_traces(groups, sc.PASS(k=0.7), turn_score=lambda trace, at: scores[trace.id][at])

`groups` are lists of `verifiers.v1` traces, one list per task. In prime-rl, call it from an
algorithm's `score_group`, with one group. A turn, which is a message that the model sampled, is a
step. Its score is what `turn_score` returns for it; the outcome is the trace's reward. A trace is
credited as one response whatever its branches are, and each message gets `advantages` over its
sampled tokens. Messages that were not sampled keep `None`, which is not a credit of 0, and so do
traces of agents that are not trained. Written for verifiers 0.4.
"""

from collections.abc import Callable, Sequence
from typing import Any

from verifiers.v1.trace import Trace

import stepcredit as sc
from stepcredit.engines.turn_credit import TurnTrajectory, turn_advantages

Turn = Callable[[Trace, int], Any]


def credit_traces(
    groups: Sequence[Sequence[Trace]],
    estimator: sc.Estimator | None = None,
    *,
    turn_score: Turn | None = None,
    turn_state: Turn | None = None,
    outcome: Callable[[Trace], float | None] = lambda trace: trace.reward,
) -> None:
    """Write the advantages of whole groups of traces into their messages.

    Args:
        groups: the traces of each task.
        estimator: the method; default: PASS.
        turn_score: returns a turn's process score, from the trace and the index of its message;
            None: there is no process signal.
        turn_state: returns the key of the state in which a turn was taken, which `gigpo` reads.
        outcome: returns a trace's outcome.
    """

    def of_turns(function: Turn | None, trace: Trace, turns: list[int]) -> list[Any] | None:
        return None if function is None else [function(trace, at) for at in turns]

    found = [
        (at, trace, turns_of(trace))
        for at, traces in enumerate(groups)
        for trace in traces
        if trace.agent.trainable
    ]
    trajectories = [
        TurnTrajectory(
            group=at,
            tokens=[sum(trace.nodes[turn].mask) for turn in turns],
            outcome=outcome(trace),
            scores=of_turns(turn_score, trace, turns),
            states=of_turns(turn_state, trace, turns),
        )
        for at, trace, turns in found
    ]
    credit = turn_advantages(trajectories, estimator)
    for (_, trace, turns), advantages in zip(found, credit, strict=True):
        for turn, values in zip(turns, advantages, strict=True):
            trace.nodes[turn].advantages = values


def turns_of(trace: Trace) -> list[int]:
    """The indices of the messages that the model sampled."""
    return [at for at, node in enumerate(trace.nodes) if node.sampled and any(node.mask)]
