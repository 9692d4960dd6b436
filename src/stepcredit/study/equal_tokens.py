"""Runs compared at equal sampled tokens, where others compare them at equal updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepcredit.study.study_data import Run
from stepcredit.study.study_statistics import Estimate, crossed_mean


def equal_tokens_difference(pairs: Sequence[tuple[Run, Run]]) -> Estimate:
    """The paired difference of pass@1 while training, at the tokens of the cheaper run of a pair.

        f(T) = pass@1 of the training answers around the T-th sampled token, linear between the
               middles of the rows of the learning curve
        difference = f_ours(T) - f_theirs(T),  T = min(last middle of ours, last middle of theirs)

    Args:
        pairs: two runs of one seed each, of equal prompts and answers per update.

    Returns:
        The mean over the pairs, with its interval over seeds. The answers are those of the training
        problems, each seen once. At T the two runs are at different updates, so the difference is
        paired by seed and not by problem.
    """
    return crossed_mean([np.array([[_difference(*pair)] for pair in pairs])])


def _difference(ours: Run, theirs: Run) -> float:
    curves = [tokens_and_pass_at_1(run) for run in (ours, theirs)]
    at = min(tokens[-1] for tokens, _ in curves)
    own, other = (float(np.interp(at, tokens, scores)) for tokens, scores in curves)
    return own - other


def tokens_and_pass_at_1(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Sampled tokens up to the middle of each row of the learning curve, and the row's pass@1.

    Args:
        run: a finished run; its rows are means over the updates since the row before.
    """
    updates, lengths, scores = (
        np.array([row[name] or 0.0 for row in run.curve])
        for name in ("update", "length", "pass_at_1")
    )
    shares = np.diff(updates, prepend=0.0) * lengths
    shares *= run.costs["tokens"] / shares.sum()
    return np.cumsum(shares) - shares / 2, scores
