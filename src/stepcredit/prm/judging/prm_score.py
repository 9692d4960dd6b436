"""PRMScore, as PRMBench defines it: F1 of right steps and of wrong ones, in equal parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepcredit.prm.judging.step_metrics import LabelledScores, harmonic_mean


def prm_score(steps: LabelledScores, threshold: float) -> dict[str, float | None]:
    """How well a threshold tells right steps from wrong ones.

        F1 = 2 p r / (p + r),  p, r precision and recall of right steps
        F1_neg = the same of wrong steps
        PRMScore = 0.5 F1 + 0.5 F1_neg

    Args:
        steps: scores and labels of the labelled steps.
        threshold: a step that scores below it counts as wrong.

    Returns:
        `prm_score`, `f1_right` and `f1_wrong`; None where a precision or recall has no step, as for
        wrong steps in solutions that are all right.

    Example:
        >>> from stepcredit.prm.labelled.labelled_rows import LabelledRow
        >>> row = LabelledRow("?", ("a", "b", "c"), (1, 1, 0), "r.jsonl:1", "?")
        >>> prm_score(LabelledScores.of([row], [[0.9, 0.4, 0.2]]), 0.5)["prm_score"]
        0.6666666666666666

    Source: Song et al. 2025 (arXiv 2501.03124, PRMBench), section 3.4, with w1 = w2 = 0.5. Differs:
    where an F1 is undefined, PRMBench's own code counts -1.
    """
    said = steps.scores >= threshold
    right, wrong = _f1(said, steps.right), _f1(~said, ~steps.right)
    score = None if right is None or wrong is None else (right + wrong) / 2
    return {"prm_score": score, "f1_right": right, "f1_wrong": wrong}


def _f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float | None:
    """Harmonic mean of precision and recall."""
    both = float((said & true).sum())
    precision = both / said.sum() if said.any() else None
    recall = both / true.sum() if true.any() else None
    mean = harmonic_mean(precision, recall)
    return None if mean is None else float(mean)
