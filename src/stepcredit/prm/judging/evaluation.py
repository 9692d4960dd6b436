"""Judge any signal on step-labelled rows: first errors, ranking, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepcredit.errors import SettingError, StepCreditError
from stepcredit.prm.judging.prm_score import prm_score
from stepcredit.prm.judging.step_metrics import (
    FirstErrors,
    LabelledScores,
    Numbers,
    Scores,
    calibration,
    question_intervals,
    ranking,
    weighted_auc,
)
from stepcredit.prm.labelled.labelled_rows import LabelledRow, row_counts
from stepcredit.requires import require
from stepcredit.settings.fields import check_seed
from stepcredit.signals.signal import Signal

POOLS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": sum,
    "mean": lambda scores: sum(scores) / len(scores),
    "min": min,
    "last": lambda scores: scores[-1],
}
RESAMPLES = 1000


def check_judges_text(signal: Signal) -> None:
    """Refuse a signal that can't score labelled rows, which hold text and no token ids.

    Raises:
        SettingError: the signal reads the policy's token ids.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> check_judges_text(signal("arithmetic"))
    """
    if signal.reads_token_ids:
        names = [part.name for part in signal.walk() if part.reads_token_ids]
        reason = f"{names[-1]} reads the policy's token ids, which labelled rows do not have"
        raise SettingError(reason, field="signal")


def step_scores(
    signal: Signal,
    rows: Sequence[LabelledRow],
    pool: str = "sum",
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """One score per step of each row, in the order of the rows.

    Args:
        signal: any signal.
        rows: the rows to score.
        pool: how the scores of a step's tokens (words here) become one score, for a signal that
            scores tokens: `sum`, `mean`, `min` or `last`.
        progress: called with the number of rows scored so far.

    Raises:
        SettingError: the pool is unknown, or the signal reads token ids.
        RolloutError, SignalError: as the signal raises them.
    """
    if pool not in POOLS:
        raise SettingError(f"expected one of {', '.join(POOLS)}, got {pool!r}", field="pool")
    if signal.may_leave_out:
        raise SettingError("each labelled step needs a score: 'refuse'", field="unscorable")
    check_judges_text(signal)
    responses = [row.response for row in rows]
    scores = signal.scores(responses, progress)
    if signal.grain == "steps":
        return scores
    return [
        [
            POOLS[pool](own[start + 1 : end + 1])
            for start, end in zip([-1, *ends[:-1]], ends, strict=True)
        ]
        for own, ends in zip(scores, (response.step_ends for response in responses), strict=True)
    ]


@dataclass(frozen=True)
class Judgement:
    """How well scores agree with labels.

    Args:
        figures: the figures that are written to `metrics.json`.
        steps: every labelled step's score, for the plots.
        first_errors: the solutions' first errors, for the plots.
    """

    figures: dict[str, Any]
    steps: LabelledScores
    first_errors: FirstErrors


def judge_scores(
    rows: Sequence[LabelledRow],
    scores: Scores,
    threshold: float,
    *,
    chosen_on: str = "given",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Judgement:
    """Compare scores with labels: first errors at a threshold, ranking, calibration.

    Args:
        rows: labelled rows, without those on which the threshold was chosen.
        scores: one per step of each row.
        threshold: a step that scores below it counts as an error.
        chosen_on: how the threshold was chosen; written beside the figures.
        seed: seed of the intervals' random draws.
        resamples: draws of questions for the 95 % intervals of F1 and AUC; 0: no intervals.

    Returns:
        `Judgement`, its figures in `data`, `first_error`, `steps`, `prm_bench` and `calibration`;
        None where a figure is not defined (only right steps, scores that are no probabilities).

    Raises:
        StepCreditError: no row has a label.
        SettingError: a seed that NumPy does not take.
        MissingExtra: scikit-learn or scipy is not installed.

    Example:
        >>> rows = [LabelledRow("?", ("a", "b"), (1, 0), "r.jsonl:1", "?"),
        ...         LabelledRow("!", ("a", "b"), (1, 1), "r.jsonl:2", "!")]
        >>> found = judge_scores(rows, [[0.9, 0.2], [0.8, 0.7]], 0.5, resamples=0)
        >>> found.figures["first_error"]["f1"]
        1.0

    Source: see the figures in `step_metrics`.
    """
    check_seed(seed)
    require("prm", "sklearn", "scipy")
    steps, errors = LabelledScores.of(rows, scores), FirstErrors.of(rows, scores)
    if not len(steps.scores):
        raise StepCreditError("no step is labelled", field="rows")
    figures: dict[str, Any] = {
        "data": row_counts(rows),
        "first_error": {
            **errors.at(threshold),
            "threshold": threshold,
            "threshold_from": chosen_on,
            "solutions_wrong": int(errors.wrong.sum()),
            "solutions_right": int((~errors.wrong).sum()),
            "solutions_left_out": errors.left_out,
        },
        "steps": ranking(steps),
        "prm_bench": prm_score(steps, threshold),
        "calibration": calibration(steps),
    }

    auc = weighted_auc(steps)

    def drawn(weights: Numbers) -> dict[str, float | None]:
        return {
            "f1": errors.at(threshold, weights[errors.question])["f1"],
            "roc_auc": auc(weights[steps.question]),
        }

    rng = np.random.default_rng(seed)
    questions = figures["data"]["questions"]
    figures["intervals"] = question_intervals(drawn, questions, resamples, rng)
    return Judgement(figures, steps, errors)
