"""Scores that look shifted by one step: they fit a neighbouring step better than their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding, Unchecked
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.metrics.step_kinds import RIGHT, WRONG
from stepcredit.data.streams import Steps

SHIFTED = "shifted scores"
MARGIN = 0.15
"""How much higher the neighbour's correlation must be: steps near each other are alike anyway."""
STANDARD_ERRORS = 3.5
"""How many standard errors it must be above 0: several streams and both sides are tried."""
FEWEST_PAIRS = 30
"""With fewer pairs nothing is said."""
LATER, EARLIER = "later", "earlier"


@dataclass(frozen=True)
class NeighbourCorrelation:
    """How scores correlate with something, at their own place and at a neighbour's.

    Args:
        own: the correlation at their own place.
        neighbour: that of the neighbour's scores.
        error: the standard error of the difference.
        pairs: how many pairs of places it was measured on.
    """

    own: float
    neighbour: float
    error: float
    pairs: int

    @property
    def looks_shifted(self) -> bool:
        """Whether the neighbour's scores clearly fit better."""
        lead = self.neighbour - self.own
        return self.pairs >= FEWEST_PAIRS and lead > max(MARGIN, STANDARD_ERRORS * self.error)


def neighbour_correlation(
    own: np.ndarray, neighbour: np.ndarray, truth: np.ndarray
) -> NeighbourCorrelation | None:
    """Correlations of two scores with one truth, and the standard error of their difference.

        error = std of (z_own - z_neighbour) z_truth over the pairs / sqrt(pairs)

    z are values less their mean, over their std.

    Args:
        own: scores at their own place.
        neighbour: scores of the neighbour.
        truth: what both are compared with; all three have one value per pair.

    Returns:
        None with fewer than three pairs, or where the truth or both scores are constant; a constant
        score has correlation 0.

    Example:
        >>> truth = np.array([0.0, 1.0, 0.0, 1.0])
        >>> found = neighbour_correlation(np.array([1.0, 0.0, 0.0, 1.0]), truth, truth)
        >>> found.own, found.neighbour
        (0.0, 1.0)
    """
    z_own, z_next, z_truth = map(_standardized, (own, neighbour, truth))
    if len(truth) < 3 or not z_truth.any() or not (z_own.any() or z_next.any()):
        return None
    products = (z_next - z_own) * z_truth
    error = float(products.std(ddof=1) / np.sqrt(len(truth)))
    return NeighbourCorrelation(
        float((z_own * z_truth).mean()), float((z_next * z_truth).mean()), error, len(truth)
    )


def _standardized(values: np.ndarray) -> np.ndarray:
    std = values.std() if len(values) else 0.0
    scale = np.abs(values).max() if len(values) else 0.0
    return (values - values.mean()) / std if std > 1e-9 * scale else np.zeros(len(values))


@register_check(SHIFTED)
def check_shifted(data: AuditInput) -> CheckResult:
    """Whether scores fit the truth of the step before or after better, or another row's outcome.

    A score that stands one step later than its step correlates with the truth of the step before.
    Where a shift runs through the whole file, a response's last score is the next row's first: its
    first score then correlates with the outcome of the row before, within groups.
    """
    batch = data.batch
    streams = {
        name: stream for name, stream in batch.rollouts.streams.items() if isinstance(stream, Steps)
    }
    if not streams:
        reason = "No row holds one score per step."
        return CheckResult(unchecked=(Unchecked(SHIFTED, "step_scores", reason),))
    figures, found, truth = [], [], _truth_of_steps(batch)
    for name, stream in streams.items():
        values, counts = stream.values.double().numpy(), stream.counts.numpy()
        compared = {}
        if truth is not None and len(truth) == len(values):
            compared.update(against_steps(values, counts, truth))
        compared |= against_outcomes(values, counts, *_outcomes(batch))
        for (side, what), fit in compared.items():
            figure = _figure(name, what, side, fit)
            figures.append(figure)
            if fit.looks_shifted:
                found.append(_finding(name, what, side, fit, figure))
    missing = () if truth is not None else (_no_truth(),)
    return CheckResult(tuple(figures), tuple(found), missing)


