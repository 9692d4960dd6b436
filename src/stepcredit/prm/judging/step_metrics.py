"""Figures of step scores against step labels: first errors, ranking, calibration, intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.prm.labelled.labelled_rows import WRONG, LabelledRow

Numbers = NDArray[np.float64]
Scores = Sequence[Sequence[float]]
BINS = 10


def question_indices(rows: Sequence[LabelledRow]) -> list[int]:
    """Each row's question as an index, in the order in which questions appear."""
    known: dict[str, int] = {}
    return [known.setdefault(row.key, len(known)) for row in rows]


@dataclass(frozen=True)
class FirstErrors:
    """Where a signal puts the first error of each solution, for every threshold at once.

        predicted = first step with score < threshold, or none

    A solution with a wrong step is judged right for the thresholds in (low, high]: above the score
    of its first wrong step and at most the lowest score before it. A solution without a wrong step
    is judged right for the thresholds up to its lowest score.

    Args:
        low, high: bounds of those thresholds, shape (solution,); low >= high means never.
        wrong: whether the solution has a wrong step, shape (solution,).
        question: index of the solution's question, shape (solution,).
        left_out: number of solutions whose labels don't show the first error.
    """

    low: Numbers
    high: Numbers
    wrong: NDArray[np.bool_]
    question: NDArray[np.int64]
    left_out: int

    @classmethod
    def of(cls, rows: Sequence[LabelledRow], scores: Scores) -> FirstErrors:
        """Build it from labelled rows and one score per step of each row."""
        questions = question_indices(rows)
        kept = [index for index, row in enumerate(rows) if row.is_judgeable]
        bounds = [_bounds(rows[index], scores[index]) for index in kept]
        return cls(
            low=np.array([low for low, _ in bounds], np.float64),
            high=np.array([high for _, high in bounds], np.float64),
            wrong=np.array([rows[index].first_error is not None for index in kept], np.bool_),
            question=np.array([questions[index] for index in kept], np.int64),
            left_out=len(rows) - len(kept),
        )

    def at(self, threshold: float, weights: Numbers | None = None) -> dict[str, float | None]:
        """Shares of solutions judged right at a threshold, and their harmonic mean.

            F1 = 2 a b / (a + b),  a on solutions with an error, b on those without

        Args:
            threshold: a step that scores below it counts as an error.
            weights: weight of each solution; equal if absent.

        Returns:
            `f1`, `accuracy_wrong`, `accuracy_right`; None where there is no such solution.

        Example:
            >>> rows = [LabelledRow("?", ("a", "b"), (1, 0), "r.jsonl:1", "?"),
            ...         LabelledRow("?", ("a", "b"), (1, 1), "r.jsonl:2", "?")]
            >>> FirstErrors.of(rows, [[0.9, 0.2], [0.8, 0.4]]).at(0.5)
            {'f1': 0.0, 'accuracy_wrong': 1.0, 'accuracy_right': 0.0}

        Source: Zheng et al. 2024 (arXiv 2412.06559, ProcessBench), section 3.
        """
        judged = (self.low < threshold) & (threshold <= self.high)
        weights = np.ones(len(judged)) if weights is None else weights
        wrong = _share(judged[self.wrong], weights[self.wrong])
        right = _share(judged[~self.wrong], weights[~self.wrong])
        return {"f1": harmonic_mean(wrong, right), "accuracy_wrong": wrong, "accuracy_right": right}

    def curve(self) -> tuple[Numbers, Numbers]:
        """Every threshold that changes the result, in increasing order, and the F1 at each.

        Returns:
            Both of shape (threshold,). F1 is 0 throughout where one kind of solution is missing.
        """
        finite = np.unique(np.concatenate([self.low, self.high]))
        finite = finite[np.isfinite(finite)]
        if not finite.size:
            return np.zeros(1), np.zeros(1)
        middle = (finite[:-1] + finite[1:]) / 2
        inner = np.where(middle > finite[:-1], middle, finite[1:])
        last = np.nextafter(finite[-1], inf)
        thresholds = np.concatenate([finite[:1], inner, [last]])
        wrong = self._judged_right(thresholds, self.wrong)
        right = self._judged_right(thresholds, ~self.wrong)
        total = wrong + right
        f1 = np.divide(2 * wrong * right, total, out=np.zeros_like(total), where=total > 0)
        return thresholds, f1

    def _judged_right(self, thresholds: Numbers, kind: NDArray[np.bool_]) -> Numbers:
        """The share of one kind of solutions judged right at each threshold."""
        possible = kind & (self.low < self.high)
        low, high = np.sort(self.low[possible]), np.sort(self.high[possible])
        counts = np.searchsorted(low, thresholds) - np.searchsorted(high, thresholds)
        return counts / max(1, int(kind.sum()))

    def best_threshold(self, unknown: float | None = None) -> float:
        """The lowest threshold that gives the best F1 on these solutions.

        Args:
            unknown: the score of steps about which the signal says nothing. The threshold is then
                at most this score, so that they don't count as errors, and above the lowest score,
                if that is lower.

        Example:
            >>> rows = [LabelledRow("?", ("a", "b"), (1, 0), "r.jsonl:1", "?"),
            ...         LabelledRow("?", ("a", "b"), (1, 1), "r.jsonl:2", "?")]
            >>> errors = FirstErrors.of(rows, [[1.0, 0.5], [1.0, 1.0]])
            >>> errors.best_threshold(), errors.best_threshold(0.5)
            (0.75, 0.5)
        """
        thresholds, f1 = self.curve()
        if unknown is not None:
            allowed = (thresholds <= unknown) & (thresholds > thresholds[0])
            if not allowed.any():
                return unknown
            thresholds, f1 = thresholds[allowed], f1[allowed]
        return float(thresholds[f1.argmax()])


