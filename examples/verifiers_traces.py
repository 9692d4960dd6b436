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
    pairs = [(at, trace) for at, traces in enumerate(groups) for trace in traces]
    trained = [(at, trace) for at, trace in pairs if trace.agent.trainable and turns_of(trace)]
    if not trained:
        return
    traces, turns = [trace for _, trace in trained], [turns_of(trace) for _, trace in trained]
    sizes = [
        [sum(trace.nodes[at].mask) for at in own] for trace, own in zip(traces, turns, strict=True)
    ]
    ends = [[sum(row[: at + 1]) - 1 for at in range(len(row))] for row in sizes]

    def of_turns(function: Turn) -> list[list[Any]]:
        pairs = zip(traces, turns, strict=True)
        return [[function(trace, at) for at in own] for trace, own in pairs]

    rollouts = sc.Rollouts(
        group=[at for at, _ in trained],
        lengths=[sum(row) for row in sizes],
        process=None if turn_score is None else sc.Steps(ends, of_turns(turn_score)),
        outcome=[outcome(trace) for trace in traces],
        step_ends=None if turn_state is None else ends,
        step_states=None if turn_state is None else of_turns(turn_state),
    )
    credit = (estimator or sc.PASS())(rollouts).ragged()
    for trace, own, row, advantages in zip(traces, turns, sizes, credit, strict=True):
        for at, values in zip(own, advantages.split(row), strict=True):
            trace.nodes[at].advantages = values.tolist()


def turns_of(trace: Trace) -> list[int]:
    """The indices of the messages that the model sampled."""
    return [at for at, node in enumerate(trace.nodes) if node.sampled and any(node.mask)]