def against_steps(
    values: np.ndarray, counts: np.ndarray, truth: np.ndarray
) -> dict[tuple[str, str], NeighbourCorrelation]:
    """For scores one step later and one earlier, how they fit the truth about steps.

    Args:
        values: scores, packed.
        counts: scores per response.
        truth: 1 for a right step, 0 for a wrong one, NaN where it is not known; packed.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    same = np.flatnonzero(row[1:] == row[:-1])
    found = {}
    for side, own, neighbour in ((LATER, same, same + 1), (EARLIER, same + 1, same)):
        known = ~np.isnan(truth[own])
        own, neighbour = own[known], neighbour[known]
        fit = neighbour_correlation(values[own], values[neighbour], truth[own])
        if fit is not None:
            found[side, "the truth about steps"] = fit
    return found


def against_outcomes(
    values: np.ndarray,
    counts: np.ndarray,
    outcome: np.ndarray,
    group: np.ndarray,
) -> dict[tuple[str, str], NeighbourCorrelation]:
    """How a response's last score, and the next row's first, fit its outcome within its group.

    Args:
        values: scores, packed.
        counts: scores per response.
        outcome: per response, NaN where it is not known.
        group: group of each response.
    """
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    rows = np.arange(len(counts) - 1)
    scored = (counts[rows] > 0) & (counts[rows + 1] > 0) & ~np.isnan(outcome[rows])
    rows = rows[scored & (group[rows] == group[rows + 1])]
    if not len(rows):
        return {}
    last, following = values[starts[rows] + counts[rows] - 1], values[starts[rows + 1]]
    apart = [_less_group_mean(each, group[rows]) for each in (last, following, outcome[rows])]
    fit = neighbour_correlation(*apart)
    return {} if fit is None else {(LATER, "the outcome of the row before"): fit}


def _less_group_mean(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    size = np.maximum(np.bincount(group), 1)
    return np.asarray(values - (np.bincount(group, values) / size)[group])


def _truth_of_steps(batch: LoggedBatch) -> np.ndarray | None:
    """1 for right, 0 for wrong, NaN for other steps, packed; None: the log has no truth."""
    labels = batch.step_labels
    if labels is None:
        return None
    numbers = {RIGHT: 1.0, WRONG: 0.0}
    return np.array([numbers.get(each or "", np.nan) for row in labels for each in row])


def _outcomes(batch: LoggedBatch) -> tuple[np.ndarray, np.ndarray]:
    rollouts = batch.rollouts
    outcome = np.where(rollouts.has_outcome.numpy(), rollouts.outcome.double().numpy(), np.nan)
    return outcome, rollouts.group_index.numpy()


def _figure(name: str, what: str, side: str, fit: NeighbourCorrelation) -> AuditFigure:
    label = f"correlation with {what}, one step {side} less at the own place"
    lead, reach = fit.neighbour - fit.own, 1.96 * fit.error
    of = "steps" if "steps" in what else "responses"
    low, high = lead - reach, lead + reach
    return AuditFigure(label, lead, fit.pairs, of, low, high, stream=name, worse="higher")


def _finding(
    name: str, what: str, side: str, fit: NeighbourCorrelation, figure: AuditFigure
) -> Finding:
    sentence = f"The scores of {name!r} look shifted: they stand one step {side} than they should. "
    sentence += f"Their correlation with {what} is {fit.neighbour:.2f} one step {side}, and "
    sentence += f"{fit.own:.2f} at their own place ({fit.pairs} pairs)."
    advice = "Compare `step_ends` with the tokens at which the signal was read, for example the "
    advice += "first score of one response with the text of its first step."
    topic = f"{name} shifted by a step"
    return Finding(SHIFTED, "fault", sentence, (figure,), advice, topic=topic)


def _no_truth() -> Unchecked:
    reason = "No row says which steps are right, so scores are compared with outcomes alone."
    return Unchecked(SHIFTED, "step_labels", reason)