def _bounds(row: LabelledRow, scores: Sequence[float]) -> tuple[float, float]:
    error = row.first_error
    if error is None:
        return -inf, min(scores)
    return scores[error], min(scores[:error], default=inf)


def _share(judged: NDArray[np.bool_], weights: Numbers) -> float | None:
    total = float(weights.sum())
    return float(weights[judged].sum()) / total if total > 0 else None


def harmonic_mean(a: float | None, b: float | None) -> float | None:
    """2ab / (a + b); 0 where both are 0, None where one is.

    Example:
        >>> harmonic_mean(0.5, 1.0), harmonic_mean(0.0, 0.0), harmonic_mean(None, 1.0)
        (0.6666666666666666, 0.0, None)
    """
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


@dataclass(frozen=True)
class LabelledScores:
    """The scores and labels of all labelled steps.

    Args:
        scores: shape (step,).
        right: whether the step is labelled right, shape (step,).
        question: index of its question, shape (step,).
    """

    scores: Numbers
    right: NDArray[np.bool_]
    question: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[LabelledRow], scores: Scores) -> LabelledScores:
        """Build it from labelled rows and one score per step; unlabelled steps are left out."""
        kept = [
            (score, label != WRONG, question)
            for row, own, question in zip(rows, scores, question_indices(rows), strict=True)
            for score, label in zip(own, row.labels, strict=True)
            if label is not None
        ]
        values, right, question = zip(*kept, strict=True) if kept else ((), (), ())
        return cls(
            np.array(values, np.float64), np.array(right, np.bool_), np.array(question, np.int64)
        )

    @property
    def both(self) -> bool:
        """Whether there are right and wrong steps."""
        return bool(self.right.any() and not self.right.all())

    @property
    def are_probabilities(self) -> bool:
        """Whether all scores lie in [0, 1], so that they can be calibrated."""
        return bool(len(self.scores) and self.scores.min() >= 0 and self.scores.max() <= 1)


def ranking(steps: LabelledScores) -> dict[str, float | None]:
    """How well scores separate wrong steps from right ones, at any threshold.

    Args:
        steps: scores and labels of at least one step.

    Returns:
        `roc_auc`: the chance that a right step scores above a wrong one, 0.5 for no signal;
        `average_precision` of finding wrong steps by low scores, whose value without a signal is
        `wrong_share`. None where there is only one kind of step.

    Example:
        >>> rows = [LabelledRow("?", ("a", "b", "c"), (1, 0, 1), "r.jsonl:1", "?")]
        >>> ranking(LabelledScores.of(rows, [[0.9, 0.6, 0.4]]))["roc_auc"]
        0.5

    Source: scikit-learn's `roc_auc_score` and `average_precision_score`.
    """
    wrong_share = float((~steps.right).mean())
    if not steps.both:
        return {"roc_auc": None, "average_precision": None, "wrong_share": wrong_share}
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "roc_auc": float(roc_auc_score(steps.right, steps.scores)),
        "average_precision": float(average_precision_score(~steps.right, -steps.scores)),
        "wrong_share": wrong_share,
    }


