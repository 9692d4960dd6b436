"""Process signals as one number per step."""

from __future__ import annotations

import numpy as np

from stepcredit.audit.step_credit import chunk_sizes, on_tokens
from stepcredit.credit.metrics.group_averages import Flags, Floats
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream


def scores_of_steps(rollouts: Rollouts, ends: Stream) -> dict[str, tuple[Floats, Flags]]:
    """The mean score of each step's tokens, by process stream.

    A step signal gives each token of a step the step's score.

    Args:
        rollouts: the batch.
        ends: the steps' last tokens, as `step_boundaries` gives them.

    Returns:
        {stream: (one score per step, whether its response has the stream)}.

    Example:
        >>> import torch
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0], process=sc.Tokens([[1.0, 3.0, 5.0]]))
        >>> ends = Stream._of(values=torch.tensor([1, 2]), counts=torch.tensor([2]))
        >>> scores_of_steps(r, ends)["process"][0].tolist()
        [2.0, 5.0]
    """
    sizes, found = chunk_sizes(ends), {}
    for name, stream in process_signals(rollouts).items():
        known = np.repeat((stream.counts > 0).numpy(), ends.counts.numpy())
        tokens = _inside_steps(on_tokens(stream, rollouts).double().numpy(), rollouts, ends)
        totals = np.add.reduceat(tokens, sizes.numpy().cumsum() - sizes.numpy())
        found[name] = (totals / sizes.numpy(), known)
    return found


def _inside_steps(values: Floats, rollouts: Rollouts, ends: Stream) -> Floats:
    """The values of the responses that have steps: steps cover all of their tokens."""
    covered = (ends.counts > 0).numpy()
    return values if covered.all() else values[np.repeat(covered, rollouts.lengths.numpy())]