def weighted_auc(steps: LabelledScores) -> Callable[[Numbers], float | None]:
    """The area under the ROC curve as a function of the steps' weights, sorted once.

        AUC = sum_s right_s (wrong weight below s + half of that at s) / (right * wrong weight)

    A thousand draws for an interval take as long as ten calls of `roc_auc_score`.

    Returns:
        A function of the weights, one per step; it gives None where one kind of step has no weight.

    Source: Mann & Whitney 1947.
    """
    order = np.argsort(steps.scores, kind="stable")
    right, ordered = steps.right[order], steps.scores[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-inf))

    def auc(weights: Numbers) -> float | None:
        own = weights[order]
        rights = np.add.reduceat(np.where(right, own, 0.0), starts)
        wrongs = np.add.reduceat(np.where(right, 0.0, own), starts)
        pairs = float(rights.sum() * wrongs.sum())
        below = wrongs.cumsum() - wrongs / 2
        return float((rights * below).sum()) / pairs if pairs else None

    return auc


def reliability(steps: LabelledScores) -> dict[str, Any]:
    """The share of right steps beside the mean score, bin by bin, and their mean distance.

        ECE = sum_b n_b / N |share right in b - mean score in b|,  b = 10 bins of equal width

    Returns:
        `ece`, and `bins`: each with `low`, `high`, `steps`, `mean_score`, `right_share`, without
        empty bins. None and no bins if a score lies outside [0, 1].

    Example:
        >>> rows = [LabelledRow("?", ("a", "b"), (1, 0), "r.jsonl:1", "?")]
        >>> reliability(LabelledScores.of(rows, [[0.75, 0.75]]))["ece"]
        0.25

    Source: Guo et al. 2017 (arXiv 1706.04599), Equation 3.
    """
    if not steps.are_probabilities:
        return {"ece": None, "bins": []}
    place = np.minimum((steps.scores * BINS).astype(int), BINS - 1)
    bins = []
    for b in np.unique(place).tolist():
        inside = place == b
        mean, share = float(steps.scores[inside].mean()), float(steps.right[inside].mean())
        found = {"steps": int(inside.sum()), "mean_score": mean, "right_share": share}
        bins.append({"low": b / BINS, "high": (b + 1) / BINS, **found})
    ece = sum(b["steps"] * abs(b["right_share"] - b["mean_score"]) for b in bins)
    return {"ece": ece / len(steps.scores), "bins": bins}


def calibration(steps: LabelledScores) -> dict[str, Any]:
    """How far scores are probabilities: of the steps with score p, a share p should be right.

        Brier = mean (score - right)^2

    Returns:
        `ece` and `bins` of `reliability`, and `brier`. None and no bins if a score lies outside
        [0, 1].

    Example:
        >>> rows = [LabelledRow("?", ("a", "b"), (1, 0), "r.jsonl:1", "?")]
        >>> calibration(LabelledScores.of(rows, [[0.75, 0.75]]))["brier"]
        0.3125

    Source: scikit-learn's `brier_score_loss`.
    """
    found = reliability(steps)
    if found["ece"] is None:
        return {"ece": None, "brier": None, "bins": []}
    from sklearn.metrics import brier_score_loss

    brier = brier_score_loss(steps.right, steps.scores, pos_label=True)
    return {"ece": found["ece"], "brier": float(brier), "bins": found["bins"]}


def question_intervals(
    figures: Callable[[Numbers], dict[str, float | None]],
    questions: int,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float] | None]:
    """95 % percentile intervals of figures, from questions drawn with replacement.

    Args:
        figures: computes them from weights, one per question (how often it was drawn).
        questions: how many there are.
        resamples: number of draws.
        rng: random generator of the draws.

    Returns:
        (low, high) by the figure's name; None where a draw leaves a figure undefined, or there are
        fewer than two questions.

    Source: Efron & Tibshirani 1993, by scipy's `bootstrap`; clustered by question.
    """
    whole = figures(np.ones(questions))
    names = [name for name, value in whole.items() if value is not None]
    if questions < 2 or not resamples or not names:
        return dict.fromkeys(whole)
    from scipy.stats import bootstrap

    def drawn(indices: NDArray[np.int64]) -> Numbers:
        found = figures(np.bincount(indices, minlength=questions).astype(np.float64))
        return np.array([np.nan if found[name] is None else found[name] for name in names])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a draw without a figure becomes None
        interval = bootstrap(
            (np.arange(questions),),
            drawn,
            n_resamples=resamples,
            method="percentile",
            vectorized=False,
            rng=rng,
        ).confidence_interval
    pairs = zip(names, np.atleast_1d(interval.low), np.atleast_1d(interval.high), strict=True)
    return dict.fromkeys(whole) | {
        name: (float(low), float(high)) if isfinite(low) and isfinite(high) else None
        for name, low, high in pairs
    }
